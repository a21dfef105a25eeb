"""Payouts: earned sats on their way out, one step at a time, so that a crash between any two neither pays twice nor
forgets.

    created --invoice fetched, amount compared, hash stored--> bound --intent stored--> sent --> settled | failed
                                                                                          `--> unknown --^
The hold on the worker's account (amount + fee limit) exists from `created` until the end; `settled` posts it, `failed`
voids it, `unknown` keeps it and only asks again: nothing is ever sent twice, and a bound payout never gets a second
invoice. Owns payout rows; the ledger owns the money. `advance` is called by the sweeper, `request` on demand;
`withdrawals` makes rows of its own, which go the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from shardwork.clock import Clock
from shardwork.errors import (
    Conflict,
    Internal,
    InvalidInput,
    NotAllowed,
    NotEnoughFunds,
    NotFound,
    Unreachable,
)
from shardwork.money import Msat, sats, share_ceil, show
from shardwork.why import Why

from ..payments.base import Invoice, Payment, Payments, PaymentState, proves
from ..queueing import standing
from ..records import Account, Party, Payout, PayoutState
from ..store.base import Store, Transaction
from ..telemetry.logs import Log
from . import ledger
from .movements import Hold, PostHold, VoidHold, external_account, worker_account

LIVE = (PayoutState.CREATED, PayoutState.BOUND, PayoutState.SENT, PayoutState.UNKNOWN)
#: of the ids of payouts that nobody asked for one by one
PREFIX = "payout:"
IN_FLIGHT = (PayoutState.SENT, PayoutState.UNKNOWN)

log = Log("payouts")


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutRules:
    #: earnings from here on are paid out without being asked for
    threshold_msat: int = sats(1000)
    #: on demand, the least amount
    minimum_msat: int = sats(1)
    #: tries to get an invoice from an address before the payout fails
    address_attempts: int = 5
    #: after a failure, how long the automatic payout to that worker rests
    rest_ms: int = 3_600_000
    #: a payment that the node says it never heard of counts as failed after so long: no request is still on its way
    absent_after_ms: int = 600_000


async def advance(store: Store, payments: Payments, clock: Clock, rules: PayoutRules | None = None) -> int:
    """One sweep: starts what is due and takes every live payout as far as it goes. Idempotent; returns how many ended.

    Safe to call again after a crash anywhere inside, and beside another call.
    """
    rules = rules or PayoutRules()
    due = await store.read(lambda tx: [owner for owner in _earners(tx) if _due(tx, owner, rules, clock.now_ms())])
    if due:
        await store.write(lambda tx: _create_due(tx, due, payments.asset, rules, clock.now_ms()))
    live = await store.read(_live)
    ended = 0
    for payout in live:
        try:
            ended += (await _drive(store, payments, clock, rules, payout)).state not in LIVE
        except Internal:
            raise
        except Exception as error:
            # one payout's trouble must not keep the others waiting
            log.warning("payout.waits", payout=payout.id, error=error)
    return ended


def _live(tx: Transaction) -> list[Payout]:
    """Payouts that have not ended, without those that the operator holds before they were sent."""
    held = standing.among(tx, standing.DISTRUSTED)
    live = tx.find(Payout, state=LIVE, order="created_ms")
    return [one for one in live if one.state in IN_FLIGHT or one.owner not in held or not _is_earned(one)]


def request(
    tx: Transaction, owner: str, asset: str, rules: PayoutRules, now_ms: int, *, msat: int | None = None
) -> Payout:
    """Starts a payout of all that is earned, or of `msat` of it, now; the live one when there is one.

    Raises InvalidInput "payout.no_address", NotAllowed "payout.held" and NotEnoughFunds "payout.too_little".
    """
    live = [row for row in tx.find(Payout, owner=owner, state=LIVE) if _is_earned(row)]
    if live:
        return live[0]
    party = tx.get(Party, owner)
    if party is None or not party.payout_address:
        raise InvalidInput(
            "payout.no_address",
            "There is no payout address for this key.",
            next_step="Say a Lightning address: people on their page under Sats, a worker with --payout at its start.",
        )
    if (restriction := standing.of(party)) and restriction.standing in standing.DISTRUSTED:
        raise NotAllowed(
            "payout.held",
            "The operator holds this worker's earnings; they stay on its account.",
            next_step="Ask the operator.",
            **restriction.why.evidence,
        )
    earned = ledger.available(tx, worker_account(owner))
    wanted = payable(earned) if msat is None else sats(msat // 1000)
    if not rules.minimum_msat <= wanted <= payable(earned):
        raise NotEnoughFunds(
            "payout.too_little",
            f"{show(earned)} can't cover a payout of {show(max(wanted, rules.minimum_msat))} and its fee.",
            next_step="Earn more first.",
        )
    return _create(tx, party, asset, wanted, now_ms)


async def nudge(store: Store, payments: Payments, clock: Clock, rules: PayoutRules, payout_id: str) -> Payout:
    """Takes one payout as far as it goes, now; what was sent is asked about and never sent again. One that has ended
    stays as it is. Raises NotFound "payout.unknown_id"."""
    row = await store.read(lambda tx: named(tx, payout_id))
    return await _drive(store, payments, clock, rules, row) if row.state in LIVE else row


def retry(tx: Transaction, payout_id: str, asset: str, rules: PayoutRules, now_ms: int) -> Payout:
    """A new payout of all that is earned, after one that failed; its sats are back in the account already.

    Raises NotFound "payout.unknown_id", Conflict "payout.not_failed", "payout.owners_choice" or
    "payout.under_way", NotAllowed "payout.revoked", and what `request` raises.
    """
    row = named(tx, payout_id)
    if row.state is not PayoutState.FAILED:
        raise Conflict(
            "payout.not_failed",
            f"This payout is {row.state}, and only one that failed is tried again.",
            next_step="Ask the node about it instead; nothing is sent twice.",
        )
    if not _is_earned(row):
        raise Conflict(
            "payout.owners_choice",
            "A withdrawal is its owner's wish, and its sats are back in their wallet.",
            next_step="Its owner may ask again:  shardwork wallet withdraw",
        )
    if live := [one for one in tx.find(Payout, owner=row.owner, state=LIVE) if _is_earned(one)]:
        raise Conflict(
            "payout.under_way",
            "Another payout to this worker is under way already.",
            next_step="See how it ends first.",
            payout=live[0].id,
        )
    party = tx.get(Party, row.owner)
    if party is None or party.revoked:
        raise NotAllowed(
            "payout.revoked",
            "The key of this worker is revoked, so it is not paid out.",
            next_step="Decide about the worker first; its earnings stay in its account.",
        )
    return request(tx, row.owner, asset, rules, now_ms)


def fee_limit(msat: int) -> Msat:
    """The most a payment may cost on top: 2 sat or 1 %, whichever is more."""
    return max(sats(2), share_ceil(msat, 1, 100))


def payable(earned_msat: int) -> Msat:
    """The most whole sats that leave room for their own fee limit; 0 when nothing does."""
    msat = min(earned_msat - sats(2), earned_msat * 100 // 101)
    return sats(max(msat, 0) // 1000)


def _earners(tx: Transaction) -> Iterator[str]:
    """The party ids that have a worker account."""
    prefix = worker_account("")
    last = prefix
    while page := tx.find(Account, order="id", after=last, limit=500):
        for account in page:
            if not account.id.startswith(prefix):
                return
            yield account.id.removeprefix(prefix)
        last = page[-1].id


def _due(tx: Transaction, owner: str, rules: PayoutRules, now_ms: int) -> bool:
    earned = ledger.available(tx, worker_account(owner))
    if earned < rules.threshold_msat or payable(earned) == 0:
        return False
    party = tx.get(Party, owner)
    if party is None or not party.payout_address or party.revoked or party.standing in standing.DISTRUSTED:
        return False
    latest = [row for row in tx.find(Payout, owner=owner, order="created_ms", descending=True) if _is_earned(row)]
    if not latest or latest[0].state is PayoutState.SETTLED:
        return True
    return latest[0].state is PayoutState.FAILED and now_ms >= latest[0].updated_ms + rules.rest_ms


def _is_earned(row: Payout) -> bool:
    """A payout of a worker's earnings, and not a withdrawal of the same key's balance (`withdrawals`)."""
    return row.id.startswith(PREFIX)


def _create_due(tx: Transaction, owners: Collection[str], asset: str, rules: PayoutRules, now_ms: int) -> None:
    for owner in owners:
        party = tx.get(Party, owner)
        # asked again: another sweep may have been faster since the read
        if party is not None and _due(tx, owner, rules, now_ms):
            _create(tx, party, asset, payable(ledger.available(tx, worker_account(owner))), now_ms)


def _create(tx: Transaction, party: Party, asset: str, msat: Msat, now_ms: int) -> Payout:
    number = sum(tx.count(Payout, "owner", owner=party.id).values()) + 1
    payout = Payout(
        id=f"{PREFIX}{party.id}/{number}",
        owner=party.id,
        address=party.payout_address,
        msat=msat,
        fee_limit_msat=fee_limit(msat),
        state=PayoutState.CREATED,
        created_ms=now_ms,
        updated_ms=now_ms,
    )
    hold = Hold(
        id=payout.id,
        debit=worker_account(party.id),
        credit=external_account(asset),
        msat=payout.msat + payout.fee_limit_msat,
        reason="payout",
        reference=payout.id,
    )
    ledger.apply(tx, hold, now_ms)
    return tx.insert(payout)


async def _drive(store: Store, payments: Payments, clock: Clock, rules: PayoutRules, payout: Payout) -> Payout:
    """Steps until the payout ends or has to wait."""
    if payout.state is PayoutState.CREATED:
        payout = await _bind(store, payments, clock, rules, payout)
    if payout.state is PayoutState.BOUND:
        return await _send(store, payments, clock, payout)
    if payout.state in IN_FLIGHT:
        return await _ask(store, payments, clock, rules, payout)
    return payout


async def _bind(store: Store, payments: Payments, clock: Clock, rules: PayoutRules, payout: Payout) -> Payout:
    """Gets the one invoice of this payout and stores its hash before anything is sent."""
    try:
        invoice = await payments.resolve_address(payout.address, payout.msat)
    except InvalidInput as error:
        return await _end(store, clock, payout, (PayoutState.CREATED,), error.why)
    except Unreachable as error:
        return await _count_attempt(store, clock, rules, payout, error.why)
    if invoice.msat != payout.msat:
        why = Why(
            code="payout.wrong_amount",
            sentence="The address asked for another amount than was offered.",
            evidence={"offered": show(payout.msat), "asked": show(invoice.msat)},
            next_step="Check the payout address.",
        )
        return await _end(store, clock, payout, (PayoutState.CREATED,), why)
    return await store.write(lambda tx: _bind_row(tx, payout.id, invoice, clock.now_ms()))


def _bind_row(tx: Transaction, payout_id: str, invoice: Invoice, now_ms: int) -> Payout:
    def bound(row: Payout) -> Payout:
        return replace(row, state=PayoutState.BOUND, invoice=invoice.text, payment_hash=invoice.payment_hash)

    other = tx.find(Payout, payment_hash=invoice.payment_hash, limit=1)
    if other and other[0].id != payout_id:
        why = Why(
            code="payout.invoice_reused",
            sentence="The address gave an invoice that belongs to another payout.",
            evidence={"payment_hash": invoice.payment_hash},
            next_step="Check the payout address.",
        )
        return fail(tx, payout_id, (PayoutState.CREATED,), why, now_ms)
    return _change(tx, payout_id, (PayoutState.CREATED,), bound, now_ms)


async def _send(store: Store, payments: Payments, clock: Clock, payout: Payout) -> Payout:
    """Stores the intent, then sends. Only the caller that changed the row from bound to sent may send."""
    won, payout = await store.write(lambda tx: _intend(tx, payout.id, clock.now_ms()))
    if not won:
        return payout
    try:
        answer = await payments.pay(payout.invoice, payout.fee_limit_msat)
    except Exception as error:
        # a back-end that breaks its word: the payment may be on its way
        log.warning("payout.backend_raised", payout=payout.id, error=error)
        answer = Payment(state=PaymentState.UNKNOWN, reason=type(error).__name__)
    return await _take_answer(store, clock, payout, answer)


def _intend(tx: Transaction, payout_id: str, now_ms: int) -> tuple[bool, Payout]:
    """Bound becomes sent; the flag says that this call did it."""
    row = _existing(tx, payout_id)
    party = tx.get(Party, row.owner) if _is_earned(row) else None
    if party is not None and party.standing in standing.DISTRUSTED:
        # put into quarantine since it was bound
        return False, row
    won = row.state is PayoutState.BOUND
    row = _change(tx, payout_id, (PayoutState.BOUND,), lambda old: replace(old, state=PayoutState.SENT), now_ms)
    return won, row


async def _ask(store: Store, payments: Payments, clock: Clock, rules: PayoutRules, payout: Payout) -> Payout:
    """Asks what became of a payment that was sent, or perhaps was."""
    answer = await payments.payment_status(payout.payment_hash or "")
    if answer.state is not PaymentState.ABSENT:
        return await _take_answer(store, clock, payout, answer)
    if clock.now_ms() < payout.updated_ms + rules.absent_after_ms:
        return payout
    why = Why(code="payout.never_sent", sentence="The payment node never heard of this payment.")
    return await _end(store, clock, payout, IN_FLIGHT, why)


async def _take_answer(store: Store, clock: Clock, payout: Payout, answer: Payment) -> Payout:
    if answer.state is PaymentState.SETTLED and not proves(answer.preimage, payout.payment_hash or ""):
        answer = Payment(state=PaymentState.UNKNOWN, reason="the preimage doesn't prove the payment")
    match answer.state:
        case PaymentState.SETTLED:
            return await store.write(lambda tx: _settle(tx, payout.id, answer, clock.now_ms()))
        case PaymentState.FAILED:
            why = Why(
                code="payout.failed", sentence="The payment failed.", evidence={"reason": answer.reason or "not given"}
            )
            return await _end(store, clock, payout, IN_FLIGHT, why)
        case PaymentState.UNKNOWN:
            return await store.write(lambda tx: _doubt(tx, payout.id, answer.reason, clock.now_ms()))
        case PaymentState.PENDING | PaymentState.ABSENT:
            return payout


def _settle(tx: Transaction, payout_id: str, answer: Payment, now_ms: int) -> Payout:
    def settled(row: Payout) -> Payout:
        return replace(row, state=PayoutState.SETTLED, preimage=answer.preimage, why_json=_over_limit(row, answer))

    row = _existing(tx, payout_id)
    if row.state in IN_FLIGHT:
        paid = row.msat + min(answer.fee_msat, row.fee_limit_msat)
        ledger.apply(tx, PostHold(hold_id=payout_id, msat=paid), now_ms)
    return _change(tx, payout_id, IN_FLIGHT, settled, now_ms)


def _over_limit(row: Payout, answer: Payment) -> str:
    """A node that spent more than it was allowed is the operator's loss, and must be seen."""
    if answer.fee_msat <= row.fee_limit_msat:
        return ""
    evidence = {"fee": show(answer.fee_msat), "limit": show(row.fee_limit_msat)}
    return Why(code="payout.fee_over_limit", sentence="The node paid a higher fee.", evidence=evidence).to_json()


