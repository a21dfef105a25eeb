"""Deposits: sats on their way in. An invoice is made first, its row second, and the ledger moves once it is settled.

Owns the deposit rows; the ledger owns the money and `payments` the invoice. Called by `rpc.wallet` and the sweeper.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from shardwork.clock import Clock
from shardwork.errors import Conflict, Internal, InvalidInput, NotFound
from shardwork.money import MSAT_PER_SAT, show

from ..payments.base import InvoiceState, Payments
from ..records import DepositRow, DepositState
from ..store.base import Store, Transaction
from ..telemetry.logs import Log
from . import ledger
from .movements import Move, external_account, user_account

MIN_MSAT = MSAT_PER_SAT
#: ten bitcoin, far above any job, far below the integer limit
MAX_MSAT = 10 * 100_000_000 * MSAT_PER_SAT
KEY_MAX_CHARACTERS = 128

log = Log("deposits")


async def create(
    store: Store, payments: Payments, clock: Clock, *, owner: str, msat: int, idempotency_key: str
) -> DepositRow:
    """A deposit with its invoice; the same owner and key give the same one again, settled if it is paid meanwhile.

    Raises InvalidInput "deposit.bad_amount" or "deposit.bad_key", Conflict "deposit.key_reused" for another amount.
    """
    _check_request(msat, idempotency_key)
    row = await store.read(lambda tx: _find(tx, owner, idempotency_key))
    if row is None:
        # the back-end gives one invoice per key, so that a crash before the row is kept costs nothing
        name = _deposit_id(owner, idempotency_key)
        invoice = await payments.create_invoice(msat, f"Shardwork deposit {name}", name)
        new = DepositRow(
            id=name,
            owner=owner,
            idempotency_key=idempotency_key,
            msat=msat,
            invoice=invoice.text,
            payment_hash=invoice.payment_hash,
            state=DepositState.OPEN,
            created_ms=clock.now_ms(),
            expires_ms=invoice.expires_ms,
        )
        row = await store.write(lambda tx: _keep(tx, new))
    if row.msat != msat:
        raise Conflict(
            "deposit.key_reused", "This idempotency key belongs to a deposit of another amount.", amount=show(row.msat)
        )
    return await refresh(store, payments, clock, row)


async def get(store: Store, payments: Payments, clock: Clock, *, owner: str, deposit_id: str) -> DepositRow:
    """The owner's deposit as the back-end sees it now. Raises NotFound "deposit.unknown", also for somebody else's."""
    row = await store.read(lambda tx: tx.get(DepositRow, deposit_id))
    if row is None or row.owner != owner:
        raise NotFound(
            "deposit.unknown",
            "You have no such deposit.",
            next_step="`shardwork wallet history` shows what arrived.",
            id=deposit_id,
        )
    return await refresh(store, payments, clock, row)


async def refresh(store: Store, payments: Payments, clock: Clock, row: DepositRow) -> DepositRow:
    """Asks the back-end about a deposit that is not settled, and keeps a definite answer.

    An expired one is asked about too: a payment that was in flight may still settle its invoice.
    """
    if row.state is DepositState.SETTLED:
        return row
    state = await payments.invoice_status(row.payment_hash)
    if state is InvoiceState.SETTLED:
        return await store.write(lambda tx: settle(tx, row.id, payments.asset, clock.now_ms()))
    if state is InvoiceState.FAILED and row.state is DepositState.OPEN:
        return await store.write(lambda tx: _expire(tx, row.id))
    return row


async def sweep(store: Store, payments: Payments, clock: Clock) -> int:
    """Refreshes every open deposit; returns how many were settled."""
    rows = await store.read(lambda tx: tx.find(DepositRow, state=DepositState.OPEN, order="created_ms"))
    settled = 0
    for row in rows:
        try:
            settled += (await refresh(store, payments, clock, row)).state is DepositState.SETTLED
        except Internal:
            raise
        except Exception as error:
            # one deposit's trouble must not keep the others waiting
            log.warning("deposit.waits", deposit=row.id, error=error)
    return settled


def settle(tx: Transaction, deposit_id: str, asset: str, now_ms: int) -> DepositRow:
    """Credits the owner, once however often it is called."""
    row = _existing(tx, deposit_id)
    move = Move(
        id=f"deposit:{row.id}",
        debit=external_account(asset),
        credit=user_account(row.owner),
        msat=row.msat,
        reason="deposit",
        reference=row.id,
    )
    ledger.apply(tx, move, now_ms)
    settled = replace(row, state=DepositState.SETTLED)
    tx.put(settled)
    return settled


def _expire(tx: Transaction, deposit_id: str) -> DepositRow:
    row = _existing(tx, deposit_id)
    if row.state is DepositState.OPEN:
        row = replace(row, state=DepositState.EXPIRED)
        tx.put(row)
    return row


def _keep(tx: Transaction, new: DepositRow) -> DepositRow:
    """The row of this owner and key: the new one, or the one that a call at the same time kept first."""
    return _find(tx, new.owner, new.idempotency_key) or tx.insert(new)


def _find(tx: Transaction, owner: str, idempotency_key: str) -> DepositRow | None:
    found = tx.find(DepositRow, owner=owner, idempotency_key=idempotency_key, limit=1)
    return found[0] if found else None


def _existing(tx: Transaction, deposit_id: str) -> DepositRow:
    row = tx.get(DepositRow, deposit_id)
    if row is None:
        raise NotFound("deposit.unknown", "There is no such deposit.", id=deposit_id)
    return row


def _check_request(msat: int, idempotency_key: str) -> None:
    if not MIN_MSAT <= msat <= MAX_MSAT:
        raise InvalidInput(
            "deposit.bad_amount",
            f"A deposit is between {show(MIN_MSAT)} and {show(MAX_MSAT)}.",
            next_step="Put in another amount.",
            amount=show(msat),
        )
    if not 0 < len(idempotency_key) <= KEY_MAX_CHARACTERS or not idempotency_key.isprintable():
        raise InvalidInput(
            "deposit.bad_key", f"The idempotency key must have 1 to {KEY_MAX_CHARACTERS} printable characters."
        )


def _deposit_id(owner: str, idempotency_key: str) -> str:
    """Derived, so that a retry after a crash asks the back-end for the same invoice."""
    return hashlib.sha256(f"shardwork deposit\0{owner}\0{idempotency_key}".encode()).hexdigest()[:16]
