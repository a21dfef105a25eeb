"""What answers are worth: practice, probation, cleared, stopped; undo, expiry and places that come free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from shardwork.why import Why
from shardwork_coordinator.events import JobCancelled, JobPaused, JobResumed, ToppedUp
from shardwork_coordinator.machine.endings import BUDGET_SPENT
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import MoveAll, escrow_account, round_account
from shardwork_coordinator.people.giving import DEADLINE_MS, EXPIRES_MS
from shardwork_coordinator.people.sweeping import AWAY_MS
from shardwork_coordinator.records import (
    Annotator,
    AnnotatorState,
    Lease,
    Replica,
    ReplicaState,
    Shard,
    ShardState,
    Vote,
    VoteState,
)
from shardwork_coordinator.settings import Settings
from shardwork_coordinator.sweeper import Sweeper

from .stand import JOB, STAGE, Person, Stand, always_first, guesses, looks, person, rows


async def begun(stand: Stand, number: int = 1, answers: Any = looks, **params: Any) -> Person:
    """Somebody who has done the practice items of a stage with enough of everything."""
    if not await stand.all(Shard):
        await stand.submit(rows(40, 30), **params)
    found = person(stand, number, answers)
    await found.join()
    for _ in range(3):
        told = await found.do()
        assert told is not None and told["state"] == "practice"
    return found


async def standing(stand: Stand, one: Person) -> Annotator:
    return (await stand.all(Annotator, party=one.id))[0]


async def expire(stand: Stand, milliseconds: int) -> None:
    """The coordinator's own sweeper looks after so long."""

    async def money() -> None: ...

    stand.clock.advance(milliseconds / 1000)
    await Sweeper(stand.engine, Settings(data_dir=stand.folder), money).sweep()


async def test_practice_is_unpaid_and_says_what_was_right(stand: Stand) -> None:
    await stand.submit(rows(10, 10))
    anna = person(stand, 1)
    await anna.join()
    told = list[dict[str, Any]]()
    for wrong in (False, True, False):
        given = (await anna.next())["task"]
        assert given["practice"] and given["pay_msat"] == 0
        winner = looks(given)["winner"]
        stand.clock.advance(5)
        said = ("b" if winner == "a" else "a") if wrong else winner
        told.append((await anna.ok("vote", lease=given["lease"], answer={"winner": said}))["practice"])
        assert (await anna.post("undo", lease=given["lease"])).json()["code"] == "people.settled"
    assert [one["right"] for one in told] == [True, False, True]
    assert told[1]["sentence"] in ("Answer 1 is the better one.", "Answer 2 is the better one.")
    assert not (await anna.next())["task"]["practice"]
    assert await stand.all(Lease, state=ReplicaState.ACCEPTED) == []


def critical(task: Mapping[str, Any]) -> dict[str, Any]:
    """Somebody who reads, and finds no answer about an odd number any good."""
    odd = {"1", "3", "5", "7", "9"} & {word[-1] for answer in task["answers"] for word in answer.split()}
    return {"winner": "both_bad"} if odd else looks(task)


def mute(task: Mapping[str, Any]) -> dict[str, Any]:
    return {"winner": "both_bad"}


async def test_hidden_items_that_were_made_of_bad_answers_stop_nobody_who_says_so(stand: Stand) -> None:
    """Nobody knows whether the answer is any good which the stage made its hidden items of."""
    await stand.submit(rows(120), overlap=3)
    people = [person(stand, number, critical) for number in range(1, 4)] + [person(stand, 4, mute)]
    for one in people:
        await one.join()
    for _ in range(60):
        for one in people:
            await one.do()
    states = [(await standing(stand, one)).state for one in people]
    assert states[:3] == [AnnotatorState.CLEARED] * 3 and states[3] is not AnnotatorState.CLEARED
    known = [json.loads((await standing(stand, one)).evidence_json) for one in people]
    assert all(one["unsaid"] > 0 for one in known) and known[3]["wrong"] > 3
    assert not await stand.all(Vote, annotator=people[3].id, state=VoteState.PAID)


async def test_answers_are_held_until_a_person_is_known_and_paid_at_once_then(stand: Stand) -> None:
    anna = await begun(stand)
    paid = 0
    while (await standing(stand, anna)).state is AnnotatorState.PROBATION:
        told = await anna.do()
        assert told is not None
        paid = told["me"]["paid_msat"]
    # all that were held, while the newest may still be taken back
    mine = [one for one in await stand.all(Vote, annotator=anna.id) if one.phase != "practice"]
    assert [one.state for one in mine].count(VoteState.CAST) == 1
    assert {one.state for one in mine} == {VoteState.PAID, VoteState.CAST}
    assert paid == 10_000 * (len(mine) - 1)
    assert len(mine) <= 21
    told = await anna.do()
    assert told is not None and told["me"]["paid_msat"] == paid + 10_000
    assert told["paid_at_ms"] == stand.clock.now_ms() + 10_000
    await stand.later(10)
    assert (await anna.get("tasks")).json()["me"]["held_msat"] == 0
    await stand.check_books()


