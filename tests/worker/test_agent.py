"""What the agent takes, gives back and shows: commands of its owner, revocation, failures, reconnecting, idleness."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardwork.errors import Conflict, InvalidInput, LimitExceeded, ShardworkError, Unreachable
from shardwork.v1 import work_pb2
from shardwork_worker import agent
from shardwork_worker.account.book import Book, Fate
from shardwork_worker.control import Command
from shardwork_worker.state_file import Journal, LeaseRecord
from shardwork_worker.trainer_process import TrainerProcess

from .conftest import Workers, let_go
from .fake_coordinator import FakeCoordinator


async def test_heartbeats_carry_step_progress_and_loss_of_the_shard_in_hand(
    coordinator: FakeCoordinator, workers: Workers, waiting: dict[str, Any]
) -> None:
    worker = await workers.here()
    lease = coordinator.lease(waiting)
    coordinator.offer(lease)
    status = await coordinator.until_computing()
    assert (status.lease_id, status.progress, status.loss) == (lease.lease_id, 0.5, 1.25)
    shown = await worker.ask(Command.STATUS)
    assert (shown["state"], shown["shard"], shown["progress"]) == ("busy", lease.lease_id, 0.5)
    let_go(waiting)
    await coordinator.wait("SubmitResult")


async def test_earnings_come_from_the_wallet_after_a_verdict(coordinator: FakeCoordinator, workers: Workers) -> None:
    worker = await workers.here()
    lease = coordinator.lease({"do": "copy"})
    coordinator.verdict = work_pb2.SubmitResultResponse(state="submitted")
    coordinator.offer(lease)
    await coordinator.wait("SubmitResult")
    assert (await worker.until_idle())["earned_msat"] == {"paid": 0, "pending": 7000, "held": 0}
    coordinator.earned_msat = 7000
    settlement = work_pb2.Settlement(lease_id=lease.lease_id, state="accepted", paid_msat=7000)
    asked = coordinator.calls["GetBalance"]
    coordinator.push(work_pb2.AttachResponse(settlement=settlement))
    await coordinator.wait("GetBalance", asked + 1)
    async with asyncio.timeout(5):
        while (await worker.ask(Command.STATUS))["earned_msat"] != {"paid": 7000, "pending": 0, "held": 0}:
            pass
    assert (await worker.ask(Command.STATUS))["shards_done"] == 1


async def test_a_revoked_shard_stops_at_once_and_is_not_released(
    coordinator: FakeCoordinator, workers: Workers, waiting: dict[str, Any]
) -> None:
    worker = await workers.here()
    lease = coordinator.lease(waiting)
    coordinator.offer(lease)
    await coordinator.until_computing()
    coordinator.revoke(lease.lease_id)
    # comes while the first is still ending, twice, and goes to the same child, which obeyed
    following = coordinator.lease({"do": "copy"})
    coordinator.offer(following)
    coordinator.offer(following)
    await coordinator.wait("SubmitResult")
    assert coordinator.calls["ReleaseLease"] == 0
    await worker.until_idle()
    assert not list(worker.folders.work.iterdir())


async def test_a_revocation_that_is_told_again_is_said_once(
    coordinator: FakeCoordinator,
    workers: Workers,
    waiting: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(TrainerProcess.__init__, "__kwdefaults__", {"grace_s": 0.5})
    worker = await workers.here()
    lease = coordinator.lease({"do": "hang"})
    coordinator.offer(lease)
    await coordinator.until_computing()
    # as with each heartbeat while the child still ends
    for _ in range(3):
        coordinator.revoke(lease.lease_id)
    await worker.until_idle()
    assert capsys.readouterr().err.count("was revoked") == 1


async def test_what_a_shard_writes_beside_its_folder_counts_and_is_gone_with_it(
    coordinator: FakeCoordinator, workers: Workers, waiting: dict[str, Any]
) -> None:
    worker = await workers.here(output_bytes=100_000)
    coordinator.offer(coordinator.lease(waiting | {"beside": "for-the-next-one"}))
    released = await coordinator.wait("ReleaseLease")
    assert released.why.code == "trainer.output_too_large"
    await worker.until_idle()
    assert not list(worker.folders.work.iterdir())


async def test_settings_that_changed_since_the_start_are_said(coordinator: FakeCoordinator, workers: Workers) -> None:
    worker = await workers.here()

    async def codes() -> list[str]:
        return [reason["code"] for reason in (await worker.ask(Command.WHY))["reasons"]]

    assert "worker.settings_changed" not in await codes()
    (workers.home / "config" / "worker.toml").write_text("hours = '22:00-07:00'\n")
    assert "worker.settings_changed" in await codes()


class Once(dict[str, ShardworkError]):
    """Refusals that are given once."""

    def __getitem__(self, name: str) -> ShardworkError:
        return self.pop(name)


async def test_one_verdict_that_is_refused_keeps_no_other_from_being_heard(
    coordinator: FakeCoordinator, workers: Workers
) -> None:
    worker = await workers.here()
    book = Book(worker.folders.state)
    coordinator.verdict = work_pb2.SubmitResultResponse(state="pending")
    for count in (1, 2):
        coordinator.offer(coordinator.lease({"do": "copy"}))
        await coordinator.wait("SubmitResult", count)
        await worker.until_idle()
    first, second = book.pending()
    coordinator.verdict = work_pb2.SubmitResultResponse(state="accepted", paid_msat=7000)
    coordinator.refuse = Once(SubmitResult=InvalidInput("test.odd", "The test refuses this one."))
    coordinator.push(Unreachable("test.cut", "The test cuts the stream."))
    await coordinator.wait("SubmitResult", 4)
    async with asyncio.timeout(5):
        while (line := book.find(second.lease_id)) is None or line.state is not Fate.PAID:
            await asyncio.sleep(0)
    assert [one.lease_id for one in book.pending()] == [first.lease_id]


async def test_an_offer_that_waits_for_a_stubborn_child_is_kept_alive(
    coordinator: FakeCoordinator, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the hanging child is killed after this long; heartbeats come every second
    monkeypatch.setattr(TrainerProcess.__init__, "__kwdefaults__", {"grace_s": 3.0})
    await workers.here()
    lease, following = coordinator.lease({"do": "hang"}), coordinator.lease({"do": "copy"})
    coordinator.offer(lease)
    await coordinator.until_computing()
    coordinator.revoke(lease.lease_id)
    coordinator.offer(following)

    def is_told() -> bool:
        return [(one.lease_id, one.step) for one in coordinator.last("Heartbeat").running][1:] == [
            (following.lease_id, "waiting")
        ]

    async with asyncio.timeout(10):
        await coordinator.wait_until(is_told)
    assert coordinator.calls["ReleaseLease"] == 0


async def test_a_crash_of_the_child_releases_the_lease_with_the_reason(
    coordinator: FakeCoordinator, workers: Workers
) -> None:
    worker = await workers.here()
    lease = coordinator.lease({"do": "crash"})
    coordinator.offer(lease)
    release = await coordinator.wait("ReleaseLease")
    assert (release.lease_id, release.why.code) == (lease.lease_id, "trainer.died")
    assert release.why.evidence["exit_status"] == "3"
    assert "crashes as it was told" in release.why.evidence["stderr"]
    coordinator.offer(coordinator.lease({"do": "copy"}))
    await coordinator.wait("SubmitResult")
    assert (await worker.until_idle())["shards_failed"] == 1


async def test_three_failures_in_a_row_pause_the_worker_until_it_is_resumed(
    coordinator: FakeCoordinator, workers: Workers
) -> None:
    worker = await workers.here()
    for count in (1, 2, 3):
        coordinator.offer(coordinator.lease({"do": "fail"}))
        await coordinator.wait("ReleaseLease", count)
    status = await worker.ask(Command.STATUS)
    assert (status["state"], status["why"]["code"]) == ("paused", "worker.breaker")
    assert "fake child failed" in status["why"]["evidence"]["last"]
    await coordinator.wait_until(lambda: not coordinator.last("Heartbeat").accepting)
    assert (await worker.ask(Command.RESUME))["state"] == "ready"
    coordinator.offer(coordinator.lease({"do": "copy"}))
    await coordinator.wait("SubmitResult")


@pytest.mark.parametrize("code", ["model.target_modules", "trainer.diverged"])
async def test_what_every_worker_would_meet_in_a_job_rests_no_worker(
    code: str, coordinator: FakeCoordinator, workers: Workers
) -> None:
    """One requester's wrong model or rate must not keep the machines from everybody else."""
    worker = await workers.here()
    for count in (1, 2, 3, 4):
        coordinator.offer(coordinator.lease({"do": "fail", "code": code}))
        assert (await coordinator.wait("ReleaseLease", count)).why.code == code
    status = await worker.until_idle()
    assert (status["state"], status["shards_failed"]) == ("ready", 4)


