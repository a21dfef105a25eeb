"""What is left over when time passes or a job ends: held pay, places of those who left, tasks of a coordinator that was
away. People who want money for nothing wait for such moments."""

from __future__ import annotations

from dataclasses import replace

from shardwork_coordinator.events import JobCancelled
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import MoveAll, escrow_account, round_account
from shardwork_coordinator.people.giving import DEADLINE_MS, EXPIRES_MS
from shardwork_coordinator.people.sweeping import AWAY_MS, MOST
from shardwork_coordinator.records import Annotator, AnnotatorState, Replica, ReplicaState, Vote, VoteState
from shardwork_coordinator.settings import Settings
from shardwork_coordinator.sweeper import Sweeper

from .stand import JOB, STAGE, Person, Stand, looks, person, rows


async def nothing() -> None: ...


def is_wrong(task: dict[str, object]) -> dict[str, object]:
    return {"winner": "b" if looks(task)["winner"] == "a" else "a"}


async def someone(stand: Stand, number: int, tasks: int) -> Person:
    """Who did so many tasks, the three of practice among them."""
    one = person(stand, number)
    await one.join()
    assert await one.work(tasks) == tasks
    return one


async def test_a_job_that_is_cancelled_pays_held_answers_but_none_that_speak_of_a_guesser(stand: Stand) -> None:
    """Keys are free: many of them could answer a little each, and wait for the requester to give up."""
    await stand.submit(rows(60, 60), overlap=3)
    honest, bot = await someone(stand, 1, 8), person(stand, 2, is_wrong)
    await bot.join()
    assert await bot.work(6) == 6
    await stand.later()
    known = {one.party: one.state for one in await stand.all(Annotator)}
    assert known == {honest.id: AnnotatorState.PROBATION, bot.id: AnnotatorState.PROBATION}
    await stand.steer(JobCancelled())
    for one, state in ((honest, VoteState.PAID), (bot, VoteState.REJECTED)):
        votes = [vote for vote in await stand.all(Vote, annotator=one.id) if vote.phase != "practice"]
        assert {vote.state for vote in votes} == {state}
    told = (await bot.get("history")).json()["votes"][0]["why"]
    assert told["code"] == "people.spoke_against"
    await stand.check_books()


async def test_crowds_who_left_without_an_answer_keep_nobody_s_places_from_coming_free(stand: Stand) -> None:
    await stand.submit(rows(4, 30), overlap=1)
    anna = person(stand, 1)
    await anna.join()
    while not await stand.all(Vote, annotator=anna.id, phase="ask", state=VoteState.HELD):
        await anna.do()
        await stand.later()
    # who practised and left before: looked at first, because they are away for longest
    me = (await stand.all(Annotator))[0]
    for number in range(2, MOST + 3):
        await stand.put(
            replace(me, party=f"gone{number:012d}", number=number, votes=1, given=1, practised=1, last_ms=1)
        )
    bert = person(stand, MOST + 3)
    await bert.join()
    await bert.work()
    await stand.later(AWAY_MS / 1000)
    await stand.later()
    assert await bert.work()
    await stand.later()
    await stand.effects()
    assert (await stand.job()).state == "succeeded"
    await stand.check_books()


async def test_a_coordinator_that_was_away_takes_nobody_s_time_from_a_task(stand: Stand) -> None:
    await stand.submit(rows(4, 30))
    anna = person(stand, 1)
    await anna.join()
    lease = (await anna.next())["task"]["lease"]
    sweeper = Sweeper(stand.engine, Settings(data_dir=stand.folder), nothing)
    stand.clock.advance(60)
    await sweeper.revive()
    stand.clock.advance(EXPIRES_MS / 1000 - 1)
    await sweeper.sweep()
    assert (await stand.all(Vote, id=lease))[0].state is VoteState.GIVEN
    assert (await stand.all(Replica, state=ReplicaState.LEASED))[0].deadline_ms >= DEADLINE_MS


async def test_a_late_answer_to_what_nobody_can_pay_any_more_is_too_late_in_words_for_people(stand: Stand) -> None:
    await stand.submit(rows(4), overlap=1, gold_share=0, repeat_share=0)
    anna = person(stand, 1)
    await anna.join()
    given = (await anna.next())["task"]
    stand.clock.advance(EXPIRES_MS / 1000)
    await Sweeper(stand.engine, Settings(data_dir=stand.folder), nothing).sweep()
    told = (await anna.get("history")).json()["votes"][0]
    assert told["state"] == "expired" and told["why"]["code"] == "people.ran_out"
    assert "worker" not in str(told["why"])
    spent = MoveAll(
        id="spent", debit=round_account(JOB, STAGE, 1), credit=escrow_account(JOB), reason="release", reference=JOB
    )
    await stand.store.write(lambda tx: ledger.apply(tx, spent, 0))
    answer = await anna.post("vote", lease=given["lease"], answer=looks(given))
    assert (answer.status_code, answer.json()["code"]) == (409, "people.task_over")
    await stand.check_books()


async def test_a_time_that_no_clock_shows_is_a_time_all_the_same(stand: Stand) -> None:
    await stand.submit(rows(4), overlap=1, gold_share=0, repeat_share=0)
    anna = person(stand, 1)
    await anna.join()
    given = (await anna.next())["task"]
    stand.clock.advance(5)
    told = await anna.ok("vote", lease=given["lease"], answer=looks(given), ms=float("inf"))
    assert told["state"] == "held"
    [vote] = await stand.all(Vote)
    assert 0 <= vote.ms <= 24 * 3600 * 1000


async def test_who_has_no_address_is_told_where_people_say_theirs(stand: Stand) -> None:
    await stand.submit(rows(4), overlap=1, gold_share=0, repeat_share=0)
    anna = await someone(stand, 1, 4)
    await stand.later()
    refused = (await anna.post("withdraw")).json()
    assert refused["code"] == "payout.no_address" and "page" in refused["next_step"]
