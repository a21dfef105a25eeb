"""kill -9 of the coordinator at the failpoints that need a fault of their own: lost, slow, paused and lone workers,
steering, a time-out, a dead executor. Payouts and stored content have files of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
from collections.abc import Generator
from pathlib import Path

import pytest
from processes import children

from shardwork.errors import Unreachable
from shardwork.identity.authority import JoinLine
from shardwork.identity.keys import load_or_create
from shardwork.identity.role import Role
from shardwork.session import Session
from shardwork.v1 import operator_pb2

from ..e2e import models
from ..e2e.jobfile import write_sft
from . import count_jobs
from .aims import (
    AT_CONTROL,
    AT_DEAD_EXECUTOR,
    AT_HEARTBEAT,
    AT_LOSS,
    AT_LOST_REFERENCE,
    AT_ONE_KEY,
    AT_REFERENCE,
    AT_RELEASE,
    AT_STRAGGLER,
    AT_TIME_OUT,
    AT_TOP_UP,
    AT_WITHDRAWAL,
)
from .drill import Drill, drill

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]


def test_a_kill_at_a_heartbeat_takes_no_lease_away(tmp_path: Path) -> None:
    with drill(tmp_path, "alice") as stage:
        stage.freeze("alice")
        job = stage.submit()
        stage.wait_computing("alice")
        stage.arm(AT_HEARTBEAT)
        stage.wait_killed()
        stage.thaw("alice")
        stage.check_done(job)
        assert [state for _, state, _ in stage.leases(job)] == ["accepted"] * 3


def test_a_kill_as_workers_are_lost_gives_their_shards_to_others(tmp_path: Path) -> None:
    with drill(tmp_path, "alice", "bob", settings={"SHARDWORK_LEASE_TTL_S": "5"}) as stage:
        for name in ("alice", "bob"):
            stage.freeze(name)
        job = stage.submit()
        stage.wait_computing("alice", "bob")
        left, expired = AT_LOSS
        stage.arm([left])
        # one stream breaks before the first kill and one before the second
        stage.wait_attached("alice")
        stage.world.processes.kill("alice")
        stage.world.until(lambda: len(stage.coordinator.killed_at) == 1, "the kill as alice left")
        stage.wait_attached("bob")
        stage.world.processes.kill("bob")
        stage.wait_killed()
        stage.arm([expired])
        stage.wait_killed()
        stage.join_workers("carol")
        stage.check_done(job)
        assert sorted(state for _, state, _ in stage.leases(job)) == ["accepted"] * 3 + ["expired"] * 2


def test_a_kill_as_a_paused_worker_gives_its_shard_back_costs_no_attempt(tmp_path: Path) -> None:
    with drill(tmp_path, "alice") as stage:
        stage.freeze("alice")
        job = stage.submit()
        stage.wait_computing("alice")
        attempts = "select attempts_left from shard where job_id = ? order by id"
        before = stage.world.rows(attempts, job)
        stage.arm(AT_RELEASE)
        stage.world.command_worker("alice", "pause")
        stage.wait_killed()
        assert stage.world.rows(attempts, job) == before
        assert stage.world.command_worker("alice", "resume").exit_code == 0
        stage.check_done(job)
        assert [state for _, state, _ in stage.leases(job)] == ["expired"] + ["accepted"] * 3


def test_a_kill_as_a_straggler_is_copied_makes_one_copy(tmp_path: Path) -> None:
    with drill(tmp_path, "alice", "bob", settings={"SHARDWORK_BACKUP_MIN_S": "1"}) as stage:
        stage.freeze("alice")
        job = stage.submit()
        stage.wait_computing("alice")
        stage.arm(AT_STRAGGLER)
        stage.wait_killed()
        stage.world.until(lambda: stage.world.job_state(job) == "succeeded", "the job to end without alice")
        assert stage.world.rows("select count(*) from replica where purpose = 'backup'") == [(1,)]
        stage.thaw("alice")
        # what she was asked for and made is paid as well
        stage.check_done(job, copies=1)


def test_a_kill_as_a_job_is_left_with_one_key_marks_it_self_evaluated(tmp_path: Path) -> None:
    with drill(tmp_path, settings={"SHARDWORK_AGREEMENT_GRACE_S": "1"}) as stage:
        models.write_gpt2(tmp_path / "models" / "gpt2")
        models.write_chat(tmp_path / "chat.jsonl")
        file = write_sft(tmp_path, shards=1, steps=2)
        stage.join_workers("alice")
        stage.arm(AT_ONE_KEY)
        job = stage.submit(file)
        stage.wait_killed()
        assert stage.check_done(job)["self_evaluated"] is True


def test_a_kill_as_a_reference_worker_stays_away_asks_two_others(tmp_path: Path) -> None:
    with drill(tmp_path, "alice", settings={"SHARDWORK_AGREEMENT_GRACE_S": "2", "SHARDWORK_LEASE_TTL_S": "5"}) as stage:
        models.write_gpt2(tmp_path / "models" / "gpt2")
        models.write_chat(tmp_path / "chat.jsonl")
        asyncio.run(mark(stage, str(stage.world.worker("alice")["worker_id"])))
        stage.freeze("alice")
        job = stage.submit(write_sft(tmp_path, shards=1, steps=2))
        stage.wait_computing("alice")
        stage.join_workers("bob", "carol")
        stage.arm(AT_LOST_REFERENCE)
        stage.wait_attached("alice")
        stage.world.processes.kill("alice")
        stage.wait_killed()
        # set up, evaluated and published by two keys each
        assert stage.check_done(job, copies=3)["self_evaluated"] is False


def test_a_kill_as_an_executor_death_is_counted_runs_the_phase_again(tmp_path: Path) -> None:
    with drill(tmp_path, "alice") as stage:
        stage.arm(AT_DEAD_EXECUTOR)
        with executors_killed(stage):
            job = stage.submit()
            stage.wait_killed()
        stage.check_done(job)
        assert stage.world.rows("select attempts, state from outbox where attempts > 0") == [(1, "done")]


@contextlib.contextmanager
def executors_killed(stage: Drill) -> Generator[None, None, None]:
    """kill -9 of each executor process as it starts, with its first task waiting for it."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            if stage.coordinator.armed is None:
                continue
            for pid in children(stage.world.processes.pid("coordinator")):
                with contextlib.suppress(OSError):
                    if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(pid, signal.SIGKILL)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def test_a_kill_at_pause_resume_and_cancel_loses_no_command_and_no_msat(tmp_path: Path) -> None:
    with drill(tmp_path, "alice") as stage:
        stage.freeze("alice")
        job = stage.submit()
        stage.wait_computing("alice")
        for command, state in (("pause", "paused"), ("resume", "running")):
            steer(stage, command, job, state)
        stage.thaw("alice")
        stage.check_done(job)
        before = stage.world.balance()
        stage.freeze("alice")
        doomed = stage.submit()
        stage.wait_computing("alice")
        steer(stage, "cancel", doomed, "cancelled")
        shown = stage.world.ask("job", "show", doomed)
        assert (shown["spent_msat"], shown["reserved_msat"], shown["refunded_msat"]) == (0, 0, shown["budget_msat"])
        assert stage.world.balance() == before
        stage.thaw("alice")


