"""Reconciliation: do the ledger, the rows of deposits and payouts, and the payment node tell the same?

`ledger.check` recounts the ledger within itself; this compares it with what stands beside it. Every difference is a
reason with its evidence and what to do. Changes nothing. Called by `web.books`, for the page of money.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from shardwork.clock import Clock
from shardwork.errors import Unreachable
from shardwork.money import show
from shardwork.why import Why

from ..payments.base import InvoiceState, Payments, PaymentState, proves
from ..records import DepositRow, DepositState, Payout, PayoutState, Transfer, TransferKind
from ..store.base import Store, Transaction
from .payouts import LIVE

#: the newest of each state that the node is asked about
MOST_ASKED = 100
#: differences that are told one by one
MOST_TOLD = 50
#: what enters and leaves
REASONS = ("deposit", "payout", "withdrawal")
BY_HAND = (
    "Pay nothing by hand until this is understood; the transfer, the row and the node's own log tell which is right."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    at_ms: int
    differences: Sequence[Why]
    #: payments that the node was asked about, and those of which it could not tell
    asked: int
    untold: int
    #: "simulated", "bitcoin"; empty: there is no node to ask
    asset: str


async def compare(store: Store, payments: Payments | None, clock: Clock) -> Compared:
    """Rows with the ledger, then the newest ones with the node."""
    at_ms = clock.now_ms()
    found = await store.read(lambda tx: list(of_rows(tx)))
    asked = untold = 0
    if payments is not None:
        rows, bills = await store.read(_newest)
        asking = [partial(_of_payout, payments, row) for row in rows] + [
            partial(_of_deposit, payments, row) for row in bills
        ]
        for ask in asking:
            try:
                why = await ask()
            except Unreachable:
                untold += len(asking) - asked
                break
            asked += 1
            untold += why is _UNTOLD
            found += [why] if why is not None and why is not _UNTOLD else []
    return Compared(
        at_ms=at_ms,
        differences=found[:MOST_TOLD],
        asked=asked,
        untold=untold,
        asset=payments.asset if payments is not None else "",
    )


# ---- rows and ledger ------------------------------------------------------------------------------------------------


def of_rows(tx: Transaction) -> Iterator[Why]:
    """What the ledger and the rows of deposits and payouts tell differently."""
    moved = tx.pick(Transfer, ("id", "kind", "msat", "resolves", "reason"), reason=REASONS)
    credited = {name: msat for name, kind, msat, _, reason in moved if reason == "deposit" and kind == "posted"}
    holds = {name for name, kind, *_ in moved if kind is TransferKind.PENDING}
    ended = {hold: kind for _, kind, _, hold, _ in moved if hold}
    yield from _deposits(tx, credited)
    yield from _payouts(tx, holds, ended)


def _deposits(tx: Transaction, credited: dict[str, int]) -> Iterator[Why]:
    settled = {
        f"deposit:{name}": msat for name, msat in tx.pick(DepositRow, ("id", "msat"), state=DepositState.SETTLED)
    }
    for name in sorted(settled.keys() | credited.keys()):
        if settled.get(name) == credited.get(name):
            continue
        told = {"row": _amount(settled.get(name)), "ledger": _amount(credited.get(name)), "transfer": name}
        yield Why(
            code="books.deposit_differs",
            sentence="A deposit's row and the ledger tell different amounts.",
            evidence=told,
            next_step=BY_HAND,
        )


def _payouts(tx: Transaction, holds: set[str], ended: dict[str, TransferKind]) -> Iterator[Why]:
    wanted = {str(state): None for state in LIVE} | {"settled": TransferKind.POST, "failed": TransferKind.VOID}
    known: set[str] = set()
    for name, state, msat in tx.pick(Payout, ("id", "state", "msat"), order="id"):
        known.add(name)
        if name in holds and ended.get(name) is wanted[state]:
            continue
        told = {"payout": name, "row": str(state), "hold": _end(name, holds, ended), "amount": show(msat)}
        yield Why(
            code="books.payout_differs",
            sentence="A payout's row and its hold in the ledger tell different ends.",
            evidence=told,
            next_step=BY_HAND,
        )
    for name in sorted(holds - known):
        yield Why(
            code="books.hold_without_payout",
            sentence="The ledger holds sats for a payout that has no row.",
            evidence={"hold": name},
            next_step=BY_HAND,
        )


def _end(name: str, holds: set[str], ended: dict[str, TransferKind]) -> str:
    return "missing" if name not in holds else str(ended.get(name, "still held"))


def _amount(msat: int | None) -> str:
    return "nothing" if msat is None else show(msat)


# ---- rows and node --------------------------------------------------------------------------------------------------

_UNTOLD = Why(code="books.untold", sentence="The node can't tell.")


def _newest(tx: Transaction) -> tuple[list[Payout], list[DepositRow]]:
    """Those that are over, as far as we know, and that the node heard of."""
    rows: list[Payout] = []
    for state in (PayoutState.SETTLED, PayoutState.FAILED):
        rows += tx.find(Payout, state=state, order="updated_ms", descending=True, limit=MOST_ASKED)
    bills: list[DepositRow] = []
    for end in (DepositState.SETTLED, DepositState.EXPIRED):
        bills += tx.find(DepositRow, state=end, order="created_ms", descending=True, limit=MOST_ASKED)
    return [row for row in rows if row.payment_hash], bills


async def _of_payout(payments: Payments, row: Payout) -> Why | None:
    answer = await payments.payment_status(row.payment_hash or "")
    evidence = {"payout": row.id, "amount": show(row.msat), "node": str(answer.state)}
    if answer.state in (PaymentState.UNKNOWN, PaymentState.PENDING):
        return _UNTOLD
    if row.state is PayoutState.SETTLED and answer.state is not PaymentState.SETTLED:
        # the preimage is a receipt that nobody can make up
        if proves(row.preimage, row.payment_hash or ""):
            return _UNTOLD
        return Why(
            code="books.settled_unproved",
            sentence="A payout counts as settled, the node denies it, and there is no receipt.",
            evidence=evidence,
            next_step=BY_HAND,
        )
    if row.state is PayoutState.FAILED and answer.state is PaymentState.SETTLED:
        return Why(
            code="books.failed_but_paid",
            sentence="A payout counts as failed and its sats went back to the account, but the node paid it.",
            evidence=evidence,
            next_step="Agree with its owner on the amount; the ledger is not corrected by hand.",
        )
    return None


async def _of_deposit(payments: Payments, row: DepositRow) -> Why | None:
    state = await payments.invoice_status(row.payment_hash)
    if state is InvoiceState.UNKNOWN:
        return _UNTOLD
    if (state is InvoiceState.SETTLED) == (row.state is DepositState.SETTLED):
        return None
    evidence = {"deposit": row.id, "amount": show(row.msat), "row": str(row.state), "node": str(state)}
    if row.state is DepositState.SETTLED:
        return Why(
            code="books.credited_unpaid",
            sentence="A deposit was credited, and the node says that its invoice was not paid.",
            evidence=evidence,
            next_step=BY_HAND,
        )
    return Why(
        code="books.paid_after_expiry",
        sentence="A deposit expired here, but its invoice was paid.",
        evidence=evidence,
        next_step="It is credited as soon as its owner looks at it: `shardwork wallet balance`.",
    )
