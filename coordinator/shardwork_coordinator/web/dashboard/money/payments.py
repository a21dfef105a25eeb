"""Payments on their way in and out: payouts, withdrawals, deposits; why one is stuck, and what may be done about it.

Nothing here sends a payment a second time: asking takes a payment as far as the node says it is, and another try after
a failure is another payment.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from shardwork.errors import InvalidInput, Unreachable
from shardwork.money import show as amount
from shardwork.why import Why

from ....accounts import audit
from ....money import ledger, payouts
from ....payments.base import Payments
from ....queueing import standing
from ....records import DepositRow, Party, Payout, PayoutState
from ....store.base import Store, Transaction
from ...alerts import OLD_PAYMENT_MS
from ...rows import moment
from ..shell import Done, Shell
from ..visits import Visit
from .export import csv_response
from .statement import path_of

PATH = "/money/payments"
PAGE, MOST_PAGES = 50, 200
TABS: Mapping[str, tuple[PayoutState, ...]] = {
    "": tuple(PayoutState),
    "open": payouts.LIVE,
    "unknown": (PayoutState.UNKNOWN,),
    "failed": (PayoutState.FAILED,),
    "settled": (PayoutState.SETTLED,),
}
DEPOSITS = "deposits"
COLUMNS = (
    "created",
    "changed",
    "kind",
    "state",
    "msat",
    "fee_limit_msat",
    "owner",
    "address",
    "attempts",
    "payment_hash",
    "why",
    "id",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRow:
    id: str
    #: "payout" or "withdrawal"
    what: str
    state: str
    owner: str
    name: str
    account_path: str
    address: str
    msat: int
    #: what it cost on top once it settled; what it may cost before
    fee_msat: int
    attempts: int
    created_ms: int
    updated_ms: int
    why: Why | None
    payment_hash: str
    #: where its sats are, and what comes next by itself
    note: str
    #: it takes longer than a payment should
    is_stuck: bool
    may_ask: bool
    may_retry: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentList:
    payments: Sequence[PaymentRow]
    deposits: Sequence[DepositRow]
    #: number by tab
    counts: Mapping[str, int]
    newer: str
    older: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    tab: str = ""
    page: int = 0

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wanted:
        """From an address; what makes no sense is left out."""
        tab, page = query.get("state", ""), query.get("page", "")
        return cls(
            tab=tab if tab in (*TABS, DEPOSITS) else "",
            page=min(int(page), MOST_PAGES) if page.isascii() and page.isdigit() and len(page) < 6 else 0,
        )

    def path(self, base: str = PATH, **changed: object) -> str:
        fields = {"state": self.tab} | changed
        asked = urlencode({name: value for name, value in fields.items() if value})
        return f"{base}?{asked}" if asked else base


def router(shell: Shell) -> APIRouter:
    routes, pages = APIRouter(), Pages(shell)
    shell.page(routes, PATH, pages.show)
    shell.page(routes, f"{PATH}.csv", pages.export)
    shell.action(routes, f"{PATH}/ask", pages.ask)
    shell.action(routes, f"{PATH}/retry", pages.retry)
    return routes


class Pages:
    def __init__(self, shell: Shell) -> None:
        self._shell, self._desk, self._engine = shell, shell.desk, shell.desk.engine

    async def show(self, request: Request, visit: Visit) -> Response:
        wanted, now_ms = Wanted.of(request.query_params), self._engine.clock.now_ms()
        found = await self._engine.store.read(lambda tx: listed(tx, wanted, now_ms))
        seen: dict[str, Any] = {"found": found, "wanted": wanted, "tabs": (*TABS, DEPOSITS)}
        return self._shell.html(request, visit, "dashboard/money/payments.html", **seen)

    async def export(self, request: Request, visit: Visit) -> Response:
        wanted = Wanted.of(request.query_params)
        return csv_response("payments", COLUMNS, exported(self._engine.store, wanted))

    async def ask(self, request: Request, visit: Visit, form: dict[str, str]) -> Done:
        """Asks the node now. What was sent is never sent again."""
        name, engine = form.get("id", ""), self._engine
        deed = audit.Deed(
            action="payout.ask",
            subject=name,
            sentence="The node was asked about this payment.",
            reason=_reason(form),
        )
        await self._shell.do(visit, deed, lambda tx: payouts.named(tx, name))
        row = await payouts.nudge(engine.store, self._payments(), engine.clock, self._rules(), name)
        return Done(path=f"{PATH}?state={_tab(row.state)}", sentence=f"The node was asked: {name} is {row.state}.")

    async def retry(self, request: Request, visit: Visit, form: dict[str, str]) -> Done:
        """A new payout after one that failed."""
        name, now_ms = form.get("id", ""), self._engine.clock.now_ms()
        asset, rules = self._payments().asset, self._rules()
        deed = audit.Deed(
            action="payout.retry",
            subject=name,
            sentence="A new payout was started after this one failed.",
            reason=_reason(form),
        )
        row = await self._shell.do(visit, deed, lambda tx: payouts.retry(tx, name, asset, rules, now_ms))
        return Done(path=PATH, sentence=f"A new payout of {amount(row.msat)} to {row.address} is under way.")

    def _rules(self) -> payouts.PayoutRules:
        return payouts.PayoutRules(threshold_msat=self._desk.settings.payout_threshold_sats * 1000)

    def _payments(self) -> Payments:
        found = self._desk.live.books.payments
        if found is None:
            raise Unreachable(
                "payments.no_node", "No payment node is connected.", next_step="Start the coordinator again."
            )
        return found


def listed(tx: Transaction, wanted: Wanted, now_ms: int) -> PaymentList:
    counts = tx.count(Payout, "state")
    tabs = {tab: sum(counts.get(str(state), 0) for state in states) for tab, states in TABS.items()}
    tabs[DEPOSITS] = sum(tx.count(DepositRow, "state").values())
    limit = (wanted.page + 1) * PAGE + 1
    is_in = wanted.tab == DEPOSITS
    rows = [] if is_in else _newest(tx, wanted.tab, limit)[wanted.page * PAGE :]
    deposits = tx.find(DepositRow, order="created_ms", descending=True, limit=limit) if is_in else []
    deposits = deposits[wanted.page * PAGE :]
    has_more = max(len(rows), len(deposits)) > PAGE and wanted.page < MOST_PAGES
    return PaymentList(
        payments=[_row(tx, row, now_ms) for row in rows[:PAGE]],
        deposits=deposits[:PAGE],
        counts=tabs,
        newer=wanted.path() if wanted.page else "",
        older=wanted.path(page=wanted.page + 1) if has_more else "",
    )


async def exported(store: Store, wanted: Wanted) -> AsyncGenerator[Sequence[Sequence[object]], None]:
    """Payouts and withdrawals of the tab, newest first; deposits have no fees, addresses or attempts."""

    def look(tx: Transaction) -> list[Sequence[object]]:
        if wanted.tab == DEPOSITS:
            return [_deposit_cells(row) for row in tx.find(DepositRow, order="created_ms", descending=True, limit=MOST)]
        return [_cells(row) for row in _newest(tx, wanted.tab, MOST)]

    yield await store.read(look)


#: payments of one export
MOST = 50_000


def _newest(tx: Transaction, tab: str, limit: int) -> list[Payout]:
    states = [str(state) for state in TABS[tab]]
    return tx.find(Payout, order="created_ms", descending=True, limit=limit, state=states)


def _row(tx: Transaction, row: Payout, now_ms: int) -> PaymentRow:
    party, is_earned = tx.get(Party, row.owner), row.id.startswith(payouts.PREFIX)
    ended = row.state not in payouts.LIVE
    posted = ledger.resolution(tx, row.id) if row.state is PayoutState.SETTLED else None
    old = now_ms - row.updated_ms > OLD_PAYMENT_MS
    may_retry = is_earned and row.state is PayoutState.FAILED and _is_latest(tx, row)
    return PaymentRow(
        id=row.id,
        what="payout" if is_earned else "withdrawal",
        state=str(row.state),
        owner=row.owner,
        name=party.name if party else "",
        account_path=path_of(f"{'worker' if is_earned else 'user'}:{row.owner}"),
        address=row.address,
        msat=row.msat,
        fee_msat=posted.msat - row.msat if posted else row.fee_limit_msat,
        attempts=row.attempts,
        created_ms=row.created_ms,
        updated_ms=row.updated_ms,
        why=Why.from_json(row.why_json) if row.why_json else None,
        payment_hash=row.payment_hash or "",
        note=_ended_note(row, may_retry=may_retry) if ended else _open_note(row, party),
        is_stuck=not ended and (old or row.state is PayoutState.UNKNOWN),
        may_ask=not ended,
        may_retry=may_retry,
    )


def _open_note(row: Payout, party: Party | None) -> str:
    is_earned = row.id.startswith(payouts.PREFIX)
    if is_earned and row.state not in payouts.IN_FLIGHT and party and party.standing in standing.DISTRUSTED:
        return f"Its worker is {party.standing}: nothing is sent until it is restored, and its sats stay held."
    return {
        PayoutState.CREATED: "It waits for an invoice from its address.",
        PayoutState.BOUND: "It has its invoice and is sent with the next sweep.",
        PayoutState.SENT: "It was sent; the node has not said yet how it ended. Its sats stay held until then.",
        PayoutState.UNKNOWN: "Its sats stay held until the node knows.",
    }[row.state]


def _ended_note(row: Payout, *, may_retry: bool) -> str:
    if row.state is not PayoutState.FAILED:
        return ""
    if not row.id.startswith(payouts.PREFIX):
        return "Its sats are back in their wallet; the owner may ask again."
    if not may_retry:
        return "Another payout came after it."
    minutes = payouts.PayoutRules().rest_ms // 60_000
    return (
        f"Its sats are back in the worker's account. {minutes} min after this another payout begins by itself, unless "
        "the worker is held or has less than the threshold."
    )


def _is_latest(tx: Transaction, row: Payout) -> bool:
    """Whether no other payout to this worker was begun since; withdrawals of the same key are something else."""
    since = tx.pick(Payout, ("id",), owner=row.owner, order="created_ms", after=row.created_ms)
    return not any(name.startswith(payouts.PREFIX) for (name,) in since)


def _tab(state: PayoutState) -> str:
    return next(tab for tab, states in TABS.items() if tab and state in states)


def _reason(form: Mapping[str, str]) -> str:
    """Raises InvalidInput "payout.no_reason"."""
    if not (reason := form.get("reason", "").strip()):
        raise InvalidInput("payout.no_reason", "This needs a reason.", next_step="Say why; it stands in the audit log.")
    return reason


def _cells(row: Payout) -> Sequence[object]:
    why = Why.from_json(row.why_json).sentence if row.why_json else ""
    kind = "payout" if row.id.startswith(payouts.PREFIX) else "withdrawal"
    first = (moment(row.created_ms), moment(row.updated_ms), kind, row.state, row.msat, row.fee_limit_msat)
    return (*first, row.owner, row.address, row.attempts, row.payment_hash or "", why, row.id)


def _deposit_cells(row: DepositRow) -> Sequence[object]:
    first = (moment(row.created_ms), "", "deposit", row.state, row.msat, 0)
    return (*first, row.owner, "", 0, row.payment_hash, "", row.id)
