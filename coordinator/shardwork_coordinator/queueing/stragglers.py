"""Stragglers: running shards of which a second copy elsewhere would be done clearly sooner.

Predicted from progress, from what each worker's record says of its speed, and from the shard's siblings. Pure but for
reading records (`speeds_of`). Called by the sweeper.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection
from dataclasses import dataclass

from shardwork.why import Why

from ..events import Slice, World
from ..machine.states import ENDED, LIVE
from ..records import JobState, Purpose, Replica, ReplicaState, Shard, ShardState
from ..settings import Settings
from ..store.base import Transaction
from .history import history_of

#: progress that says something: for a prediction, and as a measure for siblings
LEAST_PROGRESS, TELLING_PROGRESS = 0.02, 0.2
#: a shard gets a copy after so many times the factor, whatever its worker says of its progress
PATIENCE = 2


@dataclass(slots=True)
class Speeds:
    """Work units a second by worker, read when first asked; 0 where nothing is known."""

    tx: Transaction
    #: of the fastest worker that is idle
    idle: int
    known: dict[str, int]

    def of(self, worker: str) -> int:
        if worker not in self.known:
            self.known[worker] = history_of(self.tx, worker).units_per_s
        return self.known[worker]


def speeds_of(tx: Transaction, idle: Collection[str]) -> Speeds:
    known = {worker: history_of(tx, worker).units_per_s for worker in idle}
    return Speeds(tx, max(known.values(), default=0), known)


def stragglers(
    state: Slice, world: World, settings: Settings, speeds: Speeds, since_ms: int = 0
) -> list[tuple[Shard, Why]]:
    """Shards worth a second copy, slowest first: predicted to need `backup_factor` times what is typical.

    Typical is the siblings' median, or, where there are none, what the fastest idle worker would need. `since_ms`: when
    this coordinator started; the time in which it was away is nobody's slowness.
    """
    ready = any(one.state is ReplicaState.READY for one in state.replicas)
    if ready or state.job.state is not JobState.RUNNING:
        return []
    rates = _rates(state, world, since_ms)
    found: list[tuple[float, Shard, Why]] = []
    for replica in state.replicas:
        shard = state.shard(replica.shard_id)
        elapsed = (world.now_ms - max(replica.granted_ms, since_ms)) / 1000
        if replica.state not in LIVE or shard.state is ShardState.DONE or elapsed < settings.backup_min_s:
            continue
        if any(one.purpose is Purpose.BACKUP and one.state not in ENDED for one in state.replicas_of(shard.id)):
            continue
        typical = _typical(shard, rates, speeds)
        if typical is None:
            continue
        predicted = _predicted(replica, shard, elapsed, speeds)
        # a worker that says "nearly done" for long is not believed for ever
        overdue = elapsed > PATIENCE * settings.backup_factor * typical
        elsewhere = max(typical, _seconds(shard, speeds.idle) or 0.0)
        if predicted > settings.backup_factor * typical and (predicted - elapsed > elsewhere or overdue):
            found.append((predicted, shard, _why(replica, predicted, typical)))
    return [(shard, why) for _, shard, why in sorted(found, key=lambda one: -one[0])]


def _rates(state: Slice, world: World, since_ms: int) -> dict[str, float]:
    """Shard -> seconds that it took, or will take as its progress tells; per work unit where shards have a size."""
    found: dict[str, float] = {}
    for replica in state.replicas:
        shard = state.shard(replica.shard_id)
        seconds: float | None = None
        if shard.state is ShardState.DONE and replica.number == shard.canonical:
            seconds = max(shard.done_ms - replica.granted_ms, 1) / 1000
        elif replica.state in LIVE and replica.progress >= TELLING_PROGRESS and shard.state is not ShardState.DONE:
            seconds = (world.now_ms - max(replica.granted_ms, since_ms)) / 1000 / replica.progress
        if seconds is not None:
            rate = seconds / max(shard.work_units, 1)
            found[shard.id] = min(rate, found.get(shard.id, rate))
    return found


def _typical(shard: Shard, rates: dict[str, float], speeds: Speeds) -> float | None:
    others = [rate for name, rate in rates.items() if name != shard.id]
    if others:
        return statistics.median(others) * max(shard.work_units, 1)
    return _seconds(shard, speeds.idle)


def _predicted(replica: Replica, shard: Shard, elapsed: float, speeds: Speeds) -> float:
    """Seconds from grant to result. Who shows nothing is believed to be on the way for as long as the worker's record
    allows, and then to need as long again."""
    if replica.progress >= LEAST_PROGRESS:
        return elapsed / replica.progress
    usual = _seconds(shard, speeds.of(replica.worker_id))
    return usual if usual is not None and usual > elapsed else elapsed * 2


def _seconds(shard: Shard, units_per_s: int) -> float | None:
    return shard.work_units / units_per_s if units_per_s and shard.work_units else None


def _why(replica: Replica, predicted: float, typical: float) -> Why:
    return Why(
        code="shard.straggler",
        sentence=f"worker {replica.worker_id} would need {predicted:.0f} s, others need about {typical:.0f} s.",
        evidence={"worker": replica.worker_id, "progress": f"{replica.progress:.2f}"},
        next_step="Nothing to do: whichever copy is valid first counts, and both are paid.",
    )
