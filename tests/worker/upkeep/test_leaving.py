"""Leaving: the shard goes back, all of jobs is wiped, the key stays unless told, unpaid sats are named first."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from shardwork.config import Home
from shardwork.errors import Conflict
from shardwork_worker import control
from shardwork_worker.account.asking import Balance
from shardwork_worker.app import Folders, only_one
from shardwork_worker.cli import app
from shardwork_worker.control import stop_and_wait
from shardwork_worker.upkeep.leaving import traces, warnings, wipe

from ..conftest import Workers
from ..fake_coordinator import FakeCoordinator


@pytest.fixture(autouse=True)
def no_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))


async def leave(home: Path, *words: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["leave", *words], env={"SHARDWORK_HOME": str(home)})


async def test_a_worker_at_work_gives_its_shard_back_and_leaves_only_its_key_and_settings(
    coordinator: FakeCoordinator, workers: Workers, waiting: dict[str, Any], tmp_path: Path
) -> None:
    worker = await workers.here()
    settings = workers.home / "config" / "worker.toml"
    settings.write_text("name = 'x'\n")
    lease = coordinator.lease(waiting, {"rows": coordinator.keep_file(tmp_path / "in", "rows", b"secret rows")})
    coordinator.offer(lease)
    await coordinator.until_computing()
    coordinator.balance = {"available_msat": 7000}
    done = await leave(workers.home, "--yes")
    assert done.exit_code == 0, done.output
    assert (await coordinator.wait("ReleaseLease")).lease_id == lease.lease_id
    await worker.task
    left = sorted(str(file.relative_to(workers.home)) for file in workers.home.rglob("*") if file.is_file())
    assert left == ["config/keys/worker.key", "config/worker.toml"]
    assert "7 sat of this worker are not paid out, and stay with its key." in done.stderr
    assert "The worker is busy: it is stopped" in done.stderr


async def test_the_key_goes_only_when_told_with_what_is_lost(coordinator: FakeCoordinator, workers: Workers) -> None:
    await workers.here()
    coordinator.balance = {"available_msat": 7000}
    done = await leave(workers.home, "--yes", "--forget-key")
    assert "without the key they are lost" in done.stderr and "and the key" in done.stderr
    assert not [file for file in workers.home.rglob("*") if file.is_file()]


async def test_without_a_word_nothing_is_wiped(coordinator: FakeCoordinator, workers: Workers) -> None:
    worker = await workers.here()
    done = await leave(workers.home)
    assert getattr(done.exception, "code", "") == "leave.not_confirmed"
    assert worker.folders.state.exists() and not worker.task.done()


def test_a_worker_that_does_not_end_keeps_its_files(tmp_path: Path) -> None:
    home = Home.find({"SHARDWORK_HOME": str(tmp_path)})
    Folders.of(home).make()
    kept = Folders.of(home).artifacts / "rows"
    kept.write_bytes(b"x" * 1000)
    assert traces(home).bytes == 1000
    with only_one(Folders.of(home).state), pytest.raises(Conflict):
        wipe(home, forget_key=True)
    assert kept.exists()
    assert wipe(home, forget_key=False).bytes >= 1000 and not kept.exists()
    assert wipe(home, forget_key=False).bytes == 0, "a second time there is nothing"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_what_a_shard_closed_to_its_owner_is_wiped_too(tmp_path: Path) -> None:
    home = Home.find({"SHARDWORK_HOME": str(tmp_path)})
    Folders.of(home).make()
    closed = Folders.of(home).work / "lease" / "closed"
    closed.mkdir(parents=True)
    (closed / "rows").write_bytes(b"secret")
    closed.chmod(0)
    closed.parent.chmod(0o500)
    wipe(home, forget_key=False)
    assert not Folders.of(home).work.exists()


def test_a_worker_counts_as_stopped_only_once_its_folders_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "STOP_LOOK_S", 0.0)
    with only_one(tmp_path):
        # it answers no more, and has not ended: to wipe now would be refused
        with pytest.raises(Conflict, match="still runs") as caught:
            stop_and_wait(tmp_path)
        assert caught.value.why.evidence["pid"] == str(os.getpid())
    stop_and_wait(tmp_path)
    stop_and_wait(tmp_path / "never")


def test_sats_on_their_way_to_an_address_are_not_asked_an_address_for(tmp_path: Path) -> None:
    found = traces(Home.find({"SHARDWORK_HOME": str(tmp_path)}))
    known: dict[str, Any] = {"earned_msat": 5000, "held_msat": 0, "paid_out_msat": 0, "asset": "bitcoin"}
    to_rig = Balance(**known, available_msat=5000, payout_address="rig@simulated", threshold_msat=1_000_000)
    (why,) = warnings(found, to_rig, forget_key=False, state="offline")
    assert "to rig@simulated from 1,000 sat on" in why.next_step
    (why,) = warnings(found, Balance(**known, available_msat=5000), forget_key=False, state="offline")
    assert "Set a payout address" in why.next_step


def test_what_is_not_known_is_said_when_the_key_would_go(tmp_path: Path) -> None:
    found = traces(Home.find({"SHARDWORK_HOME": str(tmp_path)}))
    told = warnings(found, None, forget_key=True, state="offline")
    assert [why.code for why in told] == ["leave.balance_unknown"]
    assert warnings(found, None, forget_key=False, state="offline") == []
    nothing = Balance(earned_msat=5, held_msat=0, paid_out_msat=5, available_msat=0, asset="bitcoin")
    assert warnings(found, nothing, forget_key=True, state="offline") == []
