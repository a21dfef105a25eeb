"""Which worker gets which replica: a pure matching of what is ready with who is idle, and why something waits.

Whose job goes first is `fairness`. No I/O. Called by `granting` inside its transaction, and by `views` to say why a job
waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from shardwork.recipes.abilities import Ability, lack, without
from shardwork.why import Why

#: prices for work are quoted for so many work units
TERA = 10**12
#: why a worker gets nothing because the operator says so, as clauses; what its owner is told is `queueing.standing`'s
RESTRICTED = {
    "worker.drained_by_operator": "is drained by the operator",
    "worker.quarantined_by_operator": "is in the operator's quarantine",
    "worker.banned_by_operator": "is banned by the operator",
}


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
    work_units: int = 0
    #: artifacts that it reads
    inputs: frozenset[str] = frozenset()
    #: "any", "cpu" or "gpu", as the job asks
    device: str = "any"
    #: what its order takes beside fp32 arithmetic
    needs: frozenset[Ability] = frozenset()


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
    #: asks at least this for 10^12 work units
    minimum_msat_per_tera: int = 0
    #: takes no pay
    donates: bool = False
    #: "cpu", "cuda:0", "mps", and what it says that this device can do
    device: str = ""
    abilities: frozenset[Ability] = frozenset()
    #: artifacts that it says it has: a hint that decides between equals, and nothing else
    holds: frozenset[str] = frozenset()
    #: measured here over its last shards; 0: not known
    units_per_s: int = 0
    idle_since_ms: int = 0
    #: why it gets nothing for a while, as a clause: its last shards all failed
    rests: str = ""
    #: why the operator lets it take nothing
    restricted: Why | None = None


@dataclass(frozen=True, slots=True)
class Match:
    replica: ReadyReplica
    worker: Worker


def match(ready: Sequence[ReadyReplica], idle: Sequence[Worker], everyone: Sequence[Worker]) -> list[Match]:
    """Pairs each idle worker with at most one replica, oldest work first. `everyone` also counts the busy ones."""
    free, left, found = list(idle), list(ready), list[Match]()
    while (pair := pick(left, free, everyone)) is not None:
        free.remove(pair.worker)
        left.remove(pair.replica)
        found.append(pair)
    return found


def pick(ready: Sequence[ReadyReplica], idle: Sequence[Worker], everyone: Sequence[Worker]) -> Match | None:
    """The oldest replica that somebody idle can take, and who of them takes it: first of all who may be trusted with
    it, then who holds most of what it reads, then who waited longest."""
    if not idle:
        return None
    for replica in sorted(ready, key=lambda one: one.rank):
        worst = _best_standing(replica, everyone) if replica.shunned else 2
        fitting = [one for one in idle if refusal(replica, one) is None and _standing(replica, one) <= worst]
        if fitting:
            return Match(replica, min(fitting, key=lambda one: _preference(replica, one)))
    return None


def refusal(replica: ReadyReplica, worker: Worker) -> str | None:
    """Why this worker can't take this replica, as a clause, or None."""
    if worker.restricted:
        return RESTRICTED.get(worker.restricted.code, "is restricted by the operator")
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
    if not _is_on(replica.device, worker.device):
        return f"computes on {worker.device or 'an unknown device'} (the job asks for {replica.device})"
    if missing := replica.needs - worker.abilities:
        return f"can't {lack(missing)}"
    if worker.memory_bytes and replica.memory_bytes > worker.memory_bytes:
        return f"has too little memory ({worker.memory_bytes:,} of {replica.memory_bytes:,} bytes)"
    return worker.rests or _price_refusal(replica, worker)


def _price_refusal(replica: ReadyReplica, worker: Worker) -> str | None:
    if worker.donates:
        return None
    if worker.minimum_msat > replica.price_msat:
        return f"asks for at least {worker.minimum_msat:,} msat a shard (the price is {replica.price_msat:,})"
    if worker.minimum_msat_per_tera * replica.work_units > replica.price_msat * TERA:
        pays = replica.price_msat * TERA // replica.work_units
        return f"asks for at least {worker.minimum_msat_per_tera:,} msat for 10^12 work units (the price is {pays:,})"
    return None


