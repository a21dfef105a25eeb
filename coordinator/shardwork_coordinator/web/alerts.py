"""Alerts: what an operator should look at now, worst first, each with the page that tells more. From one read.

The same conditions as the alert rules in `deploy/`, for whoever has no Prometheus. Used by `live`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ..links import Presence
from ..records import (
    Job,
    JobState,
    Outbox,
    OutboxState,
    Party,
    Payout,
    PayoutState,
    Replica,
    ReplicaState,
    Standing,
)
from ..store.base import Transaction

#: ready work that nobody took for so long
OLD_QUEUE_MS = 10 * 60_000
#: a payment whose outcome is not known for so long
OLD_PAYMENT_MS = 10 * 60_000
#: tries at an effect after which somebody should look
MANY_ATTEMPTS = 3
LEAST_FREE_BYTES = 2 << 30


class Severity(StrEnum):
    BAD = "bad"
    WARN = "warn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    severity: Severity
    sentence: str
    next_step: str
    #: the page that tells more
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the store does not know."""

    now_ms: int
    links: Sequence[Presence]
    balanced: bool
    #: of the data folder's disk; None where nobody looks
    free_bytes: int | None


def alerts(tx: Transaction, facts: Facts) -> list[Alert]:
    """Everything that needs a person; empty on a good day."""
    checks: tuple[Callable[[Transaction, Facts], Alert | None], ...] = (
        _books,
        _disk,
        _nobody,
        _queue,
        _effects,
        _payments,
        _paused,
        _standing,
    )
    found = [alert for check in checks if (alert := check(tx, facts)) is not None]
    return sorted(found, key=lambda alert: alert.severity is not Severity.BAD)


def queue_age_ms(tx: Transaction, now_ms: int) -> int:
    """How long the oldest ready replica of a running job waits; 0 when nothing does."""
    running = sorted(tx.count(Job, "id", state=JobState.RUNNING))
    if not running:
        return 0
    oldest = tx.pick(Replica, ("created_ms",), state=ReplicaState.READY, job_id=running, order="created_ms", limit=1)
    return max(now_ms - oldest[0][0], 0) if oldest else 0


def _books(tx: Transaction, facts: Facts) -> Alert | None:
    if facts.balanced:
        return None
    return Alert(
        severity=Severity.BAD,
        sentence="The books do not balance.",
        next_step="Close intake, and see which accounts differ before anything else is paid.",
        path="/money",
    )


def _disk(tx: Transaction, facts: Facts) -> Alert | None:
    if facts.free_bytes is None or facts.free_bytes >= LEAST_FREE_BYTES:
        return None
    return Alert(
        severity=Severity.BAD,
        sentence=f"The disk of the data folder has {facts.free_bytes / 1e9:.1f} GB left.",
        next_step="Free some, or keep results for fewer days; uploads and jobs are refused when it is full.",
        path="/artifacts",
    )


def _nobody(tx: Transaction, facts: Facts) -> Alert | None:
    running = tx.count(Job, "state", state=JobState.RUNNING).get("running", 0)
    if not running or any(link.takes_work for link in facts.links):
        return None
    nobody = "no attached worker takes work" if facts.links else "no worker is attached"
    return Alert(
        severity=Severity.BAD,
        sentence=f"{running} {'job runs' if running == 1 else 'jobs run'} and {nobody}.",
        next_step="Start one, or see why the attached ones are paused.",
        path="/workers",
    )


def _queue(tx: Transaction, facts: Facts) -> Alert | None:
    age_ms = queue_age_ms(tx, facts.now_ms)
    if age_ms < OLD_QUEUE_MS or not any(link.takes_work for link in facts.links):
        return None
    return Alert(
        severity=Severity.WARN,
        sentence=f"The oldest waiting shard has been ready for {age_ms // 60_000} min.",
        next_step="Its job says why nobody takes it.",
        path="/jobs?state=waiting",
    )


def _effects(tx: Transaction, facts: Facts) -> Alert | None:
    tries = tx.pick(Outbox, ("attempts",), state=OutboxState.PENDING)
    stuck = sum(1 for (attempts,) in tries if attempts >= MANY_ATTEMPTS)
    if not stuck:
        return None
    return Alert(
        severity=Severity.WARN,
        sentence=f"{stuck} {'step' if stuck == 1 else 'steps'} of the coordinator's own failed {MANY_ATTEMPTS} times.",
        next_step="The job's page tells the last reason; it is tried again by itself.",
        path="/jobs?state=retrying",
    )


def _payments(tx: Transaction, facts: Facts) -> Alert | None:
    open_ = [PayoutState.UNKNOWN, PayoutState.SENT, PayoutState.BOUND]
    old = [
        name
        for name, updated_ms in tx.pick(Payout, ("id", "updated_ms"), state=open_)
        if facts.now_ms - updated_ms > OLD_PAYMENT_MS
    ]
    if not old:
        return None
    return Alert(
        severity=Severity.WARN,
        sentence=f"{len(old)} {'payment is' if len(old) == 1 else 'payments are'} on the way for over "
        f"{OLD_PAYMENT_MS // 60_000} min.",
        next_step="Their outcome is asked for again; nothing is sent twice.",
        path="/money/payments?state=open",
    )


def _paused(tx: Transaction, facts: Facts) -> Alert | None:
    paused = tx.count(Job, "state", state=JobState.PAUSED).get("paused", 0)
    if not paused:
        return None
    return Alert(
        severity=Severity.WARN,
        sentence=f"{paused} {'job is' if paused == 1 else 'jobs are'} paused.",
        next_step="Some wait for their owner, some for you: each says for what.",
        path="/jobs?state=paused",
    )


def _standing(tx: Transaction, facts: Facts) -> Alert | None:
    held = tx.count(Party, "standing", standing=Standing.QUARANTINED).get("quarantined", 0)
    if not held:
        return None
    return Alert(
        severity=Severity.WARN,
        sentence=f"{held} {'worker is' if held == 1 else 'workers are'} in quarantine.",
        next_step="Decide: restore or ban.",
        path="/workers?state=quarantined",
    )
