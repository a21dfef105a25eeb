"""The pages of money: totals and accounts, one account's transfers, the ledger, payments on their way.

accounts   totals, reconciliation, every account
statement  one account, with its balance after each transfer
transfers  the whole ledger
payments   payouts, withdrawals and deposits, and what to do about those that are stuck
export     the same as CSV
"""

from __future__ import annotations

from fastapi import APIRouter

from ..shell import Shell
from . import accounts, payments, statement, transfers

__all__ = ["router"]


def router(shell: Shell) -> APIRouter:
    routes = APIRouter()
    for page in (accounts, statement, transfers, payments):
        routes.include_router(page.router(shell))
    return routes
