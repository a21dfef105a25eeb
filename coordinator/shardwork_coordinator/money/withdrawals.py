"""Withdrawals: a requester's balance on its way out, as a payout that its owner asked for.

Owns how one begins, is found and is called off; from then on it is a row like any payout, driven by `payouts.advance`
with the same rules: the hold exists from the first moment, nothing is sent twice, and what is not known keeps its hold.
Called by `rpc.wallet`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from shardwork.clock import Clock
from shardwork.errors import Conflict, InvalidInput, NotEnoughFunds, NotFound
from shardwork.money import MSAT_PER_SAT, show
from shardwork.why import Why

from ..payments.base import Payments
from ..records import Payout, PayoutState
from ..store.base import Store, Transaction
from . import ledger, payouts
from .deposits import KEY_MAX_CHARACTERS, MAX_MSAT
from .movements import Hold, external_account, user_account

#: a Lightning address is written like one of e-mail
ADDRESS = re.compile(r"[a-z0-9._+-]{1,64}@[a-z0-9.-]{1,255}")
#: nothing has left in these
UNSENT = (PayoutState.CREATED, PayoutState.BOUND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the owner asks for."""

    owner: str
    msat: int
    address: str
    idempotency_key: str

    @property
    def id(self) -> str:
        return f"withdrawal:{self.owner}/{hashlib.sha256(self.idempotency_key.encode()).hexdigest()[:32]}"


async def create(store: Store, payments: Payments, clock: Clock, wish: Wish) -> Payout:
    """A withdrawal with its hold; the same owner and key give the same one again.

    Raises InvalidInput "withdrawal.bad_amount", "withdrawal.bad_key" or "withdrawal.bad_address", NotEnoughFunds
    "withdrawal.too_much", Conflict "withdrawal.key_reused" for another amount or address.
    """
    _check(wish)
    row = await store.write(lambda tx: _begin(tx, wish, payments.asset, clock.now_ms()))
    if (row.msat, row.address) != (wish.msat, wish.address):
        raise Conflict(
            "withdrawal.key_reused",
            "This idempotency key belongs to a withdrawal of another amount or to another address.",
            amount=show(row.msat),
            address=row.address,
        )
    return row


async def get(store: Store, owner: str, withdrawal_id: str) -> Payout:
    """Raises NotFound "withdrawal.unknown", also for somebody else's."""
    return await store.read(lambda tx: _owned(tx, owner, withdrawal_id))


async def cancel(store: Store, clock: Clock, owner: str, withdrawal_id: str) -> Payout:
    """Calls off one that was not sent; its hold returns. One that failed already stays as it is.

    Raises NotFound "withdrawal.unknown", Conflict "withdrawal.on_its_way".
    """
    return await store.write(lambda tx: _call_off(tx, owner, withdrawal_id, clock.now_ms()))


def _check(wish: Wish) -> None:
    if not MSAT_PER_SAT <= wish.msat <= MAX_MSAT or wish.msat % MSAT_PER_SAT:
        raise InvalidInput(
            "withdrawal.bad_amount",
            f"A withdrawal is whole sats, from 1 to {MAX_MSAT // MSAT_PER_SAT:,}.",
            next_step="Ask for another amount.",
        )
    if not 1 <= len(wish.idempotency_key) <= KEY_MAX_CHARACTERS:
        raise InvalidInput("withdrawal.bad_key", f"An idempotency key has 1 to {KEY_MAX_CHARACTERS} characters.")
    if not ADDRESS.fullmatch(wish.address):
        raise InvalidInput(
            "withdrawal.bad_address",
            "This is not a Lightning address.",
            next_step="It is written like name@example.org, in lower case.",
            address=wish.address[:320],
        )


def _begin(tx: Transaction, wish: Wish, asset: str, now_ms: int) -> Payout:
    known = tx.get(Payout, wish.id)
    if known is not None:
        return known
    account, fee_limit = user_account(wish.owner), payouts.fee_limit(wish.msat)
    available = ledger.available(tx, account)
    if wish.msat + fee_limit > available:
        most = payouts.payable(available)
        raise NotEnoughFunds(
            "withdrawal.too_much",
            f"Your wallet has {show(available)}, and this with its fee limit needs {show(wish.msat + fee_limit)}.",
            next_step=f"Ask for at most {show(most)}." if most else "Put something in first.",
        )
    hold = Hold(
        id=wish.id,
        debit=account,
        credit=external_account(asset),
        msat=wish.msat + fee_limit,
        reason="withdrawal",
        reference=wish.id,
    )
    ledger.apply(tx, hold, now_ms)
    return tx.insert(
        Payout(
            id=wish.id,
            owner=wish.owner,
            address=wish.address,
            msat=wish.msat,
            fee_limit_msat=fee_limit,
            state=PayoutState.CREATED,
            created_ms=now_ms,
            updated_ms=now_ms,
        )
    )


def _call_off(tx: Transaction, owner: str, withdrawal_id: str, now_ms: int) -> Payout:
    row = _owned(tx, owner, withdrawal_id)
    if row.state not in (*UNSENT, PayoutState.FAILED):
        raise Conflict(
            "withdrawal.on_its_way",
            "The withdrawal was sent already and cannot be called off.",
            next_step="Whether it arrived shows in:  shardwork wallet history",
            state=row.state,
        )
    why = Why(code="withdrawal.cancelled", sentence="You called it off before it was sent.")
    return payouts.fail(tx, row.id, UNSENT, why, now_ms)


def _owned(tx: Transaction, owner: str, withdrawal_id: str) -> Payout:
    row = tx.get(Payout, withdrawal_id)
    if row is None or row.owner != owner or not row.id.startswith("withdrawal:"):
        raise NotFound(
            "withdrawal.unknown",
            "You have no such withdrawal.",
            next_step="`shardwork wallet history` shows yours, whole ids with --json.",
            id=withdrawal_id[:128],
        )
    return row
