"""Streams that are closed, full or in another encoding; disks that cannot be written; terminals that cannot draw."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from shardwork.client import received, staging
from shardwork_client.outcome import disk, guard
from shardwork_client.render import why_block
from shardwork_client.views import why_json

from . import tiny_model
from .conftest import Run, error_of
from .fake_coordinator import Fake
from .sample_jobs import JOB_ID, answer, event, running_job, succeeded_job
from .terminal import COMMAND, Terminal


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """`command` in a shell, where $S is the `shardwork` of these tests."""
    inherited = {**os.environ, "S": " ".join(COMMAND), **environment}
    return subprocess.run(["sh", "-c", command], env=inherited, capture_output=True, timeout=60)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "smörgås"}\n' * 3)
    return path


def test_a_closed_stdout_is_no_error(rows: Path) -> None:
    done = shell(f"$S data check {rows} >&-")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
@pytest.mark.parametrize("arguments", ["data check ROWS", "data check ROWS --json", "--help"])
def test_a_full_disk_under_stdout_is_one_sentence(arguments: str, rows: Path) -> None:
    done = shell(f"$S {arguments.replace('ROWS', str(rows))} > /dev/full")
    told = done.stderr.decode()
    assert done.returncode == 1
    assert "No space left on device" in told and "Traceback" not in told and "inside the client" not in told


def test_another_locale_loses_letters_but_no_command(rows: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = shell(f"$S data check {rows}", **plain)
    assert done.returncode == 0 and b"sm?rg?s" in done.stdout
    told = json.loads(shell(f"$S data check {rows} --json", **plain).stdout)
    assert told["preview"][0]["pieces"][0]["text"] == "smörgås"


def test_a_file_name_that_is_no_text_still_makes_json(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/bad\xff.jsonl"
    with open(path, "wb") as file:
        file.write(b'{"text": "a"}\n')
    done = subprocess.run([*COMMAND, "data", "check", path, "--json"], capture_output=True, timeout=60)
    assert json.loads(done.stdout)["preview"][0]["file"].endswith("bad\udcff.jsonl")


def test_a_home_that_cannot_be_made_is_named(run: Run, fake: Fake, monkeypatch: pytest.MonkeyPatch, rows: Path) -> None:
    monkeypatch.setenv("SHARDWORK_HOME", str(rows))
    result = run("login", fake.join, "--json")
    assert result.exit_code == 1
    error = error_of(result)
    assert error["code"] == "client.file" and str(rows) in error["evidence"]["path"]
    assert "SHARDWORK_HOME" in error["next_step"]


def test_a_read_only_disk_says_what_to_do() -> None:
    why = disk(OSError(30, "Read-only file system", "out"))
    assert (why.evidence["path"], why.next_step) == ("out", "Name a folder on a disk that can be written.")


def test_a_read_only_home_says_how_to_have_another(home: Path) -> None:
    assert "export SHARDWORK_HOME=" in disk(OSError(30, "Read-only file system", str(home / "cache" / "x"))).next_step


def test_a_copy_onto_a_full_disk_names_the_disk_that_is_full() -> None:
    why = disk(OSError(28, "No space left on device", "models/config.json", None, "cache/config.json"))
    assert why.evidence["path"] == "cache/config.json"


def test_a_template_that_met_a_full_disk_is_not_in_the_way_of_the_next_try(run: Run, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "job.yaml"
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        refused = run("job", "init", "sft", path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.exit_code == 1 and not path.exists()
    assert run("job", "init", "sft", path).exit_code == 0


def test_a_file_that_is_not_there_is_told_without_empty_counts(run: Run, rows: Path) -> None:
    told = run("data", "check", rows.with_name("nope.jsonl"))
    assert told.exit_code == 3 and told.stdout.startswith("✗ The file cannot be read")
    assert "Did you mean" not in told.stdout
    # a long path is folded where the terminal ends
    said = "".join(run("data", "check", rows.with_name("rosw.jsonl")).stdout.split())
    assert f"Didyoumean'{rows}'?" in said


def test_an_interrupted_script_reads_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BaseException) as caught, guard(True, interrupted="It goes on."):
        raise KeyboardInterrupt
    assert getattr(caught.value, "exit_code", None) == 130
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["code"], error["sentence"], error["exit_code"]) == ("client.interrupted", "It goes on.", 130)


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID] = succeeded_job()
    fake.watch_script = [answer(event(1, "job.succeeded", "All is done."), job=succeeded_job())]
    terminal = Terminal("job", "watch", JOB_ID, kind="dumb")
    assert terminal.finish() == 0
    assert "All is done." in terminal.text and "\x1b" not in terminal.text


def test_what_a_killed_submit_left_staged_goes_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "FRESH_S", -1.0)
    abandoned = tmp_path / f"{staging.PREFIX}dead"
    abandoned.mkdir()
    (abandoned / "model.safetensors").write_bytes(b"x")
    with staging.staging_area(tmp_path) as living:
        assert not abandoned.exists()
        with staging.staging_area(tmp_path) as other:
            assert living.is_dir() and other != living
    assert list(tmp_path.iterdir()) == []


def test_evidence_keeps_its_order_from_frame_to_frame() -> None:
    job = running_job()
    for key in ("stage", "round", "phase", "needs"):
        job.why.evidence[key] = "x"
    why = received.job_status(job).why
    assert why is not None
    assert list(why_json(why)["evidence"]) == sorted(job.why.evidence)
    block = why_block(why, mark="●", style="")
    console = Console(width=80, file=io.StringIO())
    with console.capture() as drawn:
        console.print(block)
    lines = [line.strip() for line in drawn.get().splitlines() if line.strip().endswith(": x")]
    assert lines == ["needs: x", "phase: x", "round: x", "stage: x"]


def test_ctrl_c_while_rows_are_read_leaves_at_once_with_the_cursor_back(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "smörgås är gott och det finns mycket av det"}\n' * 400_000)
    terminal = Terminal("data", "check", path)
    terminal.read_until("reading rows")
    assert terminal.interrupt() == 130
    assert "Traceback" not in terminal.text and "Interrupted." in terminal.text
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")


def test_a_check_reads_conversations_with_a_template_of_ours_where_the_model_has_none(run: Run, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 9)
    model = tiny_model.write_model(tmp_path / "model")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": None}))
    asked = ("data", "check", rows, "--base-model", model, "--json")
    assert run(*asked).exit_code == 3
    checked = run(*asked, "--chat-template", "chatml")
    assert checked.exit_code == 0 and "<|im_start|>" in json.dumps(json.loads(checked.stdout)["preview"])


def test_a_mapping_that_names_a_key_twice_is_refused_and_not_half_followed(run: Run, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("a,b\n1,2\n")
    refused = run("data", "check", rows, "--map", "text=a", "--map", "text=b")
    assert refused.exit_code == 2 and "'text' twice" in refused.stderr