def _is_on(wanted: str, device: str) -> bool:
    """Whether a device is of the kind that a job asks for."""
    return wanted == "any" or (wanted == "cpu") == (device in ("", "cpu"))


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
        return _why_nobody(replica, everyone, {worker: reason or "" for worker, reason in reasons.items()})
    return Why(
        code="shard.workers_busy",
        sentence="Every worker that could take it is busy.",
        evidence={"fitting": str(sum(1 for reason in reasons.values() if reason is None))},
        next_step="It goes to the next of them that is free and when its requester's turn comes; nothing to do.",
    )


def _why_nobody(replica: ReadyReplica, everyone: Sequence[Worker], reasons: dict[str, str]) -> Why:
    """All attached workers refuse: for their price alone where one would take it otherwise."""
    shown = {"attached": str(len(everyone)), **dict(list(reasons.items())[:5])}
    if missing := replica.needs - frozenset().union(*(worker.abilities for worker in everyone)):
        return Why(
            code="shard.no_able_worker",
            sentence=f"No attached worker can {lack(missing)}.",
            evidence=shown,
            next_step=f"Wait for a worker whose device can, or submit the job again with {without(missing)}.",
        )
    if any(not worker.paused and reasons[worker.id] == _price_refusal(replica, worker) for worker in everyone):
        return Why(
            code="shard.price_too_low",
            sentence=f"The attached workers that could take it ask for more than its {replica.price_msat:,} msat.",
            evidence=shown,
            next_step="Wait for a cheaper worker, or ask the operator for another rate card; the price of a running "
            "job never changes.",
        )
    if room := _most_memory(replica, everyone):
        return Why(
            code="shard.too_large",
            sentence="It takes more memory than any attached worker has.",
            evidence={"needed_bytes": f"{replica.memory_bytes:,}", "largest_bytes": f"{room:,}", **shown},
            next_step="Wait for a larger worker, or submit the job again with a smaller model or smaller shards.",
        )
    return Why(
        code="shard.no_fitting_worker",
        sentence="No attached worker can take it.",
        evidence=shown,
        next_step=f"Wait for another worker, or {_other_way(replica, everyone)}.",
    )


def _most_memory(replica: ReadyReplica, everyone: Sequence[Worker]) -> int:
    """Of those that lack nothing but memory; 0: there are none."""
    small = replace(replica, memory_bytes=0)
    return max((one.memory_bytes for one in everyone if refusal(small, one) is None), default=0)


def _other_way(replica: ReadyReplica, everyone: Sequence[Worker]) -> str:
    """What a requester could ask for instead."""
    if not any(_is_on(replica.device, worker.device) for worker in everyone):
        return "submit the job again without schedule.device"
    return "make the shards smaller"


def _preference(replica: ReadyReplica, worker: Worker) -> tuple[int, bool, int, int]:
    """A reference worker comes last where any other would do: what only it may compute would wait for it."""
    is_kept = worker.reference and not replica.reference_only
    return _standing(replica, worker), is_kept, -len(replica.inputs & worker.holds), worker.idle_since_ms


def _standing(replica: ReadyReplica, worker: Worker) -> int:
    """Whom a replica is given to first, 0 before 1 before 2."""
    if worker.id in replica.shunned:
        return 2
    is_picky = replica.agreed or bool(replica.shunned)
    return 1 if is_picky and not worker.proven else 0


def _best_standing(replica: ReadyReplica, everyone: Sequence[Worker]) -> int:
    """The best standing among those who could take it, busy or not: the others wait for them."""
    return min((_standing(replica, one) for one in everyone if refusal(replica, one) is None), default=2)