@pytest.mark.parametrize("answers", [always_first, guesses(3), guesses(4), guesses(5)])
async def test_who_does_not_look_is_stopped_unpaid_and_others_are_asked(stand: Stand, answers: Any) -> None:
    bot = await begun(stand, 1, answers)
    done = await bot.work()
    assert done <= 21
    assert (await standing(stand, bot)).state is AnnotatorState.STOPPED
    assert (await bot.next())["why"]["code"] == "people.not_looking"
    votes = await stand.all(Vote, annotator=bot.id)
    assert {one.state for one in votes} - {VoteState.EXPIRED} == {VoteState.PRACTICE, VoteState.REJECTED}
    assert (await bot.get("tasks")).json()["me"] == {
        "paid_msat": 0,
        "held_msat": 0,
        "available_msat": 0,
        "votes": len([one for one in votes if one.answer_json]),
    }
    shards = await stand.all(Shard, phase="ask")
    assert {(one.state, one.attempts_left) for one in shards} == {(ShardState.READY, 4)}
    await stand.check_books()


async def test_who_answers_faster_than_anybody_reads_is_stopped(stand: Stand) -> None:
    bot = await begun(stand)
    bot.seconds = 0.3
    assert await bot.work() <= 21
    assert (await standing(stand, bot)).state is AnnotatorState.STOPPED


async def test_the_newest_answer_can_be_taken_back_until_the_next_or_ten_seconds(stand: Stand) -> None:
    anna = await begun(stand)
    first = (await anna.next())["task"]
    stand.clock.advance(5)
    await anna.ok("vote", lease=first["lease"], answer={"winner": "both_bad"})
    following = (await anna.next())["task"]
    again = (await anna.ok("undo", lease=first["lease"]))["task"]
    assert {**again, "expires_ms": 0} == {**first, "expires_ms": 0}
    # the same call again changes nothing
    assert (await anna.ok("undo", lease=first["lease"]))["task"]["lease"] == first["lease"]
    assert (await anna.next())["task"]["lease"] == first["lease"]
    await anna.ok("vote", lease=first["lease"], answer={"winner": "tie"})
    assert (await anna.next())["task"]["lease"] == following["lease"]
    stand.clock.advance(5)
    await anna.ok("vote", lease=following["lease"], answer=looks(following))
    assert (await anna.post("undo", lease=first["lease"])).json()["code"] == "people.settled"
    await stand.later(10)
    assert (await anna.post("undo", lease=following["lease"])).json()["code"] == "people.settled"
    vote = (await stand.all(Vote, id=first["lease"]))[0]
    assert vote.answer_json == '{"answer": {"winner": "tie"}}'
    assert (await standing(stand, anna)).votes == 5
    await stand.check_books()


async def test_a_task_that_runs_out_goes_to_others_and_a_late_answer_counts_while_its_place_is_free(
    stand: Stand,
) -> None:
    anna = await begun(stand, overlap=1, gold_share=0, repeat_share=0)
    lease = (given := (await anna.next())["task"])["lease"]
    await expire(stand, EXPIRES_MS)
    assert (await stand.all(Vote, id=lease))[0].state is VoteState.EXPIRED
    assert {one.state for one in await stand.all(Shard, phase="ask")} == {ShardState.READY}
    told = await anna.ok("vote", lease=lease, answer=looks(given))
    assert told["state"] == "held"
    await stand.later()
    assert (await stand.all(Vote, id=lease))[0].state in (VoteState.HELD, VoteState.PAID)
    # and not when somebody else has it, or much later
    second = (await anna.next())["task"]
    await expire(stand, EXPIRES_MS)
    bert = await begun(stand, 2)
    taken = None
    for _ in range(45):
        taken = (await bert.next())["task"]
        if taken is None or taken["prompt"] == second["prompt"]:
            break
        stand.clock.advance(2)
        await bert.ok("vote", lease=taken["lease"], answer=looks(taken))
    assert taken is not None
    late = await anna.post("vote", lease=second["lease"], answer=looks(second))
    assert (late.status_code, late.json()["code"]) == (409, "people.no_place")
    stand.clock.advance(DEADLINE_MS / 1000)
    assert (await anna.post("vote", lease=second["lease"], answer=looks(second))).json()["code"] == "people.task_over"
    await stand.check_books()


