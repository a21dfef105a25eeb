"""A job's log: every attempt at a shard in words, paged from its end, told to its owner and left out of its events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from shardwork.errors import InvalidInput, NotFound
from shardwork.identity.role import Role
from shardwork.v1 import jobs_pb2, work_pb2
from shardwork_coordinator.artifacts import ArtifactStore
from shardwork_coordinator.events import ResultSubmitted
from shardwork_coordinator.machine import attempts
from shardwork_coordinator.machine.attempts import lease_id
from shardwork_coordinator.records import Event, Purpose, Replica, ReplicaState, Shard, ShardState
from shardwork_coordinator.rpc.attach import WorkDesk, heartbeat
from shardwork_coordinator.rpc.auth import Caller, Tokens
from shardwork_coordinator.rpc.jobs import HIGHEST_SEQUENCE, JobsDesk, list_job_events, watch_job
from shardwork_coordinator.rpc.steering import pause_job, resume_job

from .simulation import OWNER, count_job, sft_job
from .unruly import REFUSED, Unruly

ME = Caller(OWNER, bytes(32), Role.REQUESTER)
OTHER = Caller("other00000000000", bytes(32), Role.REQUESTER)
JOB = "job000000001"


def desk_of(simulation: Unruly) -> JobsDesk:
    return JobsDesk(engine=simulation.engine, rates=simulation.rates)


async def log(simulation: Unruly, *, before: int = HIGHEST_SEQUENCE, limit: int = 0) -> Sequence[jobs_pb2.JobEvent]:
    request = jobs_pb2.ListJobEventsRequest(job_id=JOB, details=True, before_sequence=before, limit=limit)
    return (await list_job_events(request, ME, desk_of(simulation))).events


async def events(simulation: Unruly) -> Sequence[jobs_pb2.JobEvent]:
    return (await list_job_events(jobs_pb2.ListJobEventsRequest(job_id=JOB), ME, desk_of(simulation))).events


async def told(simulation: Unruly, shard: str) -> list[jobs_pb2.JobEvent]:
    return [one for one in await log(simulation) if one.subject == shard]


async def granted(simulation: Unruly, *, spec_parts: int = 1) -> Replica:
    """The first lease of a job of one shard."""
    await simulation.submit(count_job(parts=spec_parts))
    (held, *_) = await simulation.grant_all()
    return held


async def test_each_attempt_is_told_from_its_grant_to_its_verdict_with_code_and_sentence() -> None:
    simulation = Unruly(workers=2)
    first = await granted(simulation)
    await simulation.finish(first, refused=REFUSED)
    (second,) = await simulation.grant_all()
    await simulation.lose(second)
    (third,) = await simulation.grant_all()
    await simulation.finish(third)
    lines = await told(simulation, first.shard_id)
    assert [one.kind.removeprefix("shard.") for one in lines] == [
        *("leased", "uploaded", "rejected", "retried"),
        *("leased", "expired", "retried"),
        *("leased", "uploaded", "accepted", "done"),
    ]
    refused, lost, accepted = lines[2], lines[5], lines[9]
    assert refused.evidence["code"] == REFUSED.code and REFUSED.sentence in refused.sentence
    assert lost.evidence["code"] == "lease.silent" and "it fell silent." in lost.sentence
    assert (lines[3].evidence["attempts_left"], lines[6].evidence["attempts_left"]) == ("3", "2")
    for line, replica in ((refused, first), (lost, second), (accepted, third)):
        assert line.evidence["worker"] == replica.worker_id and replica.worker_id in line.sentence
        assert line.evidence["lease"] == lease_id(replica)
    assert int(accepted.evidence["paid_msat"]) > 0 and "paid" in accepted.sentence
    assert lines[1].evidence["bytes_up"] == "10" and "0.1 s" in lines[1].sentence


async def test_details_are_left_out_of_the_events_and_of_a_watch_that_does_not_ask() -> None:
    simulation = Unruly()
    await simulation.submit(sft_job(rounds=1))
    await simulation.run_to_end()
    everything, plain = await log(simulation), await events(simulation)
    details = {"shard.uploaded", "shard.accepted"}
    assert {one.kind for one in everything} - {one.kind for one in plain} == details
    assert [one for one in everything if one.kind not in details] == list(plain)
    for asked, expected in ((False, plain), (True, everything)):
        request = jobs_pb2.WatchJobRequest(job_id=JOB, details=asked)
        seen = [event async for each in watch_job(request, ME, desk_of(simulation)) for event in each.events]
        assert seen == list(expected)


async def test_the_log_is_paged_from_its_end_without_a_gap() -> None:
    simulation = Unruly()
    await simulation.submit(count_job(parts=4))
    await simulation.run_to_end()
    whole, found, before = list(await log(simulation)), list[jobs_pb2.JobEvent](), HIGHEST_SEQUENCE
    while page := await log(simulation, before=before, limit=3):
        assert len(page) <= 3
        found, before = [*page, *found], page[0].sequence
    assert found == whole
    assert list(await log(simulation, limit=2)) == whole[-2:]


async def test_a_page_has_one_end_and_an_owner() -> None:
    simulation = Unruly()
    await simulation.submit(count_job(parts=1))
    both = jobs_pb2.ListJobEventsRequest(job_id=JOB, after_sequence=1, before_sequence=9)
    with pytest.raises(InvalidInput) as refused:
        await list_job_events(both, ME, desk_of(simulation))
    assert refused.value.code == "job.two_ends"
    theirs = jobs_pb2.ListJobEventsRequest(job_id=JOB, details=True, before_sequence=2**64 - 1)
    with pytest.raises(NotFound):
        await list_job_events(theirs, OTHER, desk_of(simulation))
    assert (await list_job_events(theirs, ME, desk_of(simulation))).events


async def test_steering_and_rounds_stand_in_the_log_with_their_codes() -> None:
    simulation = Unruly()
    simulation.losses = {1: 9.0}
    await simulation.submit(sft_job(rounds=2))
    await pause_job(jobs_pb2.PauseJobRequest(job_id=JOB), ME, simulation.engine)
    await resume_job(jobs_pb2.ResumeJobRequest(job_id=JOB), ME, simulation.engine)
    await simulation.run_to_end()
    lines = {one.kind: one for one in await log(simulation)}
    assert lines["job.paused"].evidence["code"] == "job.paused_by_requester"
    assert "code" in lines["round.rolled_back"].evidence
    assert {"round.merged", "job.running", "job.succeeded"} <= set(lines)


async def test_a_cancelled_job_s_leases_are_told_to_be_taken_back() -> None:
    simulation = Unruly()
    held = await granted(simulation)
    await simulation.cancel()
    (line,) = [one for one in await told(simulation, held.shard_id) if one.kind == "shard.expired"]
    assert (line.evidence["code"], line.evidence["worker"]) == ("job.cancelled", held.worker_id)
    assert [one.kind for one in await events(simulation)].count("shard.expired") == 0


# ---- progress -------------------------------------------------------------------------------------------------------


async def beat(simulation: Unruly, replica: Replica, progress: float, loss: float | None = None) -> None:
    link = simulation.links.get(replica.worker_id)
    assert link is not None
    status = work_pb2.LeaseStatus(lease_id=lease_id(replica), progress=progress, step="computing")
    if loss is not None:
        status.loss = loss
    caller = Caller(replica.worker_id, bytes(32), Role.WORKER)
    desk = WorkDesk(
        engine=simulation.engine,
        artifacts=ArtifactStore.__new__(ArtifactStore),
        tokens=Tokens.__new__(Tokens),
        settings=simulation.settings,
    )
    await heartbeat(work_pb2.Heartbeat(running=[status], accepting=True), link, caller, desk)


async def test_progress_and_loss_are_told_a_few_times_a_lease_however_often_a_worker_reports() -> None:
    simulation = Unruly(workers=1)
    held = await granted(simulation)
    for _ in range(3):
        for percent in range(101):
            await beat(simulation, held, percent / 100, loss=4.0 - percent / 100)
    lines = [one for one in await told(simulation, held.shard_id) if one.kind == "shard.progress"]
    assert [one.evidence["progress"] for one in lines] == ["0.250", "0.500", "0.750"]
    assert [one.evidence["loss"] for one in lines] == ["3.75", "3.5", "3.25"]
    assert "50 % done" in lines[1].sentence and "loss 3.5" in lines[1].sentence
    await simulation.lose(held)
    (again,) = await simulation.grant_all()
    await beat(simulation, again, 0.6)
    lines = [one for one in await told(simulation, held.shard_id) if one.kind == "shard.progress"]
    assert [one.evidence["lease"] for one in lines[3:]] == [lease_id(again)], "the next lease is told of afresh"


async def test_a_lost_attempt_says_how_far_it_had_come() -> None:
    simulation = Unruly(workers=1)
    held = await granted(simulation)
    await beat(simulation, held, 0.62, loss=2.5)
    await simulation.lose(held)
    (line,) = [one for one in await told(simulation, held.shard_id) if one.kind == "shard.expired"]
    assert (line.evidence["progress"], line.evidence["loss"]) == ("0.620", "2.5")


# ---- words ----------------------------------------------------------------------------------------------------------


SHARD = Shard(
    id="j/tune/r1/learn/s3",
    job_id="j",
    stage="tune",
    round=1,
    phase="learn",
    position=3,
    recipe="sft",
    state=ShardState.RUNNING,
    order_json="{}",
    inputs_json="{}",
    seed=b"",
    work_units=7,
    price_msat=1500,
    fee_msat=30,
    attempts_left=4,
    created_ms=0,
)
REPLICA = Replica(
    shard_id=SHARD.id,
    number=0,
    job_id="j",
    stage="tune",
    round=1,
    phase="learn",
    purpose=Purpose.PRIMARY,
    state=ReplicaState.LEASED,
    epoch=1,
    worker_id="1a2b3c4d5e6f7081",
)


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"micro_batch_before": 8.0, "micro_batch_size": 4.0}, "micro-batch 8 -> 4"),
        ({"micro_batch_size": 4.0}, "micro-batch of 4"),
    ],
)
def test_a_halved_memory_says_from_what_to_what(metrics: dict[str, float], words: str) -> None:
    note = attempts.ran_out_of_memory(SHARD, REPLICA, {**metrics, "memory_halvings": 1.0})
    assert f"ran out of memory on worker {REPLICA.worker_id}: {words};" in note.sentence
    assert note.evidence["after"] == "4" and not note.detail


def test_numbers_of_a_hostile_worker_make_no_long_line() -> None:
    metrics = {"train_loss": 1e308, "memory_halvings": 1e308, "micro_batch_size": 1e308, "micro_batch_before": 1e308}
    event = ResultSubmitted(
        shard_id=SHARD.id, number=0, outputs={}, metrics=metrics, compute_ms=1, bytes_up=2**50, bytes_down=2**50
    )
    for note in (
        attempts.handed_in(SHARD, REPLICA, event),
        attempts.ran_out_of_memory(SHARD, REPLICA, metrics),
        *(one for _, one in [attempts.progressed(SHARD, replace(REPLICA, progress=0.5, loss=-1e308))] if one),
    ):
        assert len(note.sentence) < 200
        assert all(len(value) < 40 for value in note.evidence.values())


def test_donated_work_is_called_that() -> None:
    assert "given for nothing" in attempts.accepted(SHARD, replace(REPLICA, donated=True), 0).sentence
    assert "paid 1.5 sat" in attempts.accepted(SHARD, REPLICA, 1500).sentence


async def test_a_row_s_order_and_inputs_never_stand_in_a_line() -> None:
    """What a shard reads (digests, parameters) and its offer stay where they are."""
    simulation = Unruly()
    await simulation.submit(sft_job(rounds=1))
    await simulation.run_to_end()
    shards = await simulation.store.read(lambda tx: tx.find(Shard, job_id=JOB))
    rows = await simulation.store.read(lambda tx: tx.find(Event, job_id=JOB))
    secrets = {shard.seed.hex() for shard in shards} | {shard.inputs_json for shard in shards}
    text = "\n".join(row.sentence + row.evidence_json for row in rows)
    assert len(rows) > 10 and not [one for one in secrets if one in text]
