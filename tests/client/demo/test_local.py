"""`shardwork init --demo` and `shardwork demo`: everything of one's own, found again, started again after a crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardwork_client.demo import local
from tests.client.conftest import Run, error_of, json_of
from tests.client.terminal import COMMAND


def test_without_the_extras_it_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_name: str) -> None: ...

    monkeypatch.setattr(local, "find_spec", nothing)
    for words in (("init", "--demo"), ("demo", "start")):
        refused = run(*words, "--json")
        assert (refused.exit_code, error_of(refused)["code"]) == (3, "demo.not_installed")
        assert "pip install 'shardwork[all]'" in error_of(refused)["next_step"]


def test_before_the_first_start_there_is_none_and_stopping_it_is_harmless(run: Run, home: Path) -> None:
    told = json_of(run("demo", "status", "--json"))
    assert (told["running"], told["join"], told["folder"]) == (False, None, str(home / "data" / "demo"))
    assert "shardwork demo start" in run("demo", "status").stderr
    assert run("demo", "stop").exit_code == 0 and "does not run" in run("demo", "stop").stderr


def test_a_join_line_and_a_demo_exclude_each_other(run: Run) -> None:
    refused = run("init", "shardwork://127.0.0.1:1?ca=" + "a" * 64, "--demo", "--json")
    assert (refused.exit_code, error_of(refused)["code"]) == (2, "usage")


@pytest.fixture
def ask(home: Path) -> Iterator[Any]:
    """Runs a command as a process, as the demo's processes outlive the one that starts them."""

    def told(*words: str) -> Any:
        done = subprocess.run([*COMMAND, *words, "--json"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    yield told
    told("demo", "stop")


@pytest.mark.nightly
def test_it_begins_and_goes_on_after_a_crash_with_the_same_sats_at_the_same_address(ask: Any) -> None:
    first = ask("init", "--demo", "--yes")
    assert first["balance"]["available_msat"] == 2_000_000
    before = ask("demo", "status")
    assert before["running"] and before["join"] == first["join"]
    assert ask("init", "--yes") == first, "a second run finds it"
    assert ask("demo", "status") == before
    for pid in (before["coordinator_pid"], before["worker_pid"]):
        os.kill(pid, signal.SIGKILL)
    assert ask("init", "--yes") == first
    after = ask("demo", "status")
    assert after["running"] and after["coordinator_pid"] != before["coordinator_pid"]
    assert not ask("demo", "stop")["running"]
    assert ask("demo", "start")["join"] == first["join"]
