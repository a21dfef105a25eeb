"""One account: its four numbers, and its transfers with the balance after each. Reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from shardwork.errors import NotFound

from ....money import ledger
from ....records import Account, Transfer, TransferKind
from ....store.base import Transaction
from ..shell import Shell
from ..visits import Visit
from .accounts import Holder, holder
from .transfers import Line, before_of, line

PATH = "/money/accounts"
PAGE = 50
#: these change what is posted; holds and their release do not
MOVING = (str(TransferKind.POSTED), str(TransferKind.POST))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A transfer as this account sees it."""

    line: Line
    counterpart: str
    is_credit: bool
    #: what was posted to this account with it, and its balance then; None for a hold and its release
    balance_msat: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    id: str
    holder: Holder
    balance_msat: int
    available_msat: int
    #: what leaves and what comes when holds are posted
    held_msat: int
    coming_msat: int
    entries: Sequence[Entry]
    newer: str
    older: str


def router(shell: Shell) -> APIRouter:
    routes, store = APIRouter(), shell.desk.engine.store

    async def show(request: Request, visit: Visit) -> Response:
        name, before = request.path_params["account"], before_of(request.query_params)
        found = await store.read(lambda tx: statement(tx, name, before))
        return shell.html(request, visit, "dashboard/money/statement.html", found=found)

    shell.page(routes, PATH + "/{account:path}", show)
    return routes


def path_of(account: str) -> str:
    return f"{PATH}/{quote(account)}"


def statement(tx: Transaction, name: str, before: int) -> Statement:
    """One page, newest first; `before` above 0 goes on below that sequence. Raises NotFound "account.unknown"."""
    account = tx.get(Account, name)
    if account is None:
        raise NotFound(
            "account.unknown",
            f"No transfer ever named an account {name[:80]!r}.",
            next_step="Look for the beginning of its name among the accounts.",
        )
    found = ledger.statement(tx, name, PAGE + 1, before)
    shown = found[:PAGE]
    balance = ledger.balance(tx, name) - (_posted_since(tx, name, shown[0].sequence) if before and shown else 0)
    entries: list[Entry] = []
    for transfer in shown:
        entries.append(_entry(tx, name, transfer, balance))
        balance -= _posted(name, transfer)
    return Statement(
        id=name,
        holder=holder(tx, name),
        balance_msat=account.credits_posted - account.debits_posted,
        available_msat=account.credits_posted - account.debits_posted - account.debits_pending,
        held_msat=account.debits_pending,
        coming_msat=account.credits_pending,
        entries=entries,
        newer=path_of(name) if before else "",
        older=f"{path_of(name)}?before={shown[-1].sequence}" if len(found) > PAGE else "",
    )


def _entry(tx: Transaction, name: str, transfer: Transfer, balance: int) -> Entry:
    is_credit = transfer.credit == name
    return Entry(
        line=line(tx, transfer),
        counterpart=transfer.debit if is_credit else transfer.credit,
        is_credit=is_credit,
        balance_msat=balance if str(transfer.kind) in MOVING else None,
    )


def _posted(name: str, transfer: Transfer) -> int:
    if str(transfer.kind) not in MOVING:
        return 0
    return transfer.msat if transfer.credit == name else -transfer.msat


def _posted_since(tx: Transaction, name: str, sequence: int) -> int:
    """What was posted to the account after this transfer; the further back, the more is read."""
    total = 0
    for side, sign in (("debit", -1), ("credit", 1)):
        equals: dict[str, Any] = {side: name, "kind": MOVING}
        newer = tx.pick(Transfer, ("msat",), order="sequence", after=sequence, **equals)
        total += sign * sum(msat for (msat,) in newer)
    return total
