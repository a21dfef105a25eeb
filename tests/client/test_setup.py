"""The first run, files to begin from, settings with their origins, completion, and Ctrl-C at every prompt of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shardwork.config import Home

from .conftest import Run, error_of, json_of
from .fake_coordinator import Fake
from .sample_jobs import JOB_ID, running_job
from .terminal import Terminal


def test_a_first_run_needs_the_join_line_and_nothing_else(run: Run, fake: Fake, home: Path) -> None:
    result = run("init", fake.join, "--yes")
    assert result.exit_code == 0, result.stderr
    assert fake.join in (home / "config" / "client.toml").read_text()
    assert "simulated 2,000 sat" in result.stderr and "shardwork job init sft" in result.stderr
    again = json_of(run("init", "--json"))
    assert again["join"] == fake.join and again["balance"]["available_msat"] == 2_000_000


def test_without_a_terminal_and_a_join_line_it_is_a_usage_error(run: Run) -> None:
    result = run("init", "--json")
    assert (result.exit_code, error_of(result)["code"]) == (2, "usage")


def test_on_a_terminal_it_asks_and_ctrl_c_leaves_nothing_half_done(fake: Fake, home: Path) -> None:
    terminal = Terminal("init")
    terminal.read_until("Join line")
    assert terminal.interrupt() == 130
    assert "goes on from here" in terminal.text
    assert not (home / "config").exists()
    terminal = Terminal("init")
    terminal.read_until("Join line")
    terminal.type(f"{fake.join}\n")
    terminal.read_until("[Y/n]")
    assert terminal.interrupt() == 130
    assert fake.deposits == {} and (home / "config" / "client.toml").exists()
    terminal = Terminal("init")
    terminal.read_until("[Y/n]")
    terminal.type("\n")
    assert terminal.finish() == 0
    assert len(fake.deposits) == 1 and "2,000 sat" in terminal.text


@pytest.mark.parametrize("kind", ["sft", "pretrain", "count"])
def test_a_job_file_to_begin_from_is_written_once(run: Run, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert json_of(run("job", "init", kind, path, "--json")) == {"kind": kind, "path": str(path)}
    text = path.read_text()
    assert f"recipe: {kind}" in text
    again = run("job", "init", kind, path, "--json")
    assert (again.exit_code, error_of(again)["code"]) == (1, "jobfile.exists")
    assert path.read_text() == text == run("job", "init", kind, "-").stdout


def test_the_kinds_there_are_are_shown(run: Run) -> None:
    kinds = {each["kind"]: each["purpose"] for each in json_of(run("job", "init", "--json"))["kinds"]}
    assert {"sft", "pretrain", "count"} <= set(kinds)
    assert run("job", "init", "sftt").exit_code == 3


def test_settings_are_shown_with_their_origin(logged_in: Run, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def join_origin(*arguments: object) -> tuple[str, str]:
        found = {each["key"]: each for each in json_of(logged_in(*arguments))["settings"]}
        return found["join"]["value"], found["join"]["origin"]

    value, origin = join_origin("config", "show", "--json")
    assert value == fake.join and origin.endswith("client.toml:2")
    monkeypatch.setenv("SHARDWORK_JOIN", "shardwork://127.0.0.1:1?ca=" + "a" * 64)
    assert join_origin("config", "show", "--json")[1] == "SHARDWORK_JOIN"
    assert join_origin("--join", fake.join, "config", "show", "--json") == (fake.join, "--join")


def test_a_first_config_says_default(run: Run) -> None:
    found = {each["key"]: each for each in json_of(run("config", "show", "--json"))["settings"]}
    assert (found["join"]["origin"], found["cache_dir"]["origin"]) == ("default", "SHARDWORK_HOME")
    assert found["key"]["origin"] == "made at the first login"
    assert "made at the first login" in run("config", "show").stdout


def test_a_wrong_key_in_the_file_is_named_by_its_line(logged_in: Run, home: Path) -> None:
    path = Home.find({"SHARDWORK_HOME": str(home)}).config_dir / "client.toml"
    path.write_text(path.read_text() + 'jion = "x"\n')
    result = logged_in("config", "show", "--json")
    assert (result.exit_code, error_of(result)["evidence"]["line"]) == (3, "3")


def completed(words: str, shell: str) -> str:
    """What the shell would be told for this beginning of a command line."""
    environment = {
        **os.environ,
        "_SHARDWORK_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": words,
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    code = "from shardwork_client.cli import app; app(prog_name='shardwork')"
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_job_ids(shell: str, logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    assert JOB_ID in completed(f"shardwork job show {JOB_ID[:3]}", shell)


def test_the_shell_completes_kinds_and_stays_silent_without_a_coordinator(run: Run) -> None:
    assert "pretrain" in completed("shardwork job init pr", "bash")
    assert completed("shardwork job show 3", "bash").strip() == ""


def test_the_script_of_each_shell_is_shown_for_installing(run: Run) -> None:
    for shell in ("bash", "zsh", "fish"):
        code = "from shardwork_client.cli import app; app(prog_name='shardwork')"
        environment = {**os.environ, "_SHARDWORK_COMPLETE": f"source_{shell}"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert "_SHARDWORK_COMPLETE" in done.stdout