def _doubt(tx: Transaction, payout_id: str, reason: str, now_ms: int) -> Payout:
    """The hold stays; the next sweep asks again. The time of sending is kept: it bounds how long a request travels."""
    why = Why(
        code="payout.unknown",
        sentence="Whether the payment arrived is not known yet; it is asked for again and never sent twice.",
        evidence={"reason": reason or "not given"},
    )
    row = _existing(tx, payout_id)
    if row.state not in IN_FLIGHT or (row.state is PayoutState.UNKNOWN and row.why_json == why.to_json()):
        return row
    row = replace(row, state=PayoutState.UNKNOWN, why_json=why.to_json())
    tx.put(row)
    return row


async def _count_attempt(store: Store, clock: Clock, rules: PayoutRules, payout: Payout, why: Why) -> Payout:
    if payout.attempts + 1 >= rules.address_attempts:
        return await _end(store, clock, payout, (PayoutState.CREATED,), why)

    def counted(row: Payout) -> Payout:
        return replace(row, attempts=row.attempts + 1, why_json=why.to_json())

    return await store.write(lambda tx: _change(tx, payout.id, (PayoutState.CREATED,), counted, clock.now_ms()))


async def _end(store: Store, clock: Clock, payout: Payout, expected: Collection[PayoutState], why: Why) -> Payout:
    return await store.write(lambda tx: fail(tx, payout.id, expected, why, clock.now_ms()))


