"""The doctor's findings: cause, evidence and fix for each check."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from typer.testing import CliRunner

from shardwork.config import Home
from shardwork.session import JoinLine
from shardwork_worker import cli
from shardwork_worker.doctor import Finding, Health, examine

from .agent_process import FAKE_CHILD
from .fake_coordinator import FakeCoordinator


def home_of(folder: Path) -> Home:
    return Home.find({"SHARDWORK_HOME": str(folder)})


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


async def test_a_sound_machine_without_torch_is_told_what_it_lacks(
    coordinator: FakeCoordinator, tmp_path: Path
) -> None:
    found = by_check(await examine(home_of(tmp_path / "home"), coordinator.join, child_command=FAKE_CHILD))
    assert {check: finding.health for check, finding in found.items() if check not in ("disk", "device cpu")} == {
        "key": Health.OK,
        "torch": Health.NOTE,
        "sandbox": Health.NOTE,
        "coordinator": Health.OK,
    }
    assert "shardwork[worker]" in found["torch"].why.next_step
    assert found["device cpu"].why.evidence["memory"] == "1.0 GiB"
    assert set(coordinator.calls) == {"GetAuthority"}


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
