"""The payment back-end's Protocol: five calls, and answers that never pretend to know.

A back-end talks to one Lightning wallet or node, or simulates one. It owns no row and no account: `deposits` and
`payouts` decide what an answer means. A timeout, a dropped connection or a 5xx is UNKNOWN, never FAILED.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class InvoiceState(StrEnum):
    """Of an invoice that we made."""

    OPEN = "open"
    SETTLED = "settled"
    #: expired or cancelled, and not paid as far as the node knows; a payment in flight may still settle it
    FAILED = "failed"
    UNKNOWN = "unknown"


class PaymentState(StrEnum):
    """Of a payment that we send."""

    #: in flight, perhaps for weeks
    PENDING = "pending"
    SETTLED = "settled"
    #: the node is certain that it did not and will not pay
    FAILED = "failed"
    UNKNOWN = "unknown"
    #: the node answered that it has no such payment; only `payment_status` says so
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    text: str
    #: 64 hex digits: SHA-256 of the preimage
    payment_hash: str
    #: read from the invoice itself, not from who gave it
    msat: int
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    state: PaymentState
    #: 64 hex digits once settled: the receipt
    preimage: str = ""
    #: routing fee on top of the amount, once settled
    fee_msat: int = 0
    #: the node's words when it failed
    reason: str = ""


class Payments(Protocol):
    @property
    def asset(self) -> str:
        """ "simulated" or "bitcoin": the ledger's external account; one never becomes the other."""
        ...

    async def create_invoice(self, msat: int, memo: str, idempotency_key: str) -> Invoice:
        """The same key gives the same invoice again. Raises Unreachable "payments.unreachable"."""
        ...

    async def invoice_status(self, payment_hash: str) -> InvoiceState: ...

    async def pay(self, invoice: str, fee_limit_msat: int) -> Payment:
        """Sends. The node must refuse a second payment of one hash. What went wrong unseen is UNKNOWN, not raised."""
        ...

    async def payment_status(self, payment_hash: str) -> Payment: ...

    async def resolve_address(self, address: str, msat: int) -> Invoice:
        """An invoice from a Lightning address. Raises InvalidInput "payments.bad_address" for one that can't work,
        Unreachable "payments.unreachable" for one that may work later."""
        ...


def proves(preimage: str, payment_hash: str) -> bool:
    """Whether this preimage is the receipt for that hash."""
    try:
        return hashlib.sha256(bytes.fromhex(preimage)).hexdigest() == payment_hash and len(preimage) == 64
    except ValueError:
        return False
