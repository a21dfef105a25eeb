"""Rows of money: accounts and transfers, deposits and payouts; `ledger` alone writes the first two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Record
from .states import DepositState, PayoutState, TransferKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Account(Record):
    """Four numbers. `floor` accounts may not fall below zero; only `external:*` and `house:*` float."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    id: str
    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(Record):
    """One movement from one account (debit) to one other (credit); append-only, caller's id."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    #: POST and VOID name the pending transfer here; a pending transfer resolves at most once
    UNIQUE: ClassVar[tuple[tuple[str, ...], ...]] = (("resolves",), ("sequence",))
    id: str
    #: assigned by the ledger, strictly rising
    sequence: int
    kind: TransferKind
    debit: str
    credit: str
    msat: int
    #: id of the pending transfer that a POST or VOID resolves; None otherwise
    resolves: str | None = None
    #: deposit, escrow, reserve, shard, fee, release, refund, payout
    reason: str
    #: job, shard or payout it belongs to
    reference: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositRow(Record):
    KEY: ClassVar[tuple[str, ...]] = ("id",)
    UNIQUE: ClassVar[tuple[tuple[str, ...], ...]] = (("payment_hash",), ("owner", "idempotency_key"))
    id: str
    owner: str
    idempotency_key: str
    msat: int
    invoice: str
    payment_hash: str
    state: DepositState
    created_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Payout(Record):
    KEY: ClassVar[tuple[str, ...]] = ("id",)
    UNIQUE: ClassVar[tuple[tuple[str, ...], ...]] = (("payment_hash",),)
    id: str
    owner: str
    address: str
    msat: int
    fee_limit_msat: int
    state: PayoutState
    invoice: str = ""
    #: None until an invoice is bound
    payment_hash: str | None = None
    preimage: str = ""
    attempts: int = 0
    why_json: str = ""
    created_ms: int
    updated_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentLine(Record):
    """One line of the simulated payment node's journal, where coordinators share one."""

    KEY: ClassVar[tuple[str, ...]] = ("number",)
    number: int
    line: str
