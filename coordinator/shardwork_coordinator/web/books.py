"""Books: totals, the recounted ledger and the comparison with the payment node, each kept for a while.

One for all pages, so that they show the same numbers and the ledger is recounted once for all of them. Owns when to
count; `money.ledger` and `money.reconciliation` count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .. import views
from ..engine import Engine
from ..money import ledger, reconciliation
from ..money.reconciliation import Compared
from ..payments.base import Payments
from ..records import Account
from ..store.base import Transaction
from .kept import Beside, Kept

#: totals read every account
KEEP_TOTALS_S = 5.0
#: recounting the ledger reads every transfer
KEEP_CHECK_S = 60.0
#: the node is asked about many payments
KEEP_COMPARED_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The ledger, recounted at a time."""

    report: ledger.LedgerReport
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """All accounts of one kind together."""

    accounts: int
    balance_msat: int
    held_msat: int


class Books:
    """One per coordinator process."""

    def __init__(self, engine: Engine, payments: Payments | None = None) -> None:
        """`payments`: the node that is compared with; None compares with none."""
        self.payments = payments
        self._engine = engine
        self.totals = Kept(lambda: engine.store.read(views.house_totals), KEEP_TOTALS_S)
        self.kinds = Kept(lambda: engine.store.read(kinds), KEEP_TOTALS_S)
        self.checked = Kept(self._check, KEEP_CHECK_S)
        #: the same for pages, of which none waits for it
        self.beside = Beside(self.checked, "ledger")
        self.compared = Kept(self._compare, KEEP_COMPARED_S)

    async def check_now(self) -> Checked:
        """Counts and compares everything again."""
        await self.totals.renew()
        await self.kinds.renew()
        await self.compared.renew()
        return await self.checked.renew()

    async def _check(self) -> Checked:
        at_ms = self._engine.clock.now_ms()
        return Checked(report=await self._engine.store.read(ledger.check), at_ms=at_ms)

    async def _compare(self) -> Compared:
        return await reconciliation.compare(self._engine.store, self.payments, self._engine.clock)


def kinds(tx: Transaction) -> Mapping[str, Kind]:
    """By what stands before the colon of an account's name."""
    sums: dict[str, list[int]] = {}
    wanted = ("id", "debits_pending", "debits_posted", "credits_posted")
    for name, held, debits, credits in tx.pick(Account, wanted):
        found = sums.setdefault(name.partition(":")[0], [0, 0, 0])
        found[0], found[1], found[2] = found[0] + 1, found[1] + credits - debits, found[2] + held
    return {
        name: Kind(accounts=count, balance_msat=balance, held_msat=held)
        for name, (count, balance, held) in sorted(sums.items())
    }