def test_a_kill_at_a_top_up_adds_its_sats_once(tmp_path: Path) -> None:
    with drill(tmp_path, "alice") as stage:
        stage.freeze("alice")
        job = stage.submit()
        budget = stage.world.ask("job", "show", job)["budget_msat"]
        stage.arm(AT_TOP_UP)
        assert stage.coordinator.persist("job", "topup", job, "5", "--yes").returncode == 0
        stage.wait_killed()
        shown = stage.world.ask("job", "show", job)
        assert (shown["budget_msat"], shown["topped_up_msat"]) == (budget + 5_000, 5_000)
        stage.thaw("alice")
        stage.check_done(job)


def test_a_kill_as_a_job_runs_out_of_time_ends_it_once_with_its_refund(tmp_path: Path) -> None:
    with drill(tmp_path, "alice") as stage:
        count_jobs.write(tmp_path, parts=3, timeout_hours=0.002)
        stage.arm(AT_TIME_OUT)
        stage.freeze("alice")
        doomed = stage.submit()
        stage.wait_killed()
        shown = stage.world.ask("job", "show", doomed)
        assert (shown["state"], shown["why"]["code"]) == ("failed", "job.timed_out")
        assert (shown["spent_msat"], shown["reserved_msat"], shown["refunded_msat"]) == (0, 0, shown["budget_msat"])
        assert [one["kind"] for one in stage.world.events(doomed)].count("job.failed") == 1
        stage.thaw("alice")
        count_jobs.write(tmp_path, parts=3)
        stage.check_done(stage.submit())


