"""The first page of money: totals, whether the books balance and the node agrees, and every account. Reads; its one
button counts again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ....accounts import audit
from ....records import Account, Job, Party, Payout, PayoutState
from ....store.base import Transaction
from ..shell import Done, Shell
from ..visits import Visit

PATH = "/money"
PAGE = 50
#: for the ledger to be counted
PATIENCE_S = 0.05
LONGEST_SEARCH = 200
#: as the tabs name them
KINDS: Mapping[str, str] = {
    "user": "requesters",
    "worker": "workers",
    "escrow": "escrow of jobs",
    "round": "reserves of rounds",
    "house": "the house",
    "external": "outside",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whose an account is."""

    #: their page; empty: there is none
    path: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRow:
    id: str
    holder: Holder
    balance_msat: int
    held_msat: int
    credits_msat: int
    debits_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountList:
    accounts: Sequence[AccountRow]
    newer: str
    older: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What somebody asked the list for."""

    kind: str = ""
    search: str = ""
    #: the last account of the page before
    after: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wanted:
        """From an address; what makes no sense is left out."""
        kind, clean = query.get("kind", ""), {name: query.get(name, "").replace("\0", "") for name in ("q", "after")}
        return cls(
            kind=kind if kind in KINDS else "",
            search=clean["q"].strip()[:LONGEST_SEARCH],
            after=clean["after"][:LONGEST_SEARCH],
        )

    @property
    def prefix(self) -> str:
        """What an account's name begins with; an id alone is looked for among all kinds."""
        return self.search if ":" in self.search or not self.kind else f"{self.kind}:{self.search}"

    def path(self, **changed: str) -> str:
        fields = {"kind": self.kind, "q": self.search} | changed
        asked = urlencode({name: value for name, value in fields.items() if value})
        return f"{PATH}?{asked}" if asked else PATH


def router(shell: Shell) -> APIRouter:
    routes, store, books = APIRouter(), shell.desk.engine.store, shell.desk.live.books

    async def show(request: Request, visit: Visit) -> Response:
        wanted = Wanted.of(request.query_params)
        found = await store.read(lambda tx: listed(tx, wanted))
        await books.beside.get(PATIENCE_S)
        return shell.html(
            request,
            visit,
            "dashboard/money/accounts.html",
            found=found,
            wanted=wanted,
            titles=KINDS,
            totals=await books.totals.get(),
            kinds=await books.kinds.get(),
            stuck=await store.read(stuck_payments),
            # not waited for: both read everything there is
            checked=books.checked.latest,
            compared=books.compared.latest,
        )

    async def check(request: Request, visit: Visit, form: dict[str, str]) -> Done:
        checked = await books.check_now()
        compared = books.compared.latest
        differences = len(checked.report.violations) + (len(compared.differences) if compared else 0)
        words = "Everything agrees." if not differences else f"{differences} differences; they are told below."
        sentence = (
            f"Counted again: {checked.report.transfers:,} transfers, {checked.report.accounts:,} accounts. {words}"
        )
        deed = audit.Deed(
            action="books.check",
            subject="ledger",
            sentence=sentence,
            evidence={"transfers": str(checked.report.transfers), "differences": str(differences)},
        )
        await shell.do(visit, deed, lambda tx: None)
        return Done(path=PATH, sentence=sentence)

    shell.page(routes, PATH, show)
    shell.action(routes, f"{PATH}/check", check)
    return routes


def listed(tx: Transaction, wanted: Wanted) -> AccountList:
    """One page of the accounts whose name begins with what was asked for, by name."""
    found: list[Account] = []
    for prefix in _prefixes(wanted):
        if len(found) > PAGE:
            break
        found += list(_beginning(tx, prefix, wanted.after, PAGE + 1 - len(found)))
    shown = found[:PAGE]
    return AccountList(
        accounts=[_row(tx, account) for account in shown],
        newer=wanted.path() if wanted.after else "",
        older=wanted.path(after=shown[-1].id) if len(found) > PAGE else "",
    )


def _prefixes(wanted: Wanted) -> list[str]:
    if wanted.kind or ":" in wanted.search or not wanted.search:
        return [wanted.prefix]
    return sorted(f"{kind}:{wanted.search}" for kind in KINDS)


def _beginning(tx: Transaction, prefix: str, after: str, limit: int) -> Iterator[Account]:
    """Names with one beginning lie together, and the beginning itself comes first."""
    if after < prefix and (same := tx.get(Account, prefix)):
        yield same
        limit -= 1
    for account in tx.find(Account, order="id", after=max(after, prefix), limit=limit):
        if not account.id.startswith(prefix):
            return
        yield account


def _row(tx: Transaction, account: Account) -> AccountRow:
    return AccountRow(
        id=account.id,
        holder=holder(tx, account.id),
        balance_msat=account.credits_posted - account.debits_posted,
        held_msat=account.debits_pending,
        credits_msat=account.credits_posted,
        debits_msat=account.debits_posted,
    )


def holder(tx: Transaction, account: str) -> Holder:
    """Whose it is, and the page that tells more of them."""
    kind, _, rest = account.partition(":")
    if kind in ("escrow", "round"):
        job = tx.get(Job, rest.split("/")[0])
        return Holder(path=f"/jobs/{job.id}" if job else "", name=job.name if job else "")
    if kind in ("user", "worker"):
        party = tx.get(Party, rest)
        path = f"/workers/{rest}" if kind == "worker" else f"/jobs?q={rest}"
        return Holder(path=path if party else "", name=party.name if party else "")
    return Holder(
        path="", name={"house": "what the house took as fees", "external": "all that came in and left"}.get(kind, "")
    )


def stuck_payments(tx: Transaction) -> int:
    """Payments of which nobody knows whether they arrived."""
    return tx.count(Payout, "state", state=PayoutState.UNKNOWN).get("unknown", 0)
