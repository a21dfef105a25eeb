"""The whole ledger, newest first: each transfer with both its accounts, by reason and kind. Reads, and exports."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ....money import ledger
from ....records import Transfer, TransferKind
from ....store.base import Store, Transaction
from ...rows import moment
from ..shell import Shell
from ..visits import Visit
from .export import MOST_ROWS, csv_response

PATH = "/money/transfers"
PAGE = 50
HIGHEST = 2**63 - 1
#: as the machine, deposits, payouts and withdrawals name them, in the order of a msat's life
REASONS = ("deposit", "escrow", "reserve", "shard", "fee", "release", "refund", "payout", "withdrawal")
COLUMNS = ("sequence", "at", "kind", "reason", "debit", "credit", "msat", "reference", "id", "resolves")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A transfer, and what became of it if it is a hold."""

    sequence: int
    id: str
    #: "posted", "pending", "held" (a hold that was resolved) or "voided"
    state: str
    debit: str
    credit: str
    msat: int
    reason: str
    reference: str
    at_ms: int
    #: the transfer that resolved this hold, or the hold that this one resolves; 0: none
    other: int
    #: what the other one says
    other_word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    reason: str = ""
    kind: str = ""
    before: int = 0

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wanted:
        """From an address; what makes no sense is left out."""
        reason, kind = query.get("reason", ""), query.get("kind", "")
        return cls(
            reason=reason if reason in REASONS else "",
            kind=kind if kind in tuple(TransferKind) else "",
            before=before_of(query),
        )

    @property
    def matches(self) -> dict[str, Any]:
        return {name: value for name, value in (("reason", self.reason), ("kind", self.kind)) if value}

    def path(self, base: str = PATH, **changed: str) -> str:
        fields = {"reason": self.reason, "kind": self.kind} | changed
        asked = urlencode({name: value for name, value in fields.items() if value})
        return f"{base}?{asked}" if asked else base


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferList:
    lines: Sequence[Line]
    newer: str
    older: str


def router(shell: Shell) -> APIRouter:
    routes, store = APIRouter(), shell.desk.engine.store

    async def show(request: Request, visit: Visit) -> Response:
        wanted = Wanted.of(request.query_params)
        found = await store.read(lambda tx: listed(tx, wanted))
        seen: dict[str, Any] = {
            "found": found,
            "wanted": wanted,
            "reasons": REASONS,
            "kinds": tuple(TransferKind),
            "most": MOST_ROWS,
        }
        return shell.html(request, visit, "dashboard/money/transfers.html", **seen)

    async def export(request: Request, visit: Visit) -> Response:
        return csv_response("transfers", COLUMNS, exported(store, Wanted.of(request.query_params)))

    shell.page(routes, PATH, show)
    shell.page(routes, f"{PATH}.csv", export)
    return routes


def before_of(query: Mapping[str, str]) -> int:
    """The sequence below which a page goes on; 0 for the first."""
    text = query.get("before", "")
    return min(int(text), HIGHEST) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def listed(tx: Transaction, wanted: Wanted) -> TransferList:
    found = _newest(tx, wanted, wanted.before, PAGE + 1)
    shown = found[:PAGE]
    return TransferList(
        lines=[line(tx, transfer) for transfer in shown],
        newer=wanted.path() if wanted.before else "",
        older=wanted.path(before=str(shown[-1].sequence)) if len(found) > PAGE else "",
    )


async def exported(store: Store, wanted: Wanted) -> AsyncGenerator[Sequence[Sequence[object]], None]:
    """Pages of rows, newest first."""
    before = wanted.before
    while found := await store.read(partial(_newest, wanted=wanted, before=before, limit=ledger.PAGE)):
        yield [
            (
                one.sequence,
                moment(one.at_ms),
                one.kind,
                one.reason,
                one.debit,
                one.credit,
                one.msat,
                one.reference,
                one.id,
                one.resolves or "",
            )
            for one in found
        ]
        before = found[-1].sequence


def _newest(tx: Transaction, wanted: Wanted, before: int, limit: int) -> list[Transfer]:
    after = before if before > 0 else None
    return tx.find(Transfer, order="sequence", descending=True, after=after, limit=limit, **wanted.matches)


def line(tx: Transaction, transfer: Transfer) -> Line:
    """With the transfer that belongs to it."""
    state, other, word = "posted", None, ""
    if transfer.kind is TransferKind.PENDING:
        other = ledger.resolution(tx, transfer.id)
        state = "held" if other else "pending"
        word = "" if other is None else "posted" if other.kind is TransferKind.POST else "voided"
    elif transfer.resolves is not None:
        other, word = tx.get(Transfer, transfer.resolves), "held"
        state = "voided" if transfer.kind is TransferKind.VOID else "posted"
    return Line(
        sequence=transfer.sequence,
        id=transfer.id,
        state=state,
        debit=transfer.debit,
        credit=transfer.credit,
        msat=transfer.msat,
        reason=transfer.reason,
        reference=transfer.reference,
        at_ms=transfer.at_ms,
        other=other.sequence if other else 0,
        other_word=word if other else "",
    )
