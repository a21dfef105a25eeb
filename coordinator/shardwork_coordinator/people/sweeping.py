"""Sweeping: what time brings people. Answers that nobody takes back any more count; who left in probation gives places
back that others need; what somebody holds whom the operator shut out goes to others; a stage whose time is over, or
whose owner asks nobody any more, goes on with the answers that it has. Called by the sweeper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shardwork.recipes.base import ASK_PHASE
from shardwork.why import Why

from ..engine import Engine, advance, slice_of_task, write_note
from ..events import ItemShelved, Note, Push, World
from ..queueing import standing
from ..records import Annotator, AnnotatorState, Party, Shard, ShardState, Vote, VoteState
from ..store.base import Transaction
from ..telemetry.logs import Log
from . import gathering, places, settling

#: looked at in one sweep; the rest is looked at in the next
MOST = 200
#: who has not been heard of for so long has left
AWAY_MS = 30 * 60_000

TIME_OVER = Why(
    code="people.time_over",
    sentence="The asking ended before as many people as were wanted had judged this item; what they said counts.",
)
BARRED = Why(code="people.barred", sentence="The operator shut this key out.", next_step="Ask the operator.")

_log = Log("people")
#: (job, stage, party)
Key = tuple[str, str, str]
#: what is done about one person, or without one about a stage
Step = Callable[[Transaction, Key, World, list[Push]], None]


async def sweep(engine: Engine) -> None:
    """One look. What fails is logged and looked at again; it keeps nobody else's answers from counting."""
    world = engine.world()
    due, away, barred, over = await engine.store.read(
        lambda tx: (_due(tx, world), _away(tx, world), _barred(tx), _over(tx, world))
    )
    for keys, step in ((due, _settle), (away, _lapse), (barred, _bar), (over, _end)):
        for key in keys:
            await _each(engine, key, step, world)


async def _each(engine: Engine, key: Key, step: Step, world: World) -> None:
    def work(tx: Transaction) -> list[Push]:
        pushes: list[Push] = []
        step(tx, key, world, pushes)
        return pushes

    try:
        engine.after_commit(await engine.store.write(work))
    except Exception:
        _log.error("people.sweep_failed", about="/".join(key))


def _due(tx: Transaction, world: World) -> list[Key]:
    cast = tx.find(Vote, state=VoteState.CAST, order="cast_ms", limit=MOST)
    ripe = [one for one in cast if one.cast_ms + settling.UNDO_MS <= world.now_ms]
    return list(dict.fromkeys((one.job_id, one.stage, one.annotator) for one in ripe))


def _settle(tx: Transaction, key: Key, world: World, pushes: list[Push]) -> None:
    job, stage, party = key
    for vote in tx.find(Vote, annotator=party, job_id=job, stage=stage, state=VoteState.CAST, order="number"):
        if vote.cast_ms + settling.UNDO_MS <= world.now_ms:
            settling.settle(tx, vote, world, pushes)


def _away(tx: Transaction, world: World) -> list[Key]:
    """People in probation who left, in stages that wait for nothing but places which their answers hold."""
    found: list[Key] = []
    for job, stage in places.running(tx):
        if places.open_round(tx, job.id, stage.name) is None or not _is_stuck(tx, job.id, stage.name):
            continue
        key: dict[str, Any] = {"job_id": job.id, "stage": stage.name}
        # by the answers: of those who left most hold no place, and some none any more
        holders = sorted(tx.count(Vote, "annotator", **key, phase=ASK_PHASE, state=VoteState.HELD))
        here = tx.find(Annotator, **key, party=holders)
        gone = [one.party for one in here if one.last_ms + AWAY_MS <= world.now_ms]
        found += [(job.id, stage.name, party) for party in gone[:MOST]]
    return found


def _is_stuck(tx: Transaction, job: str, stage: str) -> bool:
    return not tx.find(Shard, job_id=job, stage=stage, phase=ASK_PHASE, state=ShardState.READY, limit=1)


def _lapse(tx: Transaction, key: Key, world: World, pushes: list[Push]) -> None:
    me = tx.get(Annotator, *key)
    # each may free the places that the others were about to
    if me is not None and me.last_ms + AWAY_MS <= world.now_ms and _is_stuck(tx, key[0], key[1]):
        settling.lapse(tx, me, world, pushes)


def _barred(tx: Transaction) -> list[Key]:
    shut_out = standing.among(tx, standing.DISTRUSTED)
    parties = {name for (name,) in tx.pick(Party, ("id",), id=sorted(shut_out))} if shut_out else set[str]()
    rows = tx.find(Annotator, party=sorted(parties)) if parties else []
    live = [one for one in rows if one.state is not AnnotatorState.STOPPED]
    return [(one.job_id, one.stage, one.party) for one in live]


def _bar(tx: Transaction, key: Key, world: World, pushes: list[Push]) -> None:
    me = tx.get(Annotator, *key)
    if me is not None and me.party in standing.among(tx, standing.DISTRUSTED):
        settling.stop(tx, me, BARRED, world, pushes)


def _over(tx: Transaction, world: World) -> list[Key]:
    """Stages that ask no more."""
    late = [one for _, one in places.running(tx) if 0 < one.deadline_ms <= world.now_ms]
    return [(one.job_id, one.name, "") for one in late if _may_end(tx, one.job_id, one.name)]


def _may_end(tx: Transaction, job: str, stage: str) -> bool:
    return places.open_round(tx, job, stage) is not None and gathering.has_answers(tx, job, stage)


def _end(tx: Transaction, key: Key, world: World, pushes: list[Push]) -> None:
    """Shelves what is still asked, a sweep's worth at a time; the last of it ends the phase."""
    job, stage, _ = key
    if not _may_end(tx, job, stage):
        return
    asked: dict[str, Any] = {"job_id": job, "stage": stage, "phase": ASK_PHASE}
    still = tx.find(Shard, **asked, state=places.STILL_ASKED, order="position", limit=MOST)
    for shard in still:
        pushes += advance(tx, slice_of_task(tx, shard), ItemShelved(why=TIME_OVER, is_told=False), world)
    if len(still) < MOST or not tx.find(Shard, **asked, state=places.STILL_ASKED, limit=1):
        write_note(tx, job, _ended(stage, tx.count(Shard, "state", **asked, canonical=-1)), world.now_ms)


def _ended(stage: str, left_out: dict[str, int]) -> Note:
    few = sum(left_out.values())
    return Note(
        kind="people.ended",
        subject=stage,
        sentence=f"Stage {stage} asks nobody any more and goes on with the answers that it has; {few} items were "
        "judged by fewer people than were wanted.",
        evidence={"items": str(few)},
    )
