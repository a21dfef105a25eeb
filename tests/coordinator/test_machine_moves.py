"""The table of moves is what happens, no more and no less; and whatever happens, every msat has its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from typing import Any

import pytest

from shardwork.errors import Conflict
from shardwork_coordinator.machine import endings, gates, judging, leases, moves, opening, phases, planning, verdicts
from shardwork_coordinator.machine.moves import LEGAL, move
from shardwork_coordinator.machine.states import FINAL_JOB
from shardwork_coordinator.queueing.history import FIRST_REST_S
from shardwork_coordinator.records import (
    Job,
    JobState,
    Lease,
    Purpose,
    Replica,
    ReplicaState,
    Round,
    RoundState,
    Shard,
    ShardState,
    Stage,
    StageState,
)

from .simulation import answers_job, count_job, policy_job, sft_job
from .test_gates import gated
from .test_loops import looped
from .unruly import REFUSED, Unruly

Move = tuple[str, str, str]

JOB = Job(
    id="j",
    owner="o",
    submission_id="s",
    name="n",
    state=JobState.DRAFT,
    spec_json="",
    facts_json="",
    inputs_json="",
    quote_json="",
    rates_json="",
    budget_msat=1,
    created_ms=0,
)
STAGE = Stage(job_id="j", name="t", position=0, recipe="sft", state=StageState.WAITING, planned_rounds=1, spec_json="")
ROUND = Round(job_id="j", stage="t", number=0, kind="setup", state=RoundState.OPEN, phase="", started_ms=0)
SHARD = Shard(
    id="j/t/r0/init/s0",
    job_id="j",
    stage="t",
    round=0,
    phase="init",
    position=0,
    recipe="sft",
    state=ShardState.READY,
    order_json="",
    inputs_json="",
    seed=b"",
    work_units=1,
    price_msat=1,
    fee_msat=1,
    attempts_left=1,
    created_ms=0,
)
REPLICA = Replica(
    shard_id=SHARD.id,
    number=0,
    job_id="j",
    stage="t",
    round=0,
    phase="init",
    purpose=Purpose.PRIMARY,
    state=ReplicaState.READY,
)
RECORDS: dict[type[StrEnum], Any] = {
    JobState: JOB,
    StageState: STAGE,
    RoundState: ROUND,
    ShardState: SHARD,
    ReplicaState: REPLICA,
}
ALL_MOVES = [(kind, before, after) for kind in LEGAL for before in kind for after in kind]


def is_legal(kind: type[StrEnum], before: StrEnum, after: StrEnum) -> bool:
    return after in LEGAL[kind].get(before, frozenset())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Move]]:
    """Every move that the machine makes while the test runs."""
    found: set[Move] = set()

    def recording(record: Any, state: StrEnum, **changes: Any) -> Any:
        moved = move(record, state, **changes)
        found.add((type(state).__name__, str(record.state), str(state)))
        return moved

    for module in (endings, gates, judging, leases, opening, phases, planning, verdicts):
        monkeypatch.setattr(module, "move", recording)
    yield found


@pytest.mark.parametrize(("kind", "before", "after"), ALL_MOVES)
def test_a_move_is_made_when_the_table_has_it_and_refused_with_the_story_otherwise(
    kind: type[StrEnum], before: StrEnum, after: StrEnum
) -> None:
    record = replace(RECORDS[kind], state=before)
    if is_legal(kind, before, after):
        assert move(record, after).state is after
        return
    with pytest.raises(Conflict) as refusal:
        move(record, after)
    assert refusal.value.code == "machine.illegal_move"
    assert refusal.value.why.evidence["subject"] == moves.name(record)


async def test_every_move_of_the_table_happens_in_the_simulation(seen: set[Move]) -> None:
    for seed in range(60):
        simulation = Unruly(workers=4, seed=seed)
        simulation.losses = {1: 9.0} if seed % 3 == 0 else {}
        await simulation.submit(sft_job(rounds=2, shards=3) if seed % 4 else count_job(parts=3))
        await simulation.run_unruly()
    policy = Unruly()
    await policy.submit(policy_job(rounds=1))
    await policy.run_to_end()
    useless = Unruly()
    await useless.submit(sft_job(rounds=1))
    await useless.work_until("merge")
    await useless.fail_executor("aggregate.too_few")
    skipping = Unruly()
    await skipping.submit(gated(0.9))
    await skipping.run_to_end()
    ending = Unruly()
    ending.losses_of = {("tune-2", 1): 9.0}
    await ending.submit(looped(None))
    await ending.run_to_end(steps=2_000)
    await finish_while_paused(Unruly())
    await cancel_while_paused(Unruly())
    table = {
        (kind.__name__, str(before), str(after)) for kind, before, after in ALL_MOVES if is_legal(kind, before, after)
    }
    # made by people's stages alone (tests/coordinator/people)
    unseen = sorted(table - seen - {("ReplicaState", "submitted", "leased")})
    assert not unseen, "\n" + "\n".join(map(str, unseen))


@pytest.mark.parametrize("seed", range(60))
async def test_whatever_happens_to_audited_work_the_books_balance(seed: int) -> None:
    simulation = Unruly(workers=1 + seed % 5, seed=3000 + seed)
    await simulation.submit(policy_job(rounds=2, held_out=seed % 2 == 0) if seed % 3 else answers_job(3))
    state = await simulation.run_unruly()
    assert state in FINAL_JOB
    await simulation.check_books()
    await simulation.check_ending()


@pytest.mark.parametrize("seed", range(60))
async def test_whatever_happens_the_books_balance_and_an_ended_job_keeps_nothing(seed: int) -> None:
    simulation = Unruly(workers=2 + seed % 4, seed=1000 + seed)
    if seed % 3 == 0:
        simulation.attach("reference0000000", reference=True)
    simulation.losses = {2: 9.0} if seed % 5 == 0 else {}
    await simulation.submit(sft_job(rounds=2, shards=1 + seed % 5, held_out=seed % 3 != 0) if seed % 6 else count_job())
    state = await simulation.run_unruly()
    assert state in FINAL_JOB
    await simulation.check_books()
    await simulation.check_ending()


# ---- found by attacking ---------------------------------------------------------------------------------------------


async def finish_while_paused(simulation: Unruly) -> None:
    await simulation.submit(count_job(parts=1))
    (last,) = await simulation.grant_all()
    await simulation.pause()
    await simulation.finish(last)
    await simulation.run_effects()


async def cancel_while_paused(simulation: Unruly) -> None:
    await simulation.submit(count_job(parts=1))
    await simulation.grant_all()
    await simulation.pause()
    await simulation.cancel()


async def test_a_job_paused_during_its_last_shard_succeeds_when_the_shard_is_done() -> None:
    simulation = Unruly()
    await finish_while_paused(simulation)
    assert (await simulation.job()).state is JobState.SUCCEEDED
    await simulation.check_ending()


async def test_a_quorum_may_shrink_after_the_second_key_was_lost() -> None:
    simulation = Unruly(workers=2)
    await simulation.submit(sft_job(rounds=1))
    first, second = await simulation.grant_all()
    await simulation.finish(first)
    await simulation.lose(second)
    assert await simulation.shrink() == 1
    job = await simulation.run_to_end()
    assert job.state is JobState.SUCCEEDED and job.self_evaluated
    await simulation.check_ending()


async def test_three_keys_that_all_disagree_pause_the_job_and_a_resumed_job_asks_afresh() -> None:
    simulation = Unruly(workers=5)
    await simulation.submit(sft_job(rounds=1))
    for _ in range(2):
        for replica in await simulation.grant_all():
            await simulation.finish(replica, honest=False)
    job = await simulation.job()
    assert job.state is JobState.PAUSED and "shard.no_agreement" in job.why_json
    await simulation.resume()
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    await simulation.check_books()
    await simulation.check_ending()


async def exhaust_while_a_result_waits(simulation: Unruly) -> None:
    """One key handed in; the other place fails on every attempt."""
    await simulation.submit(sft_job(rounds=1))
    first, _ = await simulation.grant_all()
    await simulation.finish(first)
    for _ in range(4):
        (other,) = await simulation.grant_all()
        await simulation.lose(other)


async def test_a_shard_whose_second_place_fails_on_every_attempt_pauses_the_job_and_can_be_resumed() -> None:
    simulation = Unruly(workers=2)
    await exhaust_while_a_result_waits(simulation)
    job = await simulation.job()
    assert job.state is JobState.PAUSED and "shard.exhausted" in job.why_json
    await simulation.resume()
    # the worker that fell silent four times in a row rests before it is given anything
    simulation.clock.advance(FIRST_REST_S)
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    await simulation.check_ending()


async def test_a_shard_that_both_keys_failed_is_asked_of_two_keys_again() -> None:
    simulation = Unruly(workers=2)
    await simulation.submit(sft_job(rounds=1))
    while (await simulation.job()).state is JobState.RUNNING:
        for replica in (await simulation.grant_all())[:1]:
            await simulation.finish(replica, refused=REFUSED)
    await simulation.resume()
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    await simulation.check_ending()


async def test_a_copy_that_outlives_its_failed_job_is_still_paid_or_refunded() -> None:
    for paid in (True, False):
        simulation = Unruly()
        await simulation.submit(sft_job(rounds=1, shards=1))
        for _ in range(2):
            for replica in await simulation.grant_all():
                if replica.phase == "init":
                    await simulation.finish(replica)
        (slow,) = await simulation.grant_all()
        assert await simulation.copy(slow)
        copy = next(one for one in await simulation.grant_all() if one.number != slow.number)
        await simulation.finish(slow)
        assert await simulation.fail_executor()
        assert (await simulation.job()).state is JobState.FAILED
        await (simulation.finish(copy) if paid else simulation.lose(copy))
        await simulation.check_books()
        await simulation.check_ending()
        accepted = await simulation.store.read(lambda tx: tx.find(Lease, phase="learn", state=ReplicaState.ACCEPTED))
        assert len(accepted) == 1 + paid