async def test_a_shard_in_between_that_succeeds_resets_the_breaker(
    coordinator: FakeCoordinator, workers: Workers
) -> None:
    worker = await workers.here()
    for number, do in enumerate(("fail", "fail", "copy", "fail", "fail")):
        coordinator.offer(coordinator.lease({"do": do}))
        if do == "copy":
            await coordinator.wait("SubmitResult")
        else:
            await coordinator.wait("ReleaseLease", number + (number < 2))
        await worker.until_idle()
    assert (await worker.ask(Command.STATUS))["state"] == "ready"


async def test_after_its_rest_the_worker_tries_one_shard_and_rests_longer_if_that_fails_too(
    coordinator: FakeCoordinator, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that fails everywhere must not silence every worker until its owner comes."""
    monkeypatch.setattr(agent, "BREAKER_REST_S", 0.05)
    worker = await workers.here()
    for count in (1, 2, 3):
        coordinator.offer(coordinator.lease({"do": "fail"}))
        await coordinator.wait("ReleaseLease", count)
    await coordinator.wait_until(lambda: not coordinator.last("Heartbeat").accepting)
    await coordinator.wait_until(lambda: bool(coordinator.last("Heartbeat").accepting))
    monkeypatch.setattr(agent, "BREAKER_REST_S", 600.0)
    coordinator.offer(coordinator.lease({"do": "fail"}))
    await coordinator.wait("ReleaseLease", 4)
    status = await worker.ask(Command.STATUS)
    assert (status["state"], status["why"]["code"]) == ("paused", "worker.breaker")
    assert "rests 20 min" in status["why"]["sentence"]


async def test_offers_it_cannot_take_are_given_back_with_the_reason(
    coordinator: FakeCoordinator, workers: Workers, waiting: dict[str, Any]
) -> None:
    await workers.here(minimum_sats=5)
    coordinator.offer(coordinator.lease({"do": "copy"}, price_msat=4999))
    assert (await coordinator.wait("ReleaseLease", 1)).why.code == "worker.below_minimum"
    coordinator.offer(coordinator.lease({"do": "copy"}, execution_class="cuda:other"))
    assert (await coordinator.wait("ReleaseLease", 2)).why.code == "worker.other_class"
    taken = coordinator.lease(waiting)
    coordinator.offer(taken)
    await coordinator.until_computing()
    coordinator.offer(taken)
    coordinator.offer(coordinator.lease({"do": "copy"}))
    assert (await coordinator.wait("ReleaseLease", 3)).why.code == "worker.busy"
    let_go(waiting)
    assert (await coordinator.wait("SubmitResult")) is not None
    assert coordinator.calls["ReleaseLease"] == 3


async def test_pause_gives_the_shard_back_at_once_and_resume_takes_work_again(
    coordinator: FakeCoordinator, workers: Workers, waiting: dict[str, Any]
) -> None:
    worker = await workers.here()
    lease = coordinator.lease(waiting)
    coordinator.offer(lease)
    await coordinator.until_computing()
    status = await worker.ask(Command.PAUSE)
    assert (status["state"], status["shard"]) == ("paused", None)
    release = await coordinator.wait("ReleaseLease")
    assert (release.lease_id, release.why.code) == (lease.lease_id, "worker.paused")
    await coordinator.wait_until(lambda: not coordinator.last("Heartbeat").accepting)
    coordinator.offer(coordinator.lease({"do": "copy"}))
    await coordinator.wait("ReleaseLease", 2)
    assert (await worker.ask(Command.RESUME))["state"] == "ready"
    coordinator.offer(coordinator.lease({"do": "copy"}))
    await coordinator.wait("SubmitResult")


async def test_finish_completes_the_shard_and_then_takes_no_more(
    coordinator: FakeCoordinator, workers: Workers, waiting: dict[str, Any]
) -> None:
    worker = await workers.here()
    coordinator.offer(coordinator.lease(waiting))
    await coordinator.until_computing()
    assert (await worker.ask(Command.FINISH))["state"] == "draining"
    let_go(waiting)
    await coordinator.wait("SubmitResult")
    status = await worker.until_idle()
    assert (status["state"], status["why"]["code"]) == ("paused", "worker.finished")
    assert coordinator.calls["ReleaseLease"] == 0


async def test_stop_gives_the_shard_back_and_ends_with_exit_code_0(
    coordinator: FakeCoordinator, workers: Workers, waiting: dict[str, Any]
) -> None:
    worker = await workers.here()
    coordinator.offer(coordinator.lease(waiting))
    await coordinator.until_computing()
    await worker.ask(Command.STOP)
    assert await worker.task == 0
    assert coordinator.last("ReleaseLease").why.code == "worker.stopping"
    assert not list(worker.folders.work.iterdir())
    assert not (worker.folders.state / "lease.json").exists()


async def test_a_worker_computes_on_while_the_coordinator_is_away_and_reports_its_lease_again(
    coordinator: FakeCoordinator, workers: Workers, waiting: dict[str, Any]
) -> None:
    worker = await workers.here()
    lease = coordinator.lease(waiting)
    coordinator.offer(lease)
    await coordinator.until_computing()
    await coordinator.stop()
    let_go(waiting)
    async with asyncio.timeout(10):
        while (status := await worker.ask(Command.STATUS))["step"] != "committing":
            pass
    assert (status["state"], status["why"]["code"]) == ("busy", "coordinator.unreachable")
    await coordinator.start()
    hello = await coordinator.wait("Hello", 2)
    assert [running.lease_id for running in hello.running] in ([lease.lease_id], [])
    await coordinator.wait("SubmitResult")
    assert coordinator.calls["ReleaseLease"] == 0


async def test_an_idle_worker_calls_nothing_but_heartbeats(coordinator: FakeCoordinator, workers: Workers) -> None:
    await workers.here()
    await coordinator.wait("GetBalance")
    before = coordinator.calls.copy()
    await coordinator.wait("Heartbeat", 3)
    assert coordinator.calls == before
    assert not coordinator.last("Heartbeat").running and coordinator.last("Heartbeat").accepting


async def test_hello_tells_what_the_machine_is(coordinator: FakeCoordinator, workers: Workers) -> None:
    await workers.here(minimum_sats=3)
    hello = coordinator.last("Hello")
    assert hello.minimum_msat == 3000 and hello.accepting
    capability = hello.capability
    assert (capability.device, capability.memory_bytes, capability.can_train) == ("cpu", 1 << 30, False)
    assert capability.execution_class.endswith(":torchnone:fp32:t1")
    assert {"sft", "pretrain", "count"} <= set(capability.recipes)


async def test_until_idle_ends_once_the_work_is_done(
    coordinator: FakeCoordinator, workers: Workers, run_log: Callable[[], list[str]], tmp_path: Path
) -> None:
    worker = await workers.here(idle_s=0.5)
    coordinator.offer(coordinator.lease({"do": "copy", "log": str(tmp_path / "runs.log")}))
    async with asyncio.timeout(20):
        assert await worker.task == 0
    assert len(run_log()) == coordinator.calls["SubmitResult"] == 1


async def test_until_idle_waits_for_a_pending_verdict(coordinator: FakeCoordinator, workers: Workers) -> None:
    worker = await workers.here(idle_s=0.3)
    coordinator.verdict = work_pb2.SubmitResultResponse(state="submitted")
    lease = coordinator.lease({"do": "copy"})
    coordinator.offer(lease)
    await coordinator.wait("SubmitResult")
    await coordinator.wait("Heartbeat", sum(name == "Heartbeat" for name, _ in coordinator.events) + 2)
    assert not worker.task.done()
    settlement = work_pb2.Settlement(lease_id=lease.lease_id, state="accepted", paid_msat=7000)
    coordinator.push(work_pb2.AttachResponse(settlement=settlement))
    async with asyncio.timeout(10):
        assert await worker.task == 0


async def test_a_verdict_that_came_while_the_worker_was_away_is_asked_for(
    coordinator: FakeCoordinator, workers: Workers
) -> None:
    worker = await workers.here()
    lease = coordinator.lease({"do": "copy"})
    coordinator.verdict = work_pb2.SubmitResultResponse(state="submitted")
    coordinator.offer(lease)
    first = await coordinator.wait("SubmitResult")
    assert (await worker.until_idle())["earned_msat"]["pending"] == 7000
    coordinator.verdict, coordinator.earned_msat = work_pb2.SubmitResultResponse(state="accepted", paid_msat=7000), 7000
    await coordinator.stop()
    await coordinator.start()
    assert await coordinator.wait("SubmitResult", 2) == first
    async with asyncio.timeout(5):
        while (status := await worker.ask(Command.STATUS))["earned_msat"]["paid"] == 0:
            pass
    assert (status["earned_msat"]["pending"], status["shards_done"]) == (0, 1)


async def test_a_full_disk_rests_the_worker_after_one_shard_and_ends_by_itself(
    coordinator: FakeCoordinator, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_mended = asyncio.Event()

    def takes_files(_: object) -> bool:
        return is_mended.is_set()

    monkeypatch.setattr(agent, "takes_files", takes_files)
    monkeypatch.setattr(agent, "DISK_CHECK_S", 0.01)
    worker = await workers.here()

    def full(_: Journal, __: LeaseRecord) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/srv/somebody/lease.new")

    with monkeypatch.context() as broken:
        broken.setattr(Journal, "save", full)
        coordinator.offer(coordinator.lease({"do": "copy"}))
        release = await coordinator.wait("ReleaseLease")
    assert release.why.code == "worker.disk_failed" and "somebody" not in str(release.why)
    status = await worker.ask(Command.STATUS)
    assert (status["state"], status["why"]["code"]) == ("paused", "worker.disk_failed")
    await coordinator.wait_until(lambda: not coordinator.last("Heartbeat").accepting)
    is_mended.set()
    await coordinator.wait_until(lambda: bool(coordinator.last("Heartbeat").accepting))
    coordinator.offer(coordinator.lease({"do": "copy"}))
    await coordinator.wait("SubmitResult")


async def test_a_result_waits_for_a_coordinator_whose_disk_is_full(
    coordinator: FakeCoordinator, workers: Workers
) -> None:
    await workers.here()
    coordinator.refuse["BeginUpload"] = LimitExceeded("artifact.no_space", "The disk that stores artifacts is full.")
    coordinator.offer(coordinator.lease({"do": "copy"}))
    await coordinator.wait("BeginUpload", 2)
    del coordinator.refuse["BeginUpload"]
    await coordinator.wait("SubmitResult")
    assert coordinator.calls["ReleaseLease"] == 0


async def test_a_journal_that_cannot_be_removed_does_not_keep_the_lease_in_hand(
    coordinator: FakeCoordinator, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Journal) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Journal, "forget", refuse)
    worker = await workers.here()
    coordinator.offer(coordinator.lease({"do": "copy"}))
    await coordinator.wait("SubmitResult")
    assert (await worker.until_idle())["shards_done"] == 1


async def test_a_worker_whose_key_attached_elsewhere_gives_way_and_comes_back_only_when_told(
    coordinator: FakeCoordinator, workers: Workers, waiting: dict[str, Any]
) -> None:
    worker = await workers.here()
    instance = coordinator.last("Hello").instance
    coordinator.offer(coordinator.lease(waiting))
    await coordinator.until_computing()
    coordinator.push(Conflict("attach.replaced", "Another worker with this key attached."))
    status = await worker.until_idle()
    assert (status["state"], status["why"]["code"]) == ("paused", "worker.replaced")
    assert "SHARDWORK_HOME" in status["why"]["next_step"]
    assert coordinator.calls["ReleaseLease"] == 0, "the shard is the other one's now"
    assert coordinator.calls["Attach"] == 1
    await worker.ask(Command.RESUME)
    hello = await coordinator.wait("Hello", 2)
    assert not hello.running and hello.instance == instance != ""