def steer(stage: Drill, command: str, job: str, state: str) -> None:
    """The command comes through, however often its answer was lost."""
    stage.arm(AT_CONTROL)
    done = stage.coordinator.persist("job", command, job)
    assert done.returncode == 0, done.stdout
    stage.wait_killed()
    assert stage.world.job_state(job) == state


def test_a_kill_at_a_withdrawal_takes_sats_out_once_and_one_called_off_gives_them_back(tmp_path: Path) -> None:
    made, called_off = AT_WITHDRAWAL
    with drill(tmp_path) as stage:
        stage.arm((made,))
        assert stage.coordinator.persist("wallet", "withdraw", "100", "me@simulated", "--yes").returncode == 0
        stage.wait_killed()
        stage.world.until(lambda: withdrawals(stage) == ["settled"], "the withdrawal to be paid")
        left = stage.world.balance()["available_msat"]
        # one sat was the fee
        assert left == (1_000 - 100 - 1) * 1000
        told = stage.coordinator.persist("wallet", "withdraw", "100", "deaf@simulated", "--yes", "--no-wait", "--json")
        stage.arm((called_off,))
        assert stage.coordinator.persist("wallet", "cancel", json.loads(told.stdout)["id"]).returncode == 0
        stage.wait_killed()
        assert withdrawals(stage) == ["settled", "failed"]
        assert stage.world.balance()["available_msat"] == left


def withdrawals(stage: Drill) -> list[str]:
    rows = stage.world.rows("select state from payout where id like 'withdrawal:%' order by created_ms")
    return [str(state) for (state,) in rows]


def test_a_kill_at_a_reference_mark_keeps_the_mark(tmp_path: Path) -> None:
    with drill(tmp_path, "alice") as stage:
        worker = str(stage.world.worker("alice")["worker_id"])
        stage.arm(AT_REFERENCE)
        marked = asyncio.run(mark(stage, worker))
        stage.wait_killed()
        assert marked == {worker: True}
        assert stage.world.rows("select reference from party where id = ?", worker) == [(1,)]
        stage.check_done(stage.submit())


async def mark(stage: Drill, worker: str) -> dict[str, bool]:
    """Marks the worker as the operator, again until an answer comes; who is marked then."""
    key = load_or_create(stage.world.folder / "coordinator" / "keys" / "operator.key")
    request = operator_pb2.SetWorkerReferenceRequest(worker_id=worker, reference=True)
    for attempt in range(20):
        try:
            async with await Session.open(JoinLine.parse(stage.world.processes.join), key, Role.OPERATOR) as session:
                await session.call(session.operator.SetWorkerReference, request)
                listed = await session.call(session.operator.ListWorkers, operator_pb2.ListWorkersRequest())
                return {view.id: view.reference for view in listed.workers}
        except Unreachable:
            await asyncio.sleep(0.1 * attempt)
    raise AssertionError("the operator never reached the coordinator")
