"""The outbox: carries out committed effects at least once, and reports what came of them to the machine.

An effect stays pending until its report is committed in the same transaction that marks it done, so a crash at any
point repeats it; executor phases are pure, so repeating is harmless. Where several coordinators share a database, each
takes as many as it can carry out, and those of one that fell silent. Runs in `app`.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from shardwork.errors import Internal, ShardworkError, Unreachable
from shardwork.recipes import recipe
from shardwork.recipes.base import StageType
from shardwork.why import Why

from .artifacts.retention import HOUSE
from .cluster.membership import living
from .engine import Engine, advance, found, slice_of_round
from .events import ExecutorFailed, ExecutorFinished, MachineEvent, Push
from .executor import Executor, ExecutorResult, ExecutorTask
from .failpoints import AFTER, BEFORE, hit
from .people import gathering
from .records import Artifact, ArtifactState, Outbox, OutboxState, Round
from .store.base import Transaction
from .telemetry.logs import Log
from .telemetry.traces import span

#: an effect that fails for reasons of ours is tried this often before its job fails
MOST_ATTEMPTS = 3
RETRY_S = 2.0

_log = Log("outbox")


class OutboxRunner:
    """Runs pending effects, a few at a time, in the order they came."""

    def __init__(self, engine: Engine, executor: Executor, *, at_once: int = 2) -> None:
        self._engine, self._executor, self._at_once = engine, executor, at_once
        self._own = engine.links.coordinator
        self._running: dict[str, asyncio.Task[None]] = {}
        #: wait for their next try
        self._resting: set[str] = set()
        #: how often an effect's result could not be recorded
        self._unrecorded: Counter[str] = Counter()

    async def run(self) -> None:
        """Starts effects as they are committed; picks up what a crash left. Ends by cancellation."""
        try:
            while True:
                self._engine.effects_pending.clear()
                for effect in await self._look():
                    task = asyncio.create_task(self._carry_out(effect))
                    self._running[effect.id] = task
                    task.add_done_callback(functools.partial(self._forget, effect.id))
                await self._engine.effects_pending.wait()
        finally:
            for task in list(self._running.values()):
                task.cancel()

    async def _look(self) -> list[Outbox]:
        """What to carry out now. The database may be away: then it is looked at again, and this loop lives on."""
        try:
            return await self._take()
        except Exception as error:
            _log.warning("effects.unseen", error=error)
            asyncio.get_running_loop().call_later(RETRY_S, self._engine.effects_pending.set)
            return []

    async def _take(self) -> list[Outbox]:
        """As many as there is room for; among several coordinators they are claimed first."""
        room = self._at_once - len(self._running)
        if room <= 0:
            return []
        known, store = {*self._running, *self._resting}, self._engine.store
        if not self._own:
            return [one for one in await store.read(_pending) if one.id not in known][:room]
        now_ms = self._engine.clock.now_ms()

        def claimable(tx: Transaction) -> list[Outbox]:
            return _claimable(tx, self._own, known, now_ms)[:room]

        def claim(tx: Transaction) -> list[Outbox]:
            claimed = [replace(one, holder=self._own) for one in claimable(tx)]
            for one in claimed:
                tx.put(one)
            return claimed

        return await store.write(claim) if await store.read(claimable) else []

    def _forget(self, name: str, _: asyncio.Task[None]) -> None:
        self._running.pop(name, None)
        # there is room for another
        self._engine.effects_pending.set()

    def _rest(self, name: str) -> None:
        """Keeps an effect from being taken up again at once."""
        self._resting.add(name)
        asyncio.get_running_loop().call_later(RETRY_S, self._wake, name)

    def _wake(self, name: str) -> None:
        self._resting.discard(name)
        self._engine.effects_pending.set()

    async def _carry_out(self, effect: Outbox) -> None:
        try:
            with span("outbox.effect", kind=effect.kind, attempts=effect.attempts):
                await self._execute(effect)
        except asyncio.CancelledError:
            raise
        except Unreachable as error:
            # the database is away, which says nothing of the effect: it is carried out again however long that takes
            _log.warning("effect.waits", effect=effect.id, attempts=effect.attempts, error=error)
            self._rest(effect.id)
        except Exception as error:
            # the database refused, or what came of the effect fits nowhere: look again, but not for ever
            _log.error("effect.unrecorded", effect=effect.id)
            await self._fail_later(effect, error)

    async def _fail_later(self, effect: Outbox, error: Exception) -> None:
        """A result that can't be recorded after several tries ends its job, which gets its money back."""
        self._unrecorded[effect.id] += 1
        if self._unrecorded[effect.id] >= MOST_ATTEMPTS:
            sentence = "The coordinator could not go on with the result of its own phase."
            why = Why(code="executor.unrecorded", sentence=sentence, evidence={"error": f"{error}"[:300]})
            try:
                await self._execute(effect, why)
                return
            except Exception:
                _log.error("effect.lost", effect=effect.id)
        self._rest(effect.id)

    async def _execute(self, effect: Outbox, failed: Why | None = None) -> None:
        """Runs the effect, unless it is known to have failed, and reports."""
        payload = json.loads(effect.payload_json)
        hit("effect:execute", BEFORE)
        outcome = failed or await self._attempt(effect, payload)
        hit("effect:execute", AFTER)
        if outcome is None:
            return
        world = self._engine.world()

        def report(tx: Transaction) -> list[Push]:
            current = tx.get(Outbox, effect.id)
            if current is None or current.state is OutboxState.DONE:
                return []
            tx.put(replace(current, state=OutboxState.DONE))
            event = _event(payload["phase"], outcome)
            if isinstance(outcome, ExecutorResult):
                _own(tx, outcome, world.now_ms)
            key = payload["job_id"], payload["stage"], payload["round"]
            round_ = found(tx.get(Round, *key), "round", effect.id)
            return advance(tx, slice_of_round(tx, round_), event, world)

        self._engine.after_commit(await self._engine.store.write(report))

    async def _attempt(self, effect: Outbox, payload: dict[str, str]) -> ExecutorResult | Why | None:
        """The result, the reason why it can't be had, or None when it is to be tried again."""
        task = ExecutorTask(
            texts=await self._engine.store.read(lambda tx: _texts(tx, payload)),
            id=effect.id,
            phase=payload["phase"],
            recipe=payload["recipe"],
            order_json=payload["order_json"],
            inputs=json.loads(json.dumps(payload["inputs"])),
            seed=bytes.fromhex(payload["seed"]),
        )
        try:
            with (
                self._engine.instruments.phase(task.phase),
                span("executor.phase", phase=task.phase),
            ):
                return await self._executor.run(task)
        except Unreachable as error:
            # what it reads or writes is out of reach, however long that lasts
            _log.warning("effect.waits", effect=effect.id, attempts=effect.attempts, error=error)
            await self._note(effect, error.why, failures=0)
            return None
        except Internal as error:
            _log.warning("effect.failed", effect=effect.id, attempts=effect.attempts, error=error)
            if effect.attempts + 1 >= MOST_ATTEMPTS:
                return error.why
            await self._note(effect, error.why, failures=1)
            return None
        except ShardworkError as error:
            return error.why

    async def _note(self, effect: Outbox, why: Why, *, failures: int) -> None:
        """Keeps why the effect is to be tried again, and after how many failures of its own."""

        def note(tx: Transaction) -> None:
            current = tx.get(Outbox, effect.id)
            # whoever thought that this coordinator was dead may have carried it out, or be about it
            if current is not None and (current.state, current.holder) == (OutboxState.PENDING, effect.holder):
                tx.put(replace(current, attempts=current.attempts + failures, why_json=why.to_json()))

        await self._engine.store.write(note)
        self._rest(effect.id)


