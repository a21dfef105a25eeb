"""Updating a worker: what may be changed, what is installed, what brings the old version back, what runs meanwhile."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shardwork.errors import Conflict, Internal, NotFound, ShardworkError, Unreachable
from shardwork_worker import control
from shardwork_worker.cli import app
from shardwork_worker.commands import update
from shardwork_worker.control import Command
from shardwork_worker.upkeep import service, updating


class Pip:
    """Stands in for pip and for the fresh process that starts the new version."""

    def __init__(self, *, fails: Sequence[str] = (), due: bool = True, interrupted: bool = False) -> None:
        self.fails, self.due, self.interrupted = list(fails), due, interrupted
        #: what was asked, in order: "dry", "freeze", "install", "check", "back", "version"
        self.asked: list[str] = []
        self.version = "1.0"

    def __call__(self, command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        step = self._step(command)
        self.asked.append(step)
        if step in self.fails:
            self.fails.remove(step)
            return subprocess.CompletedProcess(list(command), 1, "", f"first line\nERROR: {step} failed\n")
        if step == "install" and self.interrupted:
            raise KeyboardInterrupt
        if step == "install":
            self.version = "2.0"
        if step == "back":
            self.version = "1.0"
        said = {
            "dry": "Would install shardwork-2.0\n" if self.due else "Requirement already satisfied\n",
            "freeze": "shardwork==1.0\ntorch==2.0\n",
            "version": f"{self.version}\n",
        }
        return subprocess.CompletedProcess(list(command), 0, said.get(step, ""), "")

    def _step(self, command: Sequence[str]) -> str:
        words = " ".join(command)
        if "--dry-run" in command:
            return "dry"
        if "freeze" in command:
            return "freeze"
        if "--force-reinstall" in command:
            assert Path(command[-1]).read_text(encoding="utf-8") == "shardwork==1.0\n"
            return "force"
        if "--no-deps" in command:
            pins = Path(command[-1]).read_text(encoding="utf-8")
            assert pins == "shardwork==1.0\ntorch==2.0\n"
            return "back"
        if "install" in command:
            return "install"
        return "check" if "import shardwork_worker.app" in words else "version"


@pytest.fixture
def by_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updating, "installed", lambda: "1.0")


def place(monkeypatch: pytest.MonkeyPatch, direct_url: dict[str, object] | None, *, venv: bool = True) -> None:
    class Found:
        version = "1.0"

        def read_text(self, name: str) -> str | None:
            return json.dumps(direct_url) if direct_url is not None else None

    def distribution(name: str) -> Found:
        return Found()

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    monkeypatch.setattr(sys, "prefix", "/env" if venv else sys.base_prefix)


def test_only_what_pip_put_into_an_environment_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, None)
    assert updating.installed() == "1.0"
    place(monkeypatch, {"url": "file:///x.whl", "archive_info": {}})
    assert updating.installed() == "1.0"
    place(monkeypatch, {"url": "file:///src", "dir_info": {"editable": True}})
    with pytest.raises(Conflict, match="source tree"):
        updating.installed()
    place(monkeypatch, None, venv=False)
    with pytest.raises(Conflict, match="the system's own packages"):
        updating.installed()


def test_this_source_tree_is_not_pips_to_change() -> None:
    with pytest.raises(Conflict, match="not pip's to change"):
        updating.installed()


@pytest.mark.usefixtures("by_pip")
def test_a_good_version_stays() -> None:
    pip = Pip()
    assert updating.change("shardwork[worker]", run=pip) == updating.Outcome(before="1.0", after="2.0")
    assert pip.asked == ["freeze", "install", "check", "version"]


@pytest.mark.usefixtures("by_pip")
@pytest.mark.parametrize("step", ["install", "check"])
def test_a_version_that_does_not_install_or_start_goes(step: str) -> None:
    pip = Pip(fails=[step])
    with pytest.raises(Internal, match="is back") as caught:
        updating.change("shardwork[worker]", run=pip)
    assert caught.value.code == "update.rolled_back"
    assert caught.value.why.evidence["problem"] == f"ERROR: {step} failed"
    assert pip.version == "1.0" and pip.asked[-2:] == ["back", "check"]


@pytest.mark.usefixtures("by_pip")
@pytest.mark.parametrize("fails", [["check", "back"], ["check", "check", "check"]])
def test_a_way_back_that_fails_is_said_with_what_to_do_by_hand(fails: list[str]) -> None:
    with pytest.raises(Internal) as caught:
        updating.change("shardwork[worker]", run=Pip(fails=fails))
    assert caught.value.code == "update.broken" and "==1.0" in caught.value.why.next_step


@pytest.mark.usefixtures("by_pip")
def test_an_interrupted_installation_goes_back_also_where_it_only_looks_installed() -> None:
    pip = Pip(interrupted=True, fails=["check"])
    with pytest.raises(Internal, match="is back") as caught:
        updating.change("shardwork[worker]", run=pip)
    assert caught.value.why.evidence["problem"] == "it was interrupted"
    assert pip.asked == ["freeze", "install", "back", "check", "force", "check"]


@pytest.mark.usefixtures("by_pip")
def test_without_a_way_back_nothing_is_changed() -> None:
    pip = Pip(fails=["freeze"])
    with pytest.raises(Internal, match="no way back"):
        updating.change("shardwork[worker]", run=pip)
    assert pip.asked == ["freeze"]


def test_what_pip_does_not_find_changes_nothing() -> None:
    with pytest.raises(Unreachable, match="finds nothing"):
        updating.is_due("shardwork[worker]==99", run=Pip(fails=["dry"]))
    assert not updating.is_due("shardwork[worker]", run=Pip(due=False))


def test_a_command_that_hangs_counts_as_a_failure() -> None:
    done = updating.run([sys.executable, "-c", "import time; time.sleep(60)"], 0.2)
    assert done.returncode == 124 and "longer than" in done.stderr


# ---- what runs meanwhile --------------------------------------------------------------------------------------------


def is_due(wanted: str) -> bool:
    return bool(wanted)


def is_not_due(wanted: str) -> bool:
    return not wanted


class Running:
    """A worker with a shard in hand, as the control socket shows it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, shards: int, is_service: bool = False) -> None:
        self.told: list[str] = []
        self._shards, self._is_over = shards, False
        self.state, self.why = "busy", ""
        #: what asking for the status raises, as a Ctrl-C while it waits
        self.breaks: BaseException | None = None
        monkeypatch.setattr(control, "ask", self.ask)
        monkeypatch.setattr(update, "LOOK_S", 0.0)
        monkeypatch.setattr(updating, "installed", lambda: "1.0")
        monkeypatch.setattr(updating, "is_due", is_due)
        monkeypatch.setattr(updating, "change", self.change)
        monkeypatch.setattr(service, "stop", lambda: self.told.append("service stop"))
        monkeypatch.setattr(service, "start", lambda: self.told.append("service start"))
        monkeypatch.setattr(service, "unit_path", lambda: Path("/" if is_service else "/nothing/here"))
        self.fails: ShardworkError | None = None

    def ask(self, folder: Path, command: Command) -> dict[str, object]:
        if self._is_over or self._shards < 0:
            raise NotFound("worker.not_running", "No worker runs here.", next_step="Start one.")
        if command is not Command.STATUS:
            self.told.append(str(command))
        elif self.told and self.breaks is not None:
            raise self.breaks
        self._is_over = command is Command.STOP
        self._shards -= command is Command.STATUS
        why = {"code": self.why} if self.why else None
        return {"state": self.state, "why": why, "shard": "job/s/r1/learn/s0" if self._shards > 0 else None}

    def change(self, wanted: str) -> updating.Outcome:
        self.told.append(f"install {wanted}")
        if self.fails:
            raise self.fails
        return updating.Outcome(before="1.0", after="2.0")


