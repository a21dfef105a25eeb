"""People do anything in any order, time jumps, the job pauses, runs out of money, is topped up and times out: money is
kept, nobody is paid twice, and no item counts more people than were asked for, each of them once. And two hundred
people at one stage."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from shardwork.why import Why
from shardwork_coordinator.api.limits import Buckets
from shardwork_coordinator.events import JobCancelled, JobPaused, JobResumed, TimedOut, ToppedUp
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import MoveAll, escrow_account, round_account
from shardwork_coordinator.people.giving import EXPIRES_MS
from shardwork_coordinator.records import (
    Annotator,
    AnnotatorState,
    JobState,
    Replica,
    ReplicaState,
    Round,
    Shard,
    ShardState,
    Vote,
    VoteState,
)
from shardwork_coordinator.settings import Settings
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.sweeper import Sweeper

from ..stores import OPEN
from .stand import JOB, STAGE, Person, Stand, always_first, guesses, looks, person, rows, standing

#: of a vote -> of its replica
STATES = {
    VoteState.GIVEN: ReplicaState.LEASED,
    VoteState.CAST: ReplicaState.SUBMITTED,
    VoteState.HELD: ReplicaState.SUBMITTED,
    VoteState.PAID: ReplicaState.ACCEPTED,
    VoteState.PRACTICE: ReplicaState.ACCEPTED,
    VoteState.REJECTED: ReplicaState.REJECTED,
    VoteState.SKIPPED: ReplicaState.EXPIRED,
    VoteState.REPORTED: ReplicaState.EXPIRED,
    VoteState.EXPIRED: ReplicaState.EXPIRED,
}
TAKEN = (ReplicaState.LEASED, ReplicaState.SUBMITTED, ReplicaState.ACCEPTED)


async def check(stand: Stand) -> None:
    """What holds after whatever happened."""
    await stand.check_books()
    replicas = {(one.shard_id, one.number): one for one in await stand.all(Replica)}
    votes = await stand.all(Vote)
    assert len(votes) == len(replicas)
    for vote in votes:
        assert replicas[vote.shard_id, vote.replica].state is STATES[vote.state], vote
    is_cancelled = (await stand.job()).state in (JobState.CANCELLED, JobState.FAILED)
    for shard in await stand.all(Shard, phase="ask"):
        mine = [one for one in replicas.values() if one.shard_id == shard.id]
        taken = [one for one in mine if one.state in TAKEN]
        accepted = [one for one in mine if one.state is ReplicaState.ACCEPTED]
        assert len({one.worker_id for one in taken}) == len(taken) <= shard.quorum
        if is_cancelled:
            # what waits is paid, what runs is taken back, and no item of it is given or done any more
            continue
        if shard.state is not ShardState.DONE:
            assert (shard.state is ShardState.RUNNING) == (len(taken) == shard.quorum)
            assert len(accepted) < shard.quorum
        elif shard.canonical >= 0:
            assert len(accepted) == shard.quorum
        assert shard.attempts_left == 4
    rounds = [one for one in await stand.all(Round) if one.number == 1]
    assert rounds[0].shards_left == sum(one.state is not ShardState.DONE for one in await stand.all(Shard, phase="ask"))


async def act(stand: Stand, one: Person, chosen: random.Random, known: list[str]) -> None:
    """Something that a browser may do, sensible or not."""
    lease = chosen.choice(known) if known else "x"
    match chosen.randrange(12):
        case 0 | 1 | 2 | 3 | 4 | 5:
            given = (await one.post("next", job=JOB, stage=STAGE)).json().get("task")
            if given is not None:
                known.append(given["lease"])
                stand.clock.advance(chosen.choice([0.1, 3, 6]))
                answer = await one.post("vote", lease=given["lease"], answer=one.answers(given))
                assert answer.status_code in (200, 409)
        case 6:
            await one.post("next", job=JOB, stage=STAGE)
        case 7:
            await one.post("undo", lease=lease)
        case 8:
            await one.post("skip", lease=lease)
        case 9:
            await one.post("report", lease=lease, reason="odd")
        case 10:
            await one.post("vote", lease=lease, answer={"winner": chosen.choice(["a", "b", "tie"])})
        case _:
            stand.clock.advance(chosen.choice([11, EXPIRES_MS / 1000, 2000]))
            await stand.later(0)
            await Sweeper(stand.engine, Settings(data_dir=stand.folder), nothing).sweep()


async def nothing() -> None: ...


async def befall(stand: Stand, step: int, chosen: random.Random) -> None:
    """Something that its owner or the operator may do: a pause, a top-up, a restart, and a reserve that is spent."""
    match chosen.randrange(5):
        case 0:
            await stand.steer(JobPaused(why=Why(code="job.paused", sentence="Paused.")))
        case 1 | 2:
            await stand.steer(ToppedUp(msat=chosen.choice([1, 10_200, 200_000]), transfer=f"top-up/{step}"))
            await stand.steer(JobResumed())
        case 3:
            await Sweeper(stand.engine, Settings(data_dir=stand.folder), nothing).revive()
        case _:
            accounts = {"debit": round_account(JOB, STAGE, 1), "credit": escrow_account(JOB)}
            spent = MoveAll(id=f"spent/{step}", **accounts, reason="release", reference=JOB)
            await stand.store.write(lambda tx: ledger.apply(tx, spent, 0))


@pytest.mark.parametrize("seed", range(16))
async def test_whatever_people_do_the_books_balance(stand: Stand, seed: int) -> None:
    chosen = random.Random(seed)
    stand.desk.calls = Buckets(10**6, 1e6)
    await stand.submit(rows(5, 6 * (seed % 3)), overlap=1 + seed % 3)
    kinds = (looks, looks, guesses(seed), always_first)
    people = [(person(stand, number, kinds[number % 4]), list[str]()) for number in range(1, 8)]
    for one, _ in people:
        await one.join()
    for step in range(90):
        one, known = chosen.choice(people)
        await act(stand, one, chosen, known)
        if step % 15 == 14:
            await befall(stand, step, chosen)
        if (await stand.job()).state not in (JobState.RUNNING, JobState.PAUSED):
            break
        await check(stand)
    await stand.effects()
    if (await stand.job()).state in (JobState.RUNNING, JobState.PAUSED):
        is_over = Why(code="job.timed_out", sentence="Its time is over.")
        await stand.steer(JobCancelled() if seed % 2 else TimedOut(why=is_over))
    await check(stand)
    for account in (escrow_account(JOB), round_account(JOB, STAGE, 1)):
        assert await stand.store.read(partial(_balance, account=account)) == 0


def _balance(tx: Transaction, account: str) -> int:
    return ledger.balance(tx, account)


async def test_two_hundred_people_finish_a_stage_and_those_who_do_not_look_are_stopped_unpaid(tmp_path: Path) -> None:
    async with standing(tmp_path, OPEN["sqlite"](tmp_path, "")) as stand:
        stand.desk.calls = Buckets(10**6, 1e6)
        await stand.submit(rows(60, 50), overlap=4)
        people = list[Person]()
        for number in range(1, 201):
            bot = {0: always_first, 1: guesses(number)}.get(number % 20)
            people.append(person(stand, number, bot or looks))
        for one in people:
            await one.join()
        # newcomers come one by one; those who are there take turns
        chosen, here, coming = random.Random(7), list[Person](), list(people)
        while (await stand.job()).state is JobState.RUNNING and (here or coming):
            if coming and len(here) < 12:
                here.append(coming.pop(0))
            one = chosen.choice(here)
            if await one.do() is None:
                here.remove(one)
                if not coming:
                    coming = [person_ for person_ in people if person_.answers is looks][:40]
            if chosen.random() < 0.01:
                await stand.later()
                await stand.effects()
        await stand.later()
        await stand.effects()
        assert (await stand.job()).state is JobState.SUCCEEDED
        await stand.check_books()
        standings = {one.party: one for one in await stand.all(Annotator)}
        bots = [standings[one.id] for one in people if one.answers is not looks and one.id in standings]
        assert bots
        stopped = [one for one in bots if one.state is AnnotatorState.STOPPED and one.votes - one.practised <= 21]
        assert len(stopped) >= 0.8 * len(bots)
        paid = Counter(one.annotator for one in await stand.all(Vote, state=VoteState.PAID))
        assert not any(paid[one.party] for one in stopped)
        found = await stand.artifact("rows", "preferences.jsonl")
        assert len(found) >= 58
        assert sum(row["chosen"].startswith("a long") for row in found) >= 0.98 * len(found)
