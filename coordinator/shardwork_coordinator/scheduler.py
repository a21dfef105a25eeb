"""Which worker gets which replica: a pure matching of what is ready with who is idle, and why something waits.

No I/O. Called by `granting` inside its transaction, and by `views` to say why a job waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardwork.why import Why


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyReplica:
    shard_id: str
    number: int
    recipe: str
    #: jobs in the order they came, then shards in order
    rank: tuple[int, int, int]
    memory_bytes: int
    price_msat: int
    reference_only: bool
    needs_training: bool
    #: workers that must not get it: they hold or made another copy of the shard
    excluded: frozenset[str] = frozenset()
    #: workers that failed at it: only when nobody else is there. Once one has, those that never earned anything here
    #: come behind those that have, or a handful of fresh keys could use up a shard's attempts
    shunned: frozenset[str] = frozenset()
    #: keys must agree on its result: those that have earned something here are asked first
    agreed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """An attached worker."""

    id: str
    memory_bytes: int
    minimum_msat: int
    reference: bool
    can_train: bool
    recipes: frozenset[str]
    #: it was paid for a result before, or the operator vouches for it
    proven: bool = False
    #: attached, and takes nothing for now
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    replica: ReadyReplica
    worker: Worker


def match(ready: Sequence[ReadyReplica], idle: Sequence[Worker], everyone: Sequence[Worker]) -> list[Match]:
    """Pairs each idle worker with at most one replica, oldest work first. `everyone` also counts the busy ones."""
    free = list(idle)
    found: list[Match] = []
    for replica in sorted(ready, key=lambda one: one.rank):
        worst = _best_standing(replica, everyone) if replica.shunned else 2
        fitting = [one for one in free if refusal(replica, one) is None and _standing(replica, one) <= worst]
        if fitting:
            worker = min(fitting, key=lambda one: _standing(replica, one))
            free.remove(worker)
            found.append(Match(replica, worker))
        if not free:
            break
    return found


def refusal(replica: ReadyReplica, worker: Worker) -> str | None:
    """Why this worker can't take this replica, as a clause, or None."""
    if worker.paused:
        return "is paused"
    if worker.id in replica.excluded:
        return "already holds or made a copy of this shard"
    if replica.reference_only and not worker.reference:
        return "is not a reference worker"
    if replica.needs_training and not worker.can_train:
        return "can't train (no torch)"
    if replica.recipe not in worker.recipes:
        return f"does not run recipe {replica.recipe!r}"
    if worker.memory_bytes and replica.memory_bytes > worker.memory_bytes:
        return f"has too little memory ({worker.memory_bytes:,} of {replica.memory_bytes:,} bytes)"
    if worker.minimum_msat > replica.price_msat:
        return f"asks for at least {worker.minimum_msat:,} msat a shard (the price is {replica.price_msat:,})"
    return None


def why_waiting(replica: ReadyReplica, everyone: Sequence[Worker]) -> Why:
    """Why nobody has this replica yet."""
    if not everyone:
        return Why(
            code="shard.no_workers",
            sentence="No worker is attached.",
            next_step="Start one with `shardwork-worker start JOIN`, or wait for volunteers.",
        )
    if all(worker.paused for worker in everyone):
        return Why(
            code="shard.workers_paused",
            sentence=f"{'The one attached worker is' if len(everyone) == 1 else 'All attached workers are'} paused.",
            evidence={"paused": str(len(everyone))},
            next_step="Whoever runs one can `shardwork-worker resume` it; its `status` says why it paused. Or wait.",
        )
    reasons = {worker.id: refusal(replica, worker) for worker in everyone}
    if all(reasons.values()):
        return Why(
            code="shard.no_fitting_worker",
            sentence=f"None of the {len(everyone)} attached workers can take it.",
            evidence={worker: reason or "" for worker, reason in list(reasons.items())[:5]},
            next_step="Wait for another worker, or make the shards smaller.",
        )
    return Why(
        code="shard.workers_busy",
        sentence="Every worker that could take it is busy.",
        evidence={"fitting": str(sum(1 for reason in reasons.values() if reason is None))},
    )


def _standing(replica: ReadyReplica, worker: Worker) -> int:
    """Whom a replica is given to first, 0 before 1 before 2."""
    if worker.id in replica.shunned:
        return 2
    is_picky = replica.agreed or bool(replica.shunned)
    return 1 if is_picky and not worker.proven else 0


def _best_standing(replica: ReadyReplica, everyone: Sequence[Worker]) -> int:
    """The best standing among those who could take it, busy or not: the others wait for them."""
    return min((_standing(replica, one) for one in everyone if refusal(replica, one) is None), default=2)