async def test_what_is_skipped_or_reported_goes_to_others_and_not_to_the_same_again(stand: Stand) -> None:
    anna = await begun(stand, gold_share=0, repeat_share=0)
    seen = set[str]()
    for call, more in (("skip", {}), ("report", {"reason": "empty"}), ("skip", {})):
        given = (await anna.next())["task"]
        assert given["prompt"] not in seen
        seen.add(given["prompt"])
        await anna.ok(call, lease=given["lease"], **more)
        await anna.ok(call, lease=given["lease"], **more)
        assert (await anna.post("vote", lease=given["lease"], answer={"winner": "a"})).status_code == 409
    assert {one.state for one in await stand.all(Shard, phase="ask")} == {ShardState.READY}
    assert (await anna.post("report", lease="x", reason="")).json()["code"] == "people.bad_reason"
    await stand.check_books()


@pytest.mark.parametrize("known", [True, False])
async def test_an_item_that_three_people_report_who_look_is_asked_no_more(stand: Stand, known: bool) -> None:
    await stand.submit(rows(30, 60), overlap=4)
    # in the order of their names the first and the last that somebody is asked
    target = 9 if known else 0
    place = await stand.store.read(lambda tx: stand.desk.places.of(tx, JOB, STAGE))
    prompt = (await stand.desk.items.item(place.items, target)).prompt
    for number in (1, 2, 3):
        one = person(stand, number)
        await one.join()
        for _ in range(200):
            given = (await one.next())["task"]
            stand.clock.advance(3)
            is_cleared = (await standing(stand, one)).state is AnnotatorState.CLEARED
            if given["prompt"] == prompt and is_cleared == known:
                await one.ok("report", lease=given["lease"], reason="nonsense")
                break
            await one.ok("vote", lease=given["lease"], answer=looks(given))
    shard = (await stand.all(Shard, phase="ask", position=target))[0]
    assert (shard.state is ShardState.DONE, shard.canonical) == (known, -1)


async def test_places_of_somebody_who_left_in_probation_come_free_when_others_need_them(stand: Stand) -> None:
    await stand.submit(rows(4, 30), overlap=1)
    anna = person(stand, 1)
    await anna.join()
    while not any(one.state is ShardState.RUNNING for one in await stand.all(Shard, phase="ask")):
        await anna.do()
    await stand.later()
    held = await stand.all(Vote, annotator=anna.id, phase="ask")
    await stand.later(AWAY_MS / 1000)
    assert {one.state for one in await stand.all(Vote, annotator=anna.id, phase="ask")} == {VoteState.HELD}
    bert = person(stand, 2)
    await bert.join()
    await bert.work()
    await stand.later(AWAY_MS / 1000)
    await stand.later()
    assert {one.state for one in await stand.all(Vote, id=held[0].id)} == {VoteState.REJECTED}
    assert await bert.work()
    await stand.later()
    await stand.effects()
    assert (await stand.job()).state == "succeeded"
    await stand.check_books()


async def test_a_stage_without_tests_pays_each_answer(stand: Stand) -> None:
    await stand.submit(rows(5), overlap=1, gold_share=0, repeat_share=0)
    anna = person(stand, 1)
    await anna.join()
    assert await anna.work() == 5
    await stand.later()
    await stand.effects()
    assert (await stand.job()).state == "succeeded"
    assert (await anna.get("tasks")).json()["me"]["paid_msat"] == 50_000


async def test_a_job_whose_budget_is_spent_pauses_says_so_and_goes_on_after_a_top_up(stand: Stand) -> None:
    anna = await begun(stand)
    spent = MoveAll(
        id="spent",
        debit=round_account(JOB, STAGE, 1),
        credit=escrow_account(JOB),
        reason="release",
        reference=JOB,
    )
    await stand.store.write(lambda tx: ledger.apply(tx, spent, 0))
    shut = await anna.next()
    assert shut["task"] is None and shut["why"]["code"] == "people.paused"
    job = await stand.job()
    assert (job.state, Why.from_json(job.why_json).code) == ("paused", BUDGET_SPENT)
    await stand.steer(ToppedUp(msat=50_000, transfer="top-up/1"))
    assert (await stand.job()).state == "running"
    assert (await anna.next())["task"] is not None
    await stand.check_books()


async def test_pause_keeps_answers_and_cancel_pays_what_was_handed_in(stand: Stand) -> None:
    anna = await begun(stand)
    for _ in range(4):
        await anna.do()
    open_ = (await anna.next())["task"]
    await stand.steer(JobPaused(why=Why(code="job.paused", sentence="Paused.")))
    stand.clock.advance(5)
    await anna.ok("vote", lease=open_["lease"], answer=looks(open_))
    assert (await anna.next())["why"]["code"] == "people.paused"
    await stand.steer(JobResumed())
    assert (await anna.next())["task"] is not None
    await stand.steer(JobCancelled())
    votes = [one for one in await stand.all(Vote) if one.phase != "practice"]
    assert {one.state for one in votes} == {VoteState.PAID, VoteState.EXPIRED}
    assert (await anna.next())["why"]["code"] == "people.closed"
    live = [one for one in await stand.all(Replica) if one.state in (ReplicaState.LEASED, ReplicaState.SUBMITTED)]
    assert live == []
    await stand.check_books()
