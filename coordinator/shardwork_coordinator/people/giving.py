"""Giving: the next task of a person: which item, in which order its answers stand, and the money for it.

What it is, asked, repeated or hidden, and its order follow from the coordinator's secret, so that nobody outside can
foretell them, and are the same again after a crash. A task that is open already is given again: a lost line costs
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from shardwork.ids import shard_id
from shardwork.recipes.base import ASK_PHASE, GOLD_PHASE, PRACTICE_PHASE, REPEAT_PHASE
from shardwork.why import Why

from ..engine import advance, found, slice_of_job, slice_of_task, write_change
from ..events import Change, JobPaused, Push, TaskGiven, World
from ..machine import people as machine
from ..machine.endings import BUDGET_SPENT
from ..money import ledger
from ..money.movements import Move, escrow_account, round_account
from ..records import Annotator, AnnotatorState, Job, Round, Shard, ShardState, Vote, VoteState
from ..store.base import Transaction
from . import settling, trust
from .admitting import affords_tests, why_not
from .desk import PeopleDesk
from .gathering import COUNTING
from .items import Index
from .places import Place, open_round, why_shut
from .trust import Kind

#: so long a task is its person's before others may have it, and so long an answer to it is taken all the same
EXPIRES_MS, DEADLINE_MS = 10 * 60_000, 60 * 60_000
#: items looked at in one call, a page at a time
PAGE, MOST_PAGES = 100, 10
#: a repeated item comes after so many others
APART = 4
#: tasks that somebody may leave unanswered beside those they answer
MOST_LEFT = 30
#: tasks that a top-up is reserved for at once
AHEAD = 50

STOPPED_HERE = settling.STOPPED
ALL_TAKEN = Why(
    code="people.all_taken",
    sentence="Every item is judged or in somebody's hands now.",
    next_step="Look again in some minutes: items come back when somebody leaves, or choose another task.",
)
ENOUGH = Why(
    code="people.enough",
    sentence="You have judged as many items as one person may here.",
    next_step="Choose another task.",
)
NOT_INVITED = Why(
    code="people.not_invited",
    sentence="This task is for people who were invited.",
    next_step="Open the link that you were sent.",
)
NO_MONEY = Why(
    code=BUDGET_SPENT,
    sentence="What the job's budget left for people's answers is spent.",
    next_step="`shardwork job topup ID SATS` adds to it, and the job goes on by itself.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """A task, or why there is none."""

    me: Annotator | None
    vote: Vote | None = None
    expires_ms: int = 0
    why: Why | None = None


@dataclass(slots=True, kw_only=True)
class Giver:
    """One call's search, in its transaction."""

    tx: Transaction
    desk: PeopleDesk
    place: Place
    index: Index
    world: World
    pushes: list[Push]

    def next(self, party: str) -> Next:
        me = self.tx.get(Annotator, self.place.job, self.place.stage, party)
        if why := why_shut(self.tx, self.place.job, self.place.stage):
            return Next(me=me, why=why)
        if why := self._why_not_admitted(me):
            return Next(me=me, why=why)
        me = me or arrive(self.tx, self.place.job, self.place.stage, party, self.world.now_ms)
        if me.state is AnnotatorState.STOPPED:
            return Next(me=me, why=STOPPED_HERE)
        if open_ := self._open(me):
            return open_
        if me.votes - me.practised >= self.place.params.most_per_person or me.given > 2 * me.votes + MOST_LEFT:
            return Next(me=me, why=ENOUGH)
        round_ = found(open_round(self.tx, self.place.job, self.place.stage), "round", self.place.stage)
        me, shard = self._chosen(me, round_)
        if shard is None:
            return self._nothing_left(me)
        return self._give(me, shard, round_)

    # ---- who -------------------------------------------------------------------------------------------------

    def _why_not_admitted(self, me: Annotator | None) -> Why | None:
        """Who has begun goes on; who comes first must be invited, where that is asked, and find room."""
        if me is not None and me.given:
            return None
        if me is None and self.place.params.invitation:
            return NOT_INVITED
        return why_not(self.tx, self.place, self._stored(ASK_PHASE, 0), self.world.now_ms)

    def _open(self, me: Annotator) -> Next | None:
        """What they were given and have not answered."""
        mine: dict[str, Any] = {"annotator": me.party, "job_id": me.job_id, "stage": me.stage}
        for vote in self.tx.find(Vote, **mine, state=VoteState.GIVEN, order="number"):
            shard = found(self.tx.get(Shard, vote.shard_id), "shard", vote.shard_id)
            replica = slice_of_task(self.tx, shard, vote).replica(vote.shard_id, vote.replica)
            return Next(me=me, vote=vote, expires_ms=replica.expires_ms)
        return None

    # ---- what ------------------------------------------------------------------------------------------------

    def _chosen(self, me: Annotator, round_: Round) -> tuple[Annotator, Shard | None]:
        """First the practice items, then as chance says; and what can't be had is made up for by what can."""
        if me.practised < self.place.practice:
            number = self.place.asked + me.practised
            return me, self._stored(PRACTICE_PHASE, number)
        done = self._done(me)
        can = {Kind.ASK}
        asked = self._stored(ASK_PHASE, 0)
        if me.state is AnnotatorState.PROBATION or affords_tests(self.tx, self.place, asked, round_):
            hidden = self.place.golds - self.place.practice
            if hidden > sum(phase == GOLD_PHASE for _, phase, _ in done):
                can.add(Kind.GOLD)
            if _able(done, APART):
                can.add(Kind.REPEAT)
        secret = self.desk.hidden("what", me.job_id, me.stage, me.party)
        known = trust.Standing.of(me.evidence_json)
        # by answers, so that nobody gets around a test by leaving it aside
        wish = trust.next_kind(secret, me.votes - me.practised, known, trust.rules(self.place.params), can=can)
        if wish is not Kind.ASK:
            return me, self._gold(me, done) if wish is Kind.GOLD else self._repeat(me, done, APART)
        me, shard = self._ask(me)
        if shard is None and me.state is AnnotatorState.PROBATION and settling.waiting(self.tx, me):
            # their answers hold places: whether they look is found out on what is left
            shard = self._gold(me, done) or self._repeat(me, done, 1)
        return me, shard

    def _done(self, me: Annotator) -> list[tuple[int, str, str]]:
        """(position, phase, state) of all that they were given, oldest first."""
        mine: dict[str, Any] = {"annotator": me.party, "job_id": me.job_id, "stage": me.stage}
        return self.tx.pick(Vote, ("position", "phase", "state"), **mine, order="number")

    def _gold(self, me: Annotator, done: Sequence[tuple[int, str, str]]) -> Shard | None:
        """A hidden item that they have not seen, in an order of their own."""
        seen = {position for position, phase, _ in done if phase == GOLD_PHASE}
        first, count = self.place.asked + self.place.practice, self.place.golds - self.place.practice
        if count <= len(seen):
            return None
        start = int(self.desk.drawn("gold", me.job_id, me.stage, me.party, me.given) * count)
        number = next(
            first + (start + step) % count for step in range(count) if first + (start + step) % count not in seen
        )
        return self._stored(GOLD_PHASE, number)

    def _repeat(self, me: Annotator, done: Sequence[tuple[int, str, str]], apart: int) -> Shard | None:
        """One that they judged a while ago, and once."""
        able = _able(done, apart)
        if not able:
            return None
        position = able[int(self.desk.drawn("again", me.job_id, me.stage, me.party, me.given) * len(able))]
        asked = self._stored(ASK_PHASE, position)
        return self._stored_or_none(REPEAT_PHASE, position) or machine.repeat_of(asked, self.world)

    def _ask(self, me: Annotator) -> tuple[Annotator, Shard | None]:
        """The next item with a free place behind the last one that they looked at, and once around."""
        cursor, around = me.cursor, False
        for _ in range(MOST_PAGES):
            free = self.tx.find(
                Shard,
                job_id=self.place.job,
                stage=self.place.stage,
                phase=ASK_PHASE,
                state=ShardState.READY,
                order="id",
                after=cursor,
                limit=PAGE,
            )
            ids = [one.id for one in free]
            known = self.tx.pick(Vote, ("shard_id", "state"), shard_id=ids, replica=me.number) if ids else []
            # what only ran out of time may be theirs again
            seen = {one for one, state in known if state != VoteState.EXPIRED}
            shard = next((one for one in free if one.id not in seen), None)
            if shard is not None:
                return replace(me, cursor=shard.id), shard
            if len(free) == PAGE:
                cursor = free[-1].id
            elif around:
                break
            else:
                cursor, around = "", True
        return replace(me, cursor=cursor), None

    def _stored(self, phase: str, number: int) -> Shard:
        return found(self._stored_or_none(phase, number), "shard", f"{phase}/{number}")

    def _stored_or_none(self, phase: str, number: int) -> Shard | None:
        return self.tx.get(Shard, shard_id(self.place.job, self.place.stage, 1, phase, number))

    # ---- the task --------------------------------------------------------------------------------------------

    def _give(self, me: Annotator, shard: Shard, round_: Round) -> Next:
        if not covered(self.tx, shard, round_, self.world):
            job = found(self.tx.get(Job, me.job_id), "job", me.job_id)
            self.pushes += advance(self.tx, slice_of_job(self.tx, job), JobPaused(why=NO_MONEY), self.world)
            self.tx.put(me)
            return Next(me=me, why=why_shut(self.tx, me.job_id, me.stage))
        me = replace(me, given=me.given + 1, last_ms=self.world.now_ms, nothing_left=False)
        vote = self._task(me, shard)
        self.tx.put(me)
        expires_ms = self.world.now_ms + EXPIRES_MS
        event = TaskGiven(expires_ms=expires_ms, deadline_ms=self.world.now_ms + DEADLINE_MS)
        self.pushes += advance(self.tx, slice_of_task(self.tx, shard, vote), event, self.world)
        return Next(me=me, vote=vote, expires_ms=expires_ms)

    def _task(self, me: Annotator, shard: Shard) -> Vote:
        known = self.tx.find(Vote, shard_id=shard.id, replica=me.number)
        if known:
            return replace(known[0], given_ms=self.world.now_ms)
        return Vote(
            id=self.desk.hidden("task", me.job_id, me.stage, me.party, me.given).hex()[:32],
            shard_id=shard.id,
            replica=me.number,
            job_id=me.job_id,
            stage=me.stage,
            phase=shard.phase,
            annotator=me.party,
            number=me.given,
            position=shard.position,
            shown=self._shown(me, shard),
            state=VoteState.GIVEN,
            least_ms=self.place.least_ms(self.index.letters(shard.position)),
            price_msat=shard.price_msat,
            given_ms=self.world.now_ms,
        )

    def _shown(self, me: Annotator, shard: Shard) -> str:
        """An order of the answers for this person and item; the second time it is turned around."""
        kind = self.place.params.kind
        count = self.place.params.answers if kind in ("compare", "rank") else 1
        hidden = self.desk.hidden("order", me.job_id, me.stage, me.party, shard.position)
        order = sorted(range(count), key=lambda one: (hidden[one], one)) if count > 2 else _pair(hidden[0], count)
        return ",".join(map(str, reversed(order) if shard.phase == REPEAT_PHASE else order))

    def _nothing_left(self, me: Annotator) -> Next:
        """Whoever holds places and can't be tested any more is decided by what is known of them."""
        me = replace(me, nothing_left=True)
        self.tx.put(me)
        if me.state is AnnotatorState.PROBATION and settling.waiting(self.tx, me):
            state = trust.last(trust.Standing.of(me.evidence_json))
            settling.conclude(self.tx, me, state, self.world, self.pushes, newest=None)
            me = found(self.tx.get(Annotator, me.job_id, me.stage, me.party), "annotator", me.party)
        return Next(me=me, why=STOPPED_HERE if me.state is AnnotatorState.STOPPED else ALL_TAKEN)


