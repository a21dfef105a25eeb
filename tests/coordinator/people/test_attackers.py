"""Who attacks a people's stage: one person with fifty keys, votes that are replayed, forged or late."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

from shardwork_coordinator.api.limits import Buckets
from shardwork_coordinator.people.desk import JOINS
from shardwork_coordinator.records import Annotator, AnnotatorState, JobState, Vote, VoteState

from .stand import STAGE, Person, Stand, guesses, looks, person, rows

KEYS = 50


async def msat_of(stand: Stand, people: list[Person]) -> int:
    ids = {one.id for one in people}
    return sum(vote.price_msat for vote in await stand.all(Vote, state=VoteState.PAID) if vote.annotator in ids)


async def test_keys_without_end_from_one_address_do_not_all_join(stand: Stand) -> None:
    """By the bounds that a coordinator starts with: a village behind one address joins, a thousand keys don't."""
    await stand.submit()
    stand.desk.joins = Buckets(*JOINS)
    codes = [(await person(stand, number).post("join", name="s")).status_code for number in range(1, 201)]
    assert codes == [200] * JOINS[0] + [429] * (200 - JOINS[0])


async def test_fifty_keys_that_press_without_looking_are_all_stopped_and_hardly_paid(stand: Stand) -> None:
    """Half toss coins; half answer each text the same way under every key, so that they agree.

    Twenty items tell a coin from somebody who looks with few errors, not with none (`feedback.quality`): one key of
    the fifty has luck, is paid for a while, and is found later.
    """
    await stand.submit(rows(30, 40), overlap=3)

    def copied(task: Mapping[str, Any]) -> dict[str, Any]:
        shown = sorted(task["answers"])
        favourite = random.Random(json.dumps(shown)).choice(shown)
        return {"winner": "ab"[task["answers"].index(favourite)]}

    ring = [person(stand, number, copied if number % 2 else guesses(number)) for number in range(1, KEYS + 1)]
    for one in ring:
        await one.join(payout="one@wallet.example")
    for one in ring:
        await one.work()
    await stand.later()
    votes = [one for one in await stand.all(Vote) if one.annotator in {key.id for key in ring}]
    paid = {one.annotator for one in votes if one.state is VoteState.PAID}
    assert {one.state for one in await stand.all(Annotator)} == {AnnotatorState.STOPPED}
    earned = await msat_of(stand, ring)
    assert len(paid) <= 1 and earned < 0.1 * sum(one.price_msat for one in votes)
    honest = [person(stand, KEYS + number, looks) for number in range(1, 6)]
    for one in honest:
        await one.join()
        await one.work()
    await stand.later()
    await stand.effects()
    assert (await stand.job()).state is JobState.SUCCEEDED
    assert await msat_of(stand, ring) == earned
    await stand.check_books()
    found = await stand.artifact("rows", "preferences.jsonl")
    right = [row["chosen"].startswith("a long") for row in found]
    assert len(right) >= 25 and sum(right) >= 0.95 * len(right)


async def test_a_vote_that_somebody_else_sends_again_is_nobody_elses(stand: Stand) -> None:
    """Caught on its way and sent again as it was it is the same vote; under another key it is none."""
    await stand.submit()
    anna, eve = person(stand, 1), person(stand, 2)
    await anna.join()
    await eve.join()
    task = (await anna.next())["task"]
    stand.clock.advance(5)
    body = json.dumps({"lease": task["lease"], "answer": looks(task), "ms": 5000}).encode()
    caught = anna.signed("POST", "/people/api/vote", body)
    answers = [await stand.client.post("/people/api/vote", content=body, headers=caught) for _ in range(3)]
    assert {one.status_code for one in answers} == {200} and len(await stand.all(Vote)) == 1
    for changed in (
        {**caught, "Shardwork-Key": eve.signed("POST", "/people/api/vote", body)["Shardwork-Key"]},
        {**caught, "Shardwork-Signature": eve.signed("POST", "/people/api/vote", body)["Shardwork-Signature"]},
    ):
        assert (await stand.client.post("/people/api/vote", content=body, headers=changed)).status_code == 401
    own = eve.signed("POST", "/people/api/vote", body)
    assert (await stand.client.post("/people/api/vote", content=body, headers=own)).status_code in (403, 404)
    stand.clock.advance(3600)
    assert (await stand.client.post("/people/api/vote", content=body, headers=caught)).status_code == 401
    (vote,) = await stand.all(Vote)
    assert vote.annotator == anna.id


async def test_who_was_stopped_gives_no_vote_that_counts(stand: Stand) -> None:
    await stand.submit(rows(30, 40), overlap=3)
    bot = person(stand, 1, lambda task: {"winner": "a"})
    await bot.join()
    last = ""
    for _ in range(40):
        task = (await bot.next())["task"]
        if task is None:
            break
        stand.clock.advance(5)
        last = task["lease"]
        if (await bot.post("vote", lease=last, answer={"winner": "a"}, ms=5000)).status_code != 200:
            break
    people = await stand.all(Annotator)
    assert [one.state for one in people] == [AnnotatorState.STOPPED]
    late = await bot.post("vote", lease=last, answer={"winner": "b"}, ms=5000)
    assert late.status_code in (404, 409)
    assert (await bot.post("undo", lease=last)).status_code in (404, 409)
    assert (await bot.next())["task"] is None
    assert not await stand.all(Vote, state=VoteState.PAID) and await msat_of(stand, [bot]) == 0
    assert people[0].stage == STAGE
