"""What a stage of people waits for, in words and in numbers; and that no worker is ever given a part of it."""

from __future__ import annotations

import json

import pytest

from shardwork.identity.keys import SigningKey
from shardwork.v1 import work_pb2
from shardwork_coordinator.granting import Granting, ready_replicas
from shardwork_coordinator.links import Link
from shardwork_coordinator.machine import moves
from shardwork_coordinator.money.ledger import available
from shardwork_coordinator.money.movements import escrow_account
from shardwork_coordinator.people.progress import people_progress
from shardwork_coordinator.records import Purpose, Replica, ReplicaState, Shard, ShardState, Stage, Vote
from shardwork_coordinator.settings import Settings
from shardwork_coordinator.sweeper import Sweeper
from shardwork_coordinator.views import job_why

from .stand import JOB, Stand, always_first, looks, person, rows


async def code(stand: Stand) -> str:
    job = await stand.job()
    stages = await stand.all(Stage)
    why = await stand.store.read(lambda tx: job_why(tx, job, stages, []))
    assert why.sentence and why.next_step
    return why.code


async def test_a_job_says_what_its_people_wait_for(stand: Stand) -> None:
    await stand.submit(rows(2, 30), overlap=2)
    assert await code(stand) == "people.nobody"
    anna, bert = person(stand, 1), person(stand, 2)
    for one in (anna, bert):
        await one.join()
    assert await code(stand) == "people.nobody"
    given = (await anna.next())["task"]
    assert await code(stand) == "people.answering"
    await anna.ok("skip", lease=given["lease"])
    assert await code(stand) == "people.too_few"
    await anna.work()
    await stand.later()
    assert await code(stand) == "people.too_few"
    given = (await bert.next())["task"]
    await bert.ok("skip", lease=given["lease"])
    assert await code(stand) == "people.away"
    await bert.work()
    await stand.later()
    assert await code(stand) == "job.executor"


async def test_a_stage_in_numbers(stand: Stand) -> None:
    await stand.submit(rows(12, 30), overlap=2)
    stage = (await stand.all(Stage))[0]
    for number, answers in ((3, always_first), (1, looks), (2, looks)):
        one = person(stand, number, answers)
        await one.join()
        await one.work(30)
    index = await stand.desk.items.index(json.loads(stage.artifacts_json)["items"])
    seen = await stand.store.read(lambda tx: people_progress(tx, stage, stand.clock.now_ms(), index.longer))
    assert (seen["items"], seen["overlap"], seen["hidden"]) == (12, 2, 30)
    assert seen["annotators"] == {"probation": 0, "cleared": 2, "stopped": 1}
    assert seen["agreement_alpha"] == 1.0
    low, high = seen["bias"]["shown_first_interval"]
    assert 0.2 < low < seen["bias"]["shown_first"] < high < 0.8
    # the better answers are the longer ones, and all who count chose them
    assert seen["bias"]["longer"] == seen["bias"]["longer_interval"][1] == 1.0
    paid = sum([(await person(stand, n).get("tasks")).json()["me"]["paid_msat"] for n in (1, 2)])
    assert seen["paid_msat"] == paid
    assert [one["state"] for one in seen["people"]] == ["stopped", "cleared", "cleared"]
    assert seen["people"][0]["stopped_by"] in ("pattern", "wrong")
    assert seen["people"][0]["why"]["code"] == "people.not_looking"
    assert seen["people"][0]["paid_msat"] == 0 < seen["people"][1]["paid_msat"]
    assert sum(one["paid_msat"] for one in seen["people"]) == paid
    assert seen["votes"]["paid"] * seen["pay_msat"] == paid


async def test_the_time_left_is_told_by_the_pace_and_only_while_there_is_one(stand: Stand) -> None:
    await stand.submit(rows(40, 30), overlap=2)
    stage, anna = (await stand.all(Stage))[0], person(stand, 1)

    async def told() -> tuple[int, int | None]:
        seen = await stand.store.read(lambda tx: people_progress(tx, stage, stand.clock.now_ms()))
        return seen["votes_left"], seen["seconds_left"]

    assert await told() == (80, None)
    await anna.join()
    await anna.work(6)
    assert (await told())[1] is None
    await anna.work(24)
    left, seconds = await told()
    asked = [one for one in await stand.all(Vote, phase="ask") if one.answer_json]
    assert left == 80 - len(asked) and seconds == left * 600 // len(asked)
    stand.clock.advance(601)
    assert await told() == (left, None)


async def test_no_worker_is_given_what_people_are_asked(stand: Stand) -> None:
    await stand.submit(rows(3, 6), overlap=2)
    anna = person(stand, 1)
    await anna.join()
    await anna.next()
    capability = work_pb2.Capability(recipes=["people"], can_train=True, memory_bytes=1 << 40)
    stand.engine.links.attach(
        Link(
            worker_id="worker0000000000",
            name="w",
            capability=capability,
            minimum_msat=0,
            accepting=True,
            reference=False,
            since_ms=stand.clock.now_ms(),
            last_seen_ms=stand.clock.now_ms(),
        )
    )
    shard = (await stand.all(Shard, phase="ask"))[0]
    # a place as a worker's phase has it: there is none, and if there were it would be nobody's
    place = Replica(
        shard_id=shard.id,
        number=99,
        job_id=JOB,
        stage=shard.stage,
        round=shard.round,
        phase=shard.phase,
        purpose=Purpose.PRIMARY,
        state=ReplicaState.READY,
    )
    assert await stand.all(Replica, state=ReplicaState.READY) == []
    await stand.put(place)
    assert await Granting(stand.engine, SigningKey(bytes(32)), Settings(data_dir=stand.folder)).grant() == 0
    job = await stand.job()
    assert await stand.store.read(lambda tx: ready_replicas(tx, job)) == []


async def test_the_sweeper_neither_copies_nor_shrinks_what_people_are_asked(stand: Stand) -> None:
    await stand.submit(rows(3), overlap=2, gold_share=0, repeat_share=0)
    anna = person(stand, 1)
    await anna.join()
    await anna.work(2)
    await anna.next()
    before = await stand.all(Shard)

    async def money() -> None: ...

    sweeper = Sweeper(stand.engine, Settings(data_dir=stand.folder, agreement_grace_s=0.001), money)
    for _ in range(3):
        stand.clock.advance(60)
        await sweeper.sweep()
    assert await stand.all(Shard) == before
    assert not (await stand.job()).self_evaluated


async def test_what_is_not_used_of_the_reserve_returns(stand: Stand) -> None:
    await stand.submit(rows(3, 10), overlap=1)
    anna = person(stand, 1)
    await anna.join()
    await anna.work()
    await stand.later()
    await stand.effects()
    assert (await stand.job()).state == "succeeded"
    assert await stand.store.read(lambda tx: available(tx, escrow_account(JOB))) == 0
    await stand.check_books()


@pytest.mark.parametrize("state", list(ReplicaState))
def test_only_an_answer_that_is_handed_in_goes_back_to_its_person(state: ReplicaState) -> None:
    legal = ReplicaState.LEASED in moves.LEGAL[ReplicaState].get(state, frozenset())
    assert legal == (state in (ReplicaState.READY, ReplicaState.SUBMITTED))
    assert ShardState.DONE not in moves.LEGAL[ShardState].get(ShardState.READY, frozenset())
