"""A program of the demo: detached, found again by its own mark, ended by nobody else's pid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardwork_client.demo.process import Background, command_of


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Background]:
    """A background program that says where it lives, and then sleeps."""
    made = Background("sleeper", tmp_path / "demo")
    yield made
    made.stop()


def started(background: Background) -> subprocess.Popen[bytes]:
    told = "os.environ['SHARDWORK_HOME'], os.environ.get('SHARDWORK_JOIN')"
    code = f"import os, time; print({told}, flush=True); time.sleep(60)"
    return background.start("timeit", ["-n", "1", "-r", "1", code], {})


def until_marked(background: Background, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None and background.pid() is None:
        pass


def test_it_is_found_again_and_ended_once(sleeper: Background, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDWORK_JOIN", "somebody else's")
    with started(sleeper) as process:
        until_marked(sleeper, process)
        assert Background("sleeper", sleeper.folder).pid() == process.pid
        assert os.getsid(process.pid) == process.pid, "Ctrl-C in our terminal is not for it"
        while not sleeper.out.read_text():
            assert process.poll() is None, sleeper.log.read_text()
        assert sleeper.out.read_text().split() == [str(sleeper.folder / "sleeper-home"), "None"]
        assert sleeper.stop() and not sleeper.stop()
        assert process.wait() == -signal.SIGTERM


def test_a_pid_that_is_somebody_elses_now_is_left_alone(sleeper: Background) -> None:
    sleeper.folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        (sleeper.folder / "sleeper.pid").write_text(f"{stranger.pid}\n")
        assert sleeper.pid() is None and not sleeper.stop()
        assert stranger.poll() is None
        stranger.communicate(b"\n")


def test_what_ended_by_itself_does_not_run_and_its_last_words_are_kept(sleeper: Background) -> None:
    with sleeper.start("no_such_module_of_ours", [], {}) as process:
        assert process.wait() == 1
    assert sleeper.pid() is None
    assert "no_such_module_of_ours" in sleeper.last_words()
    (sleeper.folder / "sleeper.pid").write_text("not a number")
    assert sleeper.pid() is None and command_of(2**30) == ""