def fail(tx: Transaction, payout_id: str, expected: Collection[PayoutState], why: Why, now_ms: int) -> Payout:
    """Ends a payout that certainly didn't pay; its hold returns to the account it is on."""
    if _existing(tx, payout_id).state in expected:
        ledger.apply(tx, VoidHold(hold_id=payout_id), now_ms)
    return _change(
        tx, payout_id, expected, lambda row: replace(row, state=PayoutState.FAILED, why_json=why.to_json()), now_ms
    )


def _change(
    tx: Transaction,
    payout_id: str,
    expected: Collection[PayoutState],
    change: Callable[[Payout], Payout],
    now_ms: int,
) -> Payout:
    """Changes the row if it is still in an expected state; otherwise another sweep was faster and its row stands."""
    row = _existing(tx, payout_id)
    if row.state not in expected:
        return row
    row = replace(change(row), updated_ms=now_ms)
    tx.put(row)
    return row


def named(tx: Transaction, payout_id: str) -> Payout:
    """The one that a person named."""
    row = tx.get(Payout, payout_id)
    if row is None:
        raise NotFound(
            "payout.unknown_id",
            "There is no such payment.",
            next_step="Look in the list of payments.",
            id=payout_id[:128],
        )
    return row


def _existing(tx: Transaction, payout_id: str) -> Payout:
    row = tx.get(Payout, payout_id)
    if row is None:
        raise Internal("payout.missing", "A payout that was being carried out is gone.", id=payout_id)
    return row
