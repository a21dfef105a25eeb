"""Movements: what the pure core asks of the ledger, as data. `ledger.apply` carries them out in the same transaction.

Pure. Account names live here too, so that one place knows how an account is called.
"""

from __future__ import annotations

from dataclasses import dataclass


def user_account(party: str) -> str:
    """Spendable: deposits and refunds in, escrow and withdrawals out."""
    return f"user:{party}"


def worker_account(party: str) -> str:
    """Earned: shard pay in, payouts out."""
    return f"worker:{party}"


def escrow_account(job: str) -> str:
    return f"escrow:{job}"


def round_account(job: str, stage: str, number: int) -> str:
    """Reserve of one round; every lease's pay is held against it before it is offered."""
    return f"round:{job}/{stage}/{number}"


def external_account(asset: str) -> str:
    """Where real (or simulated) sats enter and leave; its balance is minus all that is inside."""
    return f"external:{asset}"


FEES = "house:fees"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Final at once."""

    id: str
    debit: str
    credit: str
    msat: int
    reason: str
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Pending until posted or voided."""

    id: str
    debit: str
    credit: str
    msat: int
    reason: str
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PostHold:
    """Makes the hold final; `msat` may be less than held, the rest is released."""

    hold_id: str
    msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VoidHold:
    hold_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveAll:
    """Moves whatever is available (posted minus held) from one account to another; nothing when that is zero."""

    id: str
    debit: str
    credit: str
    reason: str
    reference: str


Movement = Move | Hold | PostHold | VoidHold | MoveAll
