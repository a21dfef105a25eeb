"""Dossier: all that is known of one worker, from one read: what it is, how fast, how reliable and why, paid and held.

Owns what is shown and its caps. Called by `dashboard.worker`, and for `worker show --json`.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from shardwork.client.display import figures
from shardwork.why import Why

from ..links import Machine, machine_of
from ..machine.states import LIVE
from ..money.movements import worker_account
from ..money.payouts import PREFIX
from ..queueing import standing
from ..queueing.history import History, history
from ..queueing.reliability import Reliability, attempts_of, reliability
from ..records import Account, Attachment, AuditEntry, Job, Lease, Party, Payout, Replica, ReplicaState, Shard
from ..store.base import Transaction
from .roster import Presences, doing
from .rows import state_of

MOST_PAYOUTS, MOST_DEEDS = 8, 8
#: payments of its key among which its payouts are looked for
MOST_LOOKED = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One lease that ended."""

    lease: str
    job_id: str
    job: str
    phase: str
    state: ReplicaState
    ended_ms: int
    duration_s: float
    paid_msat: int
    donated_msat: int
    why: Why | None
    #: of the reliability score; None: it does not count
    weight: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """A lease that it holds."""

    job_id: str
    job: str
    phase: str
    step: str
    percent: int
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast it was here at one kind of shard, median over its last accepted ones."""

    phase: str
    shards: int
    seconds: float
    tokens_per_s: float
    units_per_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Earnings:
    earned_msat: int
    paid_out_msat: int
    on_the_way_msat: int
    available_msat: int
    #: of the attempts that are shown
    donated_msat: int
    address: str
    #: its account in the ledger; empty: nothing ever moved there
    account: str
    #: each with why it is where it is
    payouts: Sequence[tuple[Payout, Why | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    party: Party
    name: str
    state: str
    doing: str
    seen_ms: int
    is_attached: bool
    #: why it gets nothing, where the operator said so
    why: Why | None
    #: what it says of itself, by heading; empty for one that never came
    capability: Mapping[str, str]
    hands: Sequence[Hand]
    history: History
    paces: Sequence[Pace]
    reliability: Reliability
    attempts: Sequence[Attempt]
    counts: Mapping[str, int]
    earnings: Earnings
    deeds: Sequence[AuditEntry]


def dossier(tx: Transaction, worker_id: str, presences: Presences) -> Dossier:
    """Raises NotFound "worker.not_found"."""
    party = standing.worker(tx, worker_id)
    link = presences.links.get(worker_id)
    held = tx.find(Replica, worker_id=worker_id, state=[str(state) for state in LIVE])
    attempts = attempts_of(tx, worker_id)
    score = reliability(attempts)
    ids = sorted({one.job_id for one in attempts} | {one.job_id for one in held})
    jobs: dict[str, str] = dict(tx.pick(Job, ("id", "name"), id=ids))
    state = state_of(link, is_busy=bool(held), silent_ms=presences.silent_ms)
    restriction = standing.of(party)
    said = tx.get(Attachment, worker_id)
    return Dossier(
        party=party,
        name=party.name or party.id,
        state=state,
        doing=doing(state, held[0] if held else None, jobs),
        seen_ms=link.last_seen_ms if link else party.last_seen_ms,
        is_attached=link is not None,
        why=restriction.why if restriction else None,
        capability=_told(machine_of(link, said)) if link or said else {},
        hands=[_hand(one, jobs) for one in held],
        history=history(attempts[:20]),
        paces=_paces(tx, attempts),
        reliability=score,
        attempts=[_attempt(one, jobs, score) for one in attempts],
        counts=tx.count(Lease, "state", worker_id=worker_id),
        earnings=_earnings(tx, party, attempts),
        deeds=tx.find(AuditEntry, subject=worker_id, order="id", descending=True, limit=MOST_DEEDS),
    )


def dossier_json(tx: Transaction, party: Party) -> dict[str, Any]:
    """What the store knows of it, which is all but who is attached now."""
    attempts = attempts_of(tx, party.id)
    score, money = reliability(attempts), _earnings(tx, party, attempts)
    return {
        "id": party.id,
        "name": party.name,
        "standing": str(party.standing),
        "reference": party.reference,
        "created_unix_ms": party.created_ms,
        "last_seen_unix_ms": party.last_seen_ms,
        "attempts": dict(sorted(tx.count(Lease, "state", worker_id=party.id).items())),
        "reliability": {"score": score.score, "accepted": score.accepted, "counted": score.counted},
        "paces": [asdict(one) for one in _paces(tx, attempts)],
        "earnings": {**asdict(replace(money, payouts=())), "payouts": [_payout(*one) for one in money.payouts]},
    }


def _payout(payout: Payout, why: Why | None) -> dict[str, Any]:
    return {
        "id": payout.id,
        "msat": payout.msat,
        "state": str(payout.state),
        "address": payout.address,
        "payment_hash": payout.payment_hash,
        "updated_unix_ms": payout.updated_ms,
        "why": json.loads(why.to_json()) if why else None,
    }


def _told(said: Machine) -> dict[str, str]:
    return {
        "Device": said.device_name or said.device or "unknown",
        "Kind": said.device or "cpu",
        "Memory for a shard": figures.size(said.memory_bytes) if said.memory_bytes else "not said",
        "Execution class": said.execution_class or "not said",
        "Threads": str(said.threads) if said.threads else "not said",
        "Abilities": ", ".join(said.abilities) or "fp32 only",
        "Sandbox": said.sandbox or "not said",
        "Trains": f"yes, torch {said.torch_version}" if said.can_train else "no (no torch)",
        "Job kinds": ", ".join(said.recipes) or "none",
        "Free disk": figures.size(said.disk_free_bytes) if said.disk_free_bytes else "not said",
        "Its own benchmark": ", ".join(f"{name}: {speed:,.0f} tokens/s" for name, speed in said.speeds) or "not said",
    }


def _hand(replica: Replica, jobs: Mapping[str, str]) -> Hand:
    return Hand(
        job_id=replica.job_id,
        job=jobs.get(replica.job_id, replica.job_id),
        phase=replica.phase,
        step=replica.step,
        percent=int(100 * replica.progress),
        since_ms=replica.granted_ms,
    )


def _attempt(lease: Lease, jobs: Mapping[str, str], score: Reliability) -> Attempt:
    return Attempt(
        lease=lease.id,
        job_id=lease.job_id,
        job=jobs.get(lease.job_id, lease.job_id),
        phase=lease.phase,
        state=lease.state,
        ended_ms=lease.ended_ms,
        duration_s=_seconds(lease),
        paid_msat=lease.paid_msat,
        donated_msat=lease.donated_msat,
        why=_why(lease.why_json),
        weight=score.weights.get(lease.id),
    )


def _why(text: str) -> Why | None:
    return Why.from_json(text) if text else None


def _seconds(lease: Lease) -> float:
    return max(lease.ended_ms - lease.granted_ms, 1) / 1000


def _paces(tx: Transaction, attempts: Sequence[Lease]) -> list[Pace]:
    """From grant to verdict, by phase, those with most shards first."""
    accepted = [one for one in attempts if one.state is ReplicaState.ACCEPTED]
    tokens = dict(tx.pick(Shard, ("id", "tokens"), id=sorted({one.shard_id for one in accepted}))) if accepted else {}
    by_phase: dict[str, list[Lease]] = defaultdict(list)
    for one in accepted:
        by_phase[one.phase].append(one)
    paces = [
        Pace(
            phase=phase,
            shards=len(leases),
            seconds=statistics.median(_seconds(one) for one in leases),
            tokens_per_s=statistics.median(tokens.get(one.shard_id, 0) / _seconds(one) for one in leases),
            units_per_s=int(statistics.median(one.work_units / _seconds(one) for one in leases)),
        )
        for phase, leases in by_phase.items()
    ]
    return sorted(paces, key=lambda one: (-one.shards, one.phase))


def _earnings(tx: Transaction, party: Party, attempts: Sequence[Lease]) -> Earnings:
    known = tx.get(Account, worker_account(party.id))
    account = known or Account(id=worker_account(party.id))
    # the same key may be a requester's, who withdraws from another account
    latest = tx.find(Payout, owner=party.id, order="created_ms", descending=True, limit=MOST_LOOKED)
    return Earnings(
        earned_msat=account.credits_posted,
        paid_out_msat=account.debits_posted,
        on_the_way_msat=account.debits_pending,
        available_msat=account.credits_posted - account.debits_posted - account.debits_pending,
        donated_msat=sum(one.donated_msat for one in attempts),
        address=party.payout_address,
        account=account.id if known else "",
        payouts=[(one, _why(one.why_json)) for one in latest if one.id.startswith(PREFIX)][:MOST_PAYOUTS],
    )