def call(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["update", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_the_shard_in_hand_is_completed_before_anything_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(monkeypatch, shards=3)
    said = call("--yes")
    assert running.told == ["finish", "stop", "install shardwork[worker]"]
    assert "1.0 -> 2.0" in said and "shardwork-worker start JOIN" in said


def test_a_service_is_started_again_whichever_version_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(monkeypatch, shards=1, is_service=True)
    call("--yes", "--to", "2.0")
    assert running.told == ["finish", "service stop", "stop", "install shardwork[worker]==2.0", "service start"]
    running = Running(monkeypatch, shards=1, is_service=True)
    running.fails = Internal("update.rolled_back", "1.0 is back.")
    with pytest.raises(Internal):
        call("--yes", "--to", "/tmp/shardwork-2.whl")
    assert running.told[-2:] == ["install /tmp/shardwork-2.whl[worker]", "service start"]


def test_a_shard_that_takes_too_long_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(monkeypatch, shards=10**9)
    with pytest.raises(Conflict, match="longer than you would wait"):
        call("--yes", "--patience-minutes", "0")
    assert running.told == ["finish", "resume"]


@pytest.mark.parametrize(("why", "told"), [("", ["finish", "resume"]), ("worker.finished", ["finish"])])
def test_ctrl_c_while_it_waits_leaves_the_worker_as_it_was(
    monkeypatch: pytest.MonkeyPatch, why: str, told: list[str]
) -> None:
    running = Running(monkeypatch, shards=10**9)
    running.why, running.breaks = why, KeyboardInterrupt()
    assert CliRunner().invoke(app, ["update", "--yes"]).exit_code == 130
    assert running.told == told


def test_a_worker_that_waits_for_its_coordinator_is_updated_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(monkeypatch, shards=1)
    running.state = "joining"
    call("--yes")
    assert running.told == ["stop", "install shardwork[worker]"]


def test_a_worker_that_ends_while_its_shard_is_waited_for_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(monkeypatch, shards=10**9)
    running.breaks = NotFound("worker.not_running", "No worker runs here.")
    assert "Start it again" in call("--yes")
    assert running.told[-1] == "install shardwork[worker]"


def test_a_worker_that_was_stopped_for_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(monkeypatch, shards=1)
    running.fails = Internal("update.rolled_back", "1.0 is back.")
    done = CliRunner().invoke(app, ["update", "--yes"])
    assert done.exception is running.fails and "Start it again" in done.output


def test_without_a_worker_it_is_only_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(monkeypatch, shards=-1)
    assert "Start it again" not in call("--yes")
    assert running.told == ["install shardwork[worker]"]


def test_nothing_to_do_and_nobody_to_ask_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(monkeypatch, shards=1)
    with pytest.raises(ShardworkError, match="Nobody confirmed"):
        call()
    monkeypatch.setattr(updating, "is_due", is_not_due)
    assert "nothing to do" in call("--yes")
    assert running.told == []
