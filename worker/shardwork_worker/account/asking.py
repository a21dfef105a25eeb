"""Asking a coordinator beside the worker that runs: its rates, this key's balance and transfers.

Owns a short session with the worker's key, which takes nothing over: only a stream does. Called by commands.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from shardwork.config import Home
from shardwork.identity.keys import load_or_create
from shardwork.identity.role import Role
from shardwork.session import JoinLine, Session
from shardwork.v1 import wallet_pb2, work_pb2
from shardwork.why import Why
from shardwork.wire import why_from_proto

from ..bench.income import Rates

#: lines of one answer
PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One line of this key's account at the coordinator."""

    id: str
    at_ms: int
    #: positive: it came in
    msat: int
    #: "shard", "payout"
    kind: str
    #: pending, posted, voided
    state: str
    reference: str
    payment_hash: str
    payout_state: str
    why: Why | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    earned_msat: int
    held_msat: int
    paid_out_msat: int
    available_msat: int
    asset: str
    #: earnings go there, from the threshold on; empty: they stay at the coordinator
    payout_address: str = ""
    threshold_msat: int = 0


@contextlib.asynccontextmanager
async def asking(join: JoinLine, home: Home) -> AsyncGenerator[Session]:
    session = await Session.open(join, load_or_create(home.key_path("worker")), Role.WORKER)
    async with session:
        yield session


async def rates(session: Session) -> Rates:
    answer = await session.call(session.work.GetRates, work_pb2.GetRatesRequest(), retries=1)
    return Rates(msat_per_tera_unit=answer.msat_per_tera_unit, minimum_msat=answer.minimum_msat, asset=answer.asset)


async def balance(session: Session) -> Balance:
    answer = await session.call(session.wallet.GetBalance, wallet_pb2.GetBalanceRequest(), retries=1)
    return Balance(
        earned_msat=answer.earned_msat,
        held_msat=answer.held_msat,
        paid_out_msat=answer.paid_out_msat,
        available_msat=answer.available_msat,
        asset=answer.asset,
        payout_address=answer.payout_address,
        threshold_msat=answer.payout_threshold_msat,
    )


async def transfers(session: Session) -> list[Transfer]:
    """Every one, newest first."""
    found: list[Transfer] = []
    before = 0
    while True:
        request = wallet_pb2.ListTransfersRequest(limit=PAGE, before_sequence=before)
        answer = await session.call(session.wallet.ListTransfers, request, retries=1)
        found += map(_transfer, answer.transfers)
        if len(answer.transfers) < PAGE:
            return found
        before = answer.transfers[-1].sequence


def _transfer(view: wallet_pb2.TransferView) -> Transfer:
    return Transfer(
        id=view.id,
        at_ms=view.at_unix_ms,
        msat=view.msat,
        kind=view.kind,
        state=view.state,
        reference=view.reference,
        payment_hash=view.payment_hash,
        payout_state=view.payout_state,
        why=why_from_proto(view.why) if view.HasField("why") else None,
    )
