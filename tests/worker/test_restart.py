"""The worker as a process: killed and started again, signals, its lock, and what its child may see."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardwork import work
from shardwork.errors import StaleLease, Unreachable
from shardwork.protocol import software_version
from shardwork_worker.control import Command, ask

from .conftest import Workers, let_go
from .fake_coordinator import FakeCoordinator

RunLog = Callable[[], list[str]]
STATE = Path("state") / "worker"


async def test_a_worker_killed_while_it_computes_takes_the_shard_up_again(
    coordinator: FakeCoordinator, workers: Workers, run_log: RunLog, waiting: dict[str, Any]
) -> None:
    first = await workers.process()
    await coordinator.wait("Hello")
    lease = coordinator.lease(waiting)
    coordinator.offer(lease)
    await coordinator.until_computing()
    first.kill()
    await first.wait()
    let_go(waiting)
    await workers.process()
    hello = await coordinator.wait("Hello", 2)
    assert [running.lease_id for running in hello.running] == [lease.lease_id]
    await coordinator.wait("SubmitResult")
    assert run_log() == [f"{lease.lease_id} []"] * 2


async def test_a_worker_killed_after_computing_hands_in_without_computing_again(
    coordinator: FakeCoordinator, workers: Workers, run_log: RunLog, waiting: dict[str, Any]
) -> None:
    let_go(waiting)
    first = await workers.process()
    await coordinator.wait("Hello")
    coordinator.refuse["CommitResult"] = Unreachable("test.away", "The test refuses every commit.")
    lease = coordinator.lease(waiting | {"mib": 3})
    coordinator.offer(lease)
    await coordinator.wait("CommitResult")
    first.kill()
    await first.wait()
    del coordinator.refuse["CommitResult"]
    await workers.process()
    request = await coordinator.wait("SubmitResult")
    assert len(run_log()) == 1
    submission = work.open_submission(request.envelope, coordinator.worker_key)
    assert coordinator.blobs[submission.outputs[0].artifact_id].complete


async def test_a_worker_killed_while_it_submits_repeats_the_same_bytes(
    coordinator: FakeCoordinator, workers: Workers, run_log: RunLog, waiting: dict[str, Any], tmp_path: Path
) -> None:
    let_go(waiting)
    rows = coordinator.keep_file(tmp_path / "rows", "rows", b"rows")
    first = await workers.process()
    await coordinator.wait("Hello")
    coordinator.refuse["SubmitResult"] = Unreachable("test.away", "The test refuses every submission.")
    coordinator.offer(coordinator.lease(waiting, {"train": rows}))
    before = await coordinator.wait("SubmitResult")
    first.kill()
    await first.wait()
    del coordinator.refuse["SubmitResult"]
    seen = sum(name == "SubmitResult" for name, _ in coordinator.events)
    await workers.process()
    after = await coordinator.wait("SubmitResult", seen + 1)
    assert after == before
    assert len(run_log()) == 1


async def test_outputs_that_changed_on_disk_after_the_kill_are_computed_again(
    coordinator: FakeCoordinator, workers: Workers, run_log: RunLog, waiting: dict[str, Any]
) -> None:
    let_go(waiting)
    first = await workers.process()
    await coordinator.wait("Hello")
    coordinator.refuse["CommitResult"] = Unreachable("test.away", "The test refuses every commit.")
    coordinator.offer(coordinator.lease(waiting))
    await coordinator.wait("CommitResult")
    first.kill()
    await first.wait()
    (made,) = (workers.home / "cache" / "worker" / "handed").glob("*/delta/made")
    made.write_bytes(b"tampered")
    del coordinator.refuse["CommitResult"]
    await workers.process()
    await coordinator.wait("SubmitResult")
    assert len(run_log()) == 2


async def test_a_journalled_lease_that_is_stale_is_forgotten(
    coordinator: FakeCoordinator, workers: Workers, waiting: dict[str, Any]
) -> None:
    let_go(waiting)
    first = await workers.process()
    await coordinator.wait("Hello")
    coordinator.refuse["CommitResult"] = Unreachable("test.away", "The test refuses every commit.")
    coordinator.offer(coordinator.lease(waiting))
    await coordinator.wait("CommitResult")
    first.kill()
    await first.wait()
    coordinator.refuse["CommitResult"] = StaleLease("lease.stale_epoch", "The lease is no longer the live one.")
    second = await workers.process("0.3")
    async with asyncio.timeout(20):
        assert await second.wait() == 0
    assert not (workers.home / STATE / "lease.json").exists()
    assert coordinator.calls["SubmitResult"] == 0


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
async def test_a_signal_gives_the_shard_back_and_ends_the_child(
    coordinator: FakeCoordinator, workers: Workers, waiting: dict[str, Any], number: int, exit_code: int
) -> None:
    process = await workers.process()
    await coordinator.wait("Hello")
    coordinator.offer(coordinator.lease(waiting))
    await coordinator.until_computing()
    child = child_of(process.pid)
    process.send_signal(number)
    async with asyncio.timeout(20):
        assert await process.wait() == exit_code
    assert coordinator.last("ReleaseLease").why.code == "worker.stopping"
    assert not Path(f"/proc/{child}").exists()


async def test_the_child_dies_with_a_killed_agent(
    coordinator: FakeCoordinator, workers: Workers, waiting: dict[str, Any]
) -> None:
    process = await workers.process()
    await coordinator.wait("Hello")
    coordinator.offer(coordinator.lease(waiting))
    await coordinator.until_computing()
    child = child_of(process.pid)
    process.kill()
    await process.wait()
    async with asyncio.timeout(10):
        while is_running(child):
            await asyncio.sleep(0)


async def test_the_child_sees_no_secret_in_its_environment_or_arguments(
    coordinator: FakeCoordinator, workers: Workers
) -> None:
    process = await workers.process(env={"SOME_TOKEN": "a-secret-of-the-owner"})
    await coordinator.wait("Hello")
    child = child_of(process.pid)
    secret = (workers.home / "config" / "keys" / "worker.key").read_text().strip()
    shown = Path(f"/proc/{child}/environ").read_bytes() + Path(f"/proc/{child}/cmdline").read_bytes()
    assert b"a-secret-of-the-owner" not in shown and secret.encode() not in shown
    # the interpreter may add its locale settings, nothing of ours
    names = {entry.partition(b"=")[0] for entry in Path(f"/proc/{child}/environ").read_bytes().split(b"\0") if entry}
    assert names <= {b"LC_CTYPE"}
    own = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert secret.encode() not in own


async def test_a_second_worker_with_the_same_folders_is_refused(coordinator: FakeCoordinator, workers: Workers) -> None:
    first = await workers.process()
    await coordinator.wait("Hello")
    second = await workers.process()
    async with asyncio.timeout(20):
        _, errors = await second.communicate()
    assert second.returncode == 1
    assert b"worker.already_running" in errors and str(first.pid).encode() in errors


async def test_the_agent_loads_neither_torch_nor_numpy(coordinator: FakeCoordinator, workers: Workers) -> None:
    process = await workers.process("0.5")
    await coordinator.wait("Hello")
    coordinator.offer(coordinator.lease({"do": "copy"}))
    async with asyncio.timeout(20):
        _, said = await process.communicate()
    assert process.returncode == 0, said
    text = said.decode()
    assert "joined 127.0.0.1" in text and "for 7 sat" in text and "paid 7 sat" in text


async def test_a_join_line_that_never_worked_gives_up_as_unreachable(
    coordinator: FakeCoordinator, workers: Workers
) -> None:
    await coordinator.stop()
    process = await workers.process()
    async with asyncio.timeout(30):
        _, errors = await process.communicate()
    assert process.returncode == 7
    assert b"coordinator.unreachable" in errors


async def test_a_worker_that_joined_before_waits_for_its_coordinator(
    coordinator: FakeCoordinator, workers: Workers
) -> None:
    first = await workers.process("0.2")
    async with asyncio.timeout(20):
        assert await first.wait() == 0
    await coordinator.stop()
    second = await workers.process("0.2")
    state_dir = workers.home / STATE
    async with asyncio.timeout(20):
        while not (state_dir / "worker.sock").exists() or not (status := ask(state_dir, Command.STATUS))["why"]:
            await asyncio.sleep(0)
    assert (status["state"], status["why"]["code"]) == ("joining", "coordinator.unreachable")
    await coordinator.start()
    async with asyncio.timeout(20):
        assert await second.wait() == 0
    assert coordinator.last("Hello").software_version == software_version()


def child_of(pid: int) -> int:
    """The training child of an agent."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
