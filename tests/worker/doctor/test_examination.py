"""The doctor's findings: cause, evidence and fix for each check."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shardwork.config import Home
from shardwork.session import JoinLine
from shardwork_worker import cli
from shardwork_worker.doctor import examination
from shardwork_worker.doctor.examination import examine
from shardwork_worker.doctor.finding import Finding, Health
from shardwork_worker.sandbox.choice import OFF, Ground, Sandbox
from shardwork_worker.sandbox.jail import Mode
from shardwork_worker.settings import WorkerSettings

from ..agent_process import FAKE_CHILD
from ..fake_coordinator import FakeCoordinator


def home_of(folder: Path) -> Home:
    return Home.find({"SHARDWORK_HOME": str(folder)})


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


async def test_a_sound_machine_without_torch_is_told_what_it_lacks(
    coordinator: FakeCoordinator, tmp_path: Path
) -> None:
    found = by_check(await examine(home_of(tmp_path / "home"), coordinator.join, child_command=FAKE_CHILD))
    assert {check: found[check].health for check in ("key", "torch", "coordinator")} == {
        "key": Health.OK,
        "torch": Health.NOTE,
        "coordinator": Health.OK,
    }
    assert "shardwork[worker]" in found["torch"].why.next_step
    assert found["device cpu"].why.evidence["memory"] == "1.0 GiB"
    assert set(coordinator.calls) == {"GetAuthority", "GetChallenge", "Enrol", "Measure"}


async def test_the_sandbox_is_told_layer_by_layer_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = by_check(await examine(home_of(tmp_path / "home"), child_command=FAKE_CHILD))
    assert "apt install bubblewrap" in found["layer bubblewrap"].why.sentence
    assert found["layer bubblewrap"].health is Health.NOTE
    assert found["sandbox"].health in (Health.OK, Health.NOTE) and found["sandbox"].why.sentence
    assert not list((tmp_path / "home" / "config").rglob(".probe*")), "the probe leaves nothing beside the key"


@pytest.mark.parametrize(("mode", "health"), [(Mode.OFF, Health.NOTE), (Mode.REQUIRE, Health.BAD)])
async def test_a_sandbox_that_is_off_or_lacks_is_said(
    mode: Mode, health: Health, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_mode: Mode, _ground: Ground) -> Sandbox:
        return OFF

    monkeypatch.setattr(examination, "choose", nothing)
    settings = WorkerSettings(sandbox=mode)
    found = by_check(await examine(home_of(tmp_path / "home"), settings=settings, child_command=FAKE_CHILD))
    assert found["sandbox"].health is health and "no sandbox" in found["sandbox"].why.sentence


async def test_broken_things_are_bad_with_their_reason(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    home = home_of(tmp_path / "home")
    key = home.key_path("worker")
    key.parent.mkdir(parents=True, mode=0o700)
    key.touch(mode=0o644)
    other = JoinLine("127.0.0.1", coordinator.port, "ab" * 32)
    found = by_check(await examine(home, other, child_command=(sys.executable, "-c", "raise SystemExit('broken')")))
    assert found["key"].why.code == "key.loose_mode"
    assert found["child"].why.evidence["stderr"] == "broken"
    assert found["coordinator"].why.code == "authority.wrong_fingerprint"
    assert {found[check].health for check in ("key", "child", "coordinator")} == {Health.BAD}


def test_folders_that_cannot_be_made_are_bad_and_the_exit_code_is_1(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    shown = CliRunner().invoke(cli.app, ["doctor", "--json"], env={"SHARDWORK_HOME": str(tmp_path / "file")})
    answer = json.loads(shown.stdout)
    assert shown.exit_code == 1 and not answer["ok"]
    assert answer["checks"][0]["check"] == "disk" and answer["checks"][0]["next_step"]
