"""Reliability: one figure from a worker's last attempts, and what each of them counts in it.

    score = sum of the weights of accepted attempts / sum of the weights of all that count
    weight of the n-th newest that counts = 0.96^n, of the last 50 attempts

So a failure among the newest costs some 5 %, and counts half after 17 further attempts. What ended through no fault of
the worker's (its owner paused it, the job ended, the operator took it out of service) does not count. Shown to the
operator; who gets what is decided by `scheduler` and `history`, not by this figure. Pure, but for the reading of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..records import Lease, ReplicaState
from ..store.base import Transaction
from .history import is_blameless

#: attempts that are looked back at, and how much each weighs beside the one after it
LOOK_BACK = 50
DECAY = 0.96
#: fewer say little
FEW = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    #: 0 to 1; None while nothing counts
    score: float | None
    counted: int
    accepted: int
    #: attempt -> its share of the score, 0 to 1; those that do not count are absent
    weights: Mapping[str, float]

    @property
    def is_early(self) -> bool:
        return self.counted < FEW


def attempts_of(tx: Transaction, worker: str, limit: int = LOOK_BACK) -> list[Lease]:
    """Its attempts that ended, newest first."""
    found = tx.find(Lease, worker_id=worker, order="ended_ms", descending=True, limit=limit)
    return [one for one in found if one.ended_ms]


def reliability(attempts: Sequence[Lease]) -> Reliability:
    """From attempts that ended, newest first."""
    judged = [one for one in attempts[:LOOK_BACK] if one.state is ReplicaState.ACCEPTED or not is_blameless(one)]
    weights = {one.id: DECAY**number for number, one in enumerate(judged)}
    total = sum(weights.values())
    good = [one for one in judged if one.state is ReplicaState.ACCEPTED]
    return Reliability(
        score=sum(weights[one.id] for one in good) / total if total else None,
        counted=len(judged),
        accepted=len(good),
        weights={name: weight / total for name, weight in weights.items()},
    )