def _texts(tx: Transaction, payload: dict[str, str]) -> dict[str, dict[str, str]]:
    """What people said, for the phase that makes rows of it."""
    if payload["phase"] != "join" or recipe(payload["recipe"]).stage_type is not StageType.PEOPLE:
        return {}
    return {"votes": {gathering.FILE: gathering.votes_file(tx, payload["job_id"], payload["stage"])}}


def _pending(tx: Transaction) -> list[Outbox]:
    return tx.find(Outbox, state=OutboxState.PENDING, order="created_ms", limit=100)


def _claimable(tx: Transaction, own: str, known: Collection[str], now_ms: int) -> list[Outbox]:
    """Nobody's, ours, or a dead coordinator's."""
    pending = [one for one in _pending(tx) if one.id not in known]
    others = living(tx, now_ms).keys() - {own}
    return [one for one in pending if one.holder not in others]


def _event(phase: str, outcome: ExecutorResult | Why) -> MachineEvent:
    if isinstance(outcome, Why):
        return ExecutorFailed(phase=phase, why=outcome)
    outputs = {name: output.artifact_id for name, output in outcome.outputs.items()}
    return ExecutorFinished(phase=phase, outputs=outputs, metrics=dict(outcome.metrics))


def _own(tx: Transaction, result: ExecutorResult, now_ms: int) -> None:
    """The house owns what its executor made; leases and finished jobs grant it on."""
    for output in result.outputs.values():
        # also when it is known: a sweep may be about to take the row of an earlier job's equal content
        tx.put(
            Artifact(
                id=output.artifact_id,
                owner=HOUSE,
                purpose="executor",
                state=ArtifactState.STORED,
                bytes=output.bytes,
                leaves=output.leaves,
                created_ms=now_ms,
            )
        )
