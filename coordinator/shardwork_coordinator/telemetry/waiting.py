"""Waiting: how long the oldest of each kind waits: work for a worker, rounds for their end, effects, payments.

Alerts ask for the oldest, never for a sum: one stuck payment among a thousand good ones must show. Read by
`web.metrics` in its one transaction; every look is bounded by what is open, not by what ever was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..machine.states import FINAL_ROUND
from ..money.payouts import LIVE as LIVE_PAYOUTS
from ..records import Outbox, OutboxState, Payout, Replica, ReplicaState, Round, RoundState, Stage, StageState
from ..store.base import Transaction

#: newest rounds of a stage that are looked at for one that was kept; after so many rollbacks it has stopped anyway
LAST_ROUNDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Seconds since the oldest began to wait; 0 where nothing waits."""

    queue_s: float
    round_s: float
    checkpoint_s: float
    outbox_s: float
    outbox_attempts: int
    payment_s: float


def waits(tx: Transaction, running: Iterable[str], now_ms: int) -> Waits:
    """`running`: the jobs that run; what a paused one has waits for its owner."""
    jobs = frozenset(running)
    rounds, checkpoints = _progress(tx, jobs)
    effects = tx.find(Outbox, state=OutboxState.PENDING)
    payments = [one.created_ms for one in tx.find(Payout, state=LIVE_PAYOUTS)]
    return Waits(
        queue_s=_age_s(_ready(tx, jobs), now_ms),
        round_s=_age_s(rounds, now_ms),
        checkpoint_s=_age_s(checkpoints, now_ms),
        outbox_s=_age_s([one.created_ms for one in effects], now_ms),
        outbox_attempts=max((one.attempts for one in effects), default=0),
        payment_s=_age_s(payments, now_ms),
    )


def _age_s(moments_ms: list[int], now_ms: int) -> float:
    return max(now_ms - min(moments_ms, default=now_ms), 0) / 1000


def _ready(tx: Transaction, jobs: frozenset[str]) -> list[int]:
    """When each running job's oldest replica came that waits for a worker."""
    found: list[int] = []
    for job in tx.count(Replica, "job_id", state=ReplicaState.READY):
        if job in jobs:
            oldest = tx.find(Replica, state=ReplicaState.READY, job_id=job, order="created_ms", limit=1)
            found += [one.created_ms for one in oldest]
    return found


def _progress(tx: Transaction, jobs: frozenset[str]) -> tuple[list[int], list[int]]:
    """(when open rounds began, when each running stage last kept one)."""
    rounds: list[int] = []
    kept: list[int] = []
    for stage in tx.find(Stage, state=StageState.RUNNING):
        if stage.job_id not in jobs:
            continue
        key = {"job_id": stage.job_id, "stage": stage.name}
        newest = tx.find(Round, **key, order="number", descending=True, limit=LAST_ROUNDS)
        rounds += [one.started_ms for one in newest[:1] if one.state not in FINAL_ROUND]
        merged = [one.ended_ms for one in newest if one.state is RoundState.MERGED]
        if newest:
            kept.append(merged[0] if merged else newest[-1].started_ms)
    return rounds, kept