def arrive(tx: Transaction, job: str, stage: str, party: str, now_ms: int) -> Annotator:
    """Somebody new in a stage."""
    last = tx.find(Annotator, job_id=job, stage=stage, order="number", descending=True, limit=1)
    number = last[0].number + 1 if last else 1
    return tx.insert(Annotator(job_id=job, stage=stage, party=party, number=number, joined_ms=now_ms, last_ms=now_ms))


def covered(tx: Transaction, shard: Shard, round_: Round, world: World) -> bool:
    """The round's reserve holds the pay and the fee, or what the job's owner added makes up for what is missing."""
    reserve = round_account(shard.job_id, shard.stage, shard.round)
    missing = shard.price_msat + shard.fee_msat - ledger.available(tx, reserve)
    job = found(tx.get(Job, shard.job_id), "job", shard.job_id)
    if missing <= 0:
        return True
    if job.extra_msat < missing:
        return False
    # for several tasks at once, so that not each of them moves a bit
    msat = min(job.extra_msat, max(missing, AHEAD * (shard.price_msat + shard.fee_msat)))
    move = Move(
        id=f"reserve/{shard.job_id}/{shard.stage}/people/{round_.reserved_msat}",
        debit=escrow_account(job.id),
        credit=reserve,
        msat=msat,
        reason="reserve",
        reference=job.id,
    )
    rows = [replace(job, extra_msat=job.extra_msat - msat), replace(round_, reserved_msat=round_.reserved_msat + msat)]
    write_change(tx, job.id, Change(rows=[*rows], movements=[move]), world)
    return True


def _able(done: Sequence[tuple[int, str, str]], apart: int) -> list[int]:
    """Items that may be shown again: judged once, so many tasks ago."""
    again = {position for position, phase, _ in done if phase == REPEAT_PHASE}
    old = done[: max(len(done) - apart, 0)]
    return [one for one, phase, state in old if phase == ASK_PHASE and state in COUNTING and one not in again]


def _pair(byte: int, count: int) -> list[int]:
    return [0] if count == 1 else [0, 1] if byte & 1 else [1, 0]
