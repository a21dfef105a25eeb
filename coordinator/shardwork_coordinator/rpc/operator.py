"""The operator's calls: overview, workers, reference marks, ledger check. Thin servicer at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shardwork.errors import NotFound
from shardwork.identity.role import Role
from shardwork.v1 import operator_pb2, operator_pb2_grpc

from .. import views
from ..engine import Engine
from ..links import Links
from ..machine.states import LIVE
from ..money import ledger
from ..money.movements import worker_account
from ..records import Account, Job, Lease, Party, Replica, Shard
from ..store.base import Transaction
from .auth import Context, Gate


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorDesk:
    engine: Engine


async def get_overview(desk: OperatorDesk) -> operator_pb2.GetOverviewResponse:
    def look(tx: Transaction) -> operator_pb2.GetOverviewResponse:
        totals = views.house_totals(tx)
        return operator_pb2.GetOverviewResponse(
            jobs=tx.count(Job, "state"),
            shards=tx.count(Shard, "state"),
            workers=worker_states(tx, desk.engine.links),
            escrow_msat=totals["escrow"],
            owed_msat=totals["owed"],
            paid_msat=totals["paid"],
            fees_msat=totals["fees"],
        )

    return await desk.engine.store.read(look)


def worker_states(tx: Transaction, links: Links) -> dict[str, int]:
    states: dict[str, int] = {}
    busy = {one.worker_id for one in tx.find(Replica, state=[str(state) for state in LIVE])}
    for party in tx.find(Party):
        if Role.WORKER in party.roles.split(","):
            state = worker_state(party.id, busy, links)
            states[state] = states.get(state, 0) + 1
    return states


def worker_state(worker_id: str, busy: set[str], links: Links) -> str:
    link = links.find(worker_id)
    if link is None:
        return "offline"
    if worker_id in busy:
        return "busy"
    return "ready" if link.accepting else "paused"


async def list_workers(desk: OperatorDesk) -> operator_pb2.ListWorkersResponse:
    def look(tx: Transaction) -> operator_pb2.ListWorkersResponse:
        return operator_pb2.ListWorkersResponse(workers=worker_views(tx, desk.engine.links))

    return await desk.engine.store.read(look)


def worker_views(tx: Transaction, links: Links) -> list[operator_pb2.WorkerView]:
    busy = {one.worker_id for one in tx.find(Replica, state=[str(state) for state in LIVE])}
    found: list[operator_pb2.WorkerView] = []
    for party in tx.find(Party, order="created_ms"):
        if Role.WORKER not in party.roles.split(","):
            continue
        link = links.find(party.id)
        counts = tx.count(Lease, "state", worker_id=party.id)
        account = tx.get(Account, worker_account(party.id))
        found.append(
            operator_pb2.WorkerView(
                id=party.id,
                name=party.name,
                state=worker_state(party.id, busy, links),
                device_name=link.capability.device_name if link else "",
                execution_class=link.capability.execution_class if link else "",
                reference=party.reference,
                standing=party.standing,
                accepted=counts.get("accepted", 0),
                rejected=counts.get("rejected", 0),
                expired=counts.get("expired", 0),
                # everything that was ever paid to it, paid out or not; its leases may be thousands
                earned_msat=account.credits_posted if account else 0,
                last_seen_unix_ms=link.last_seen_ms if link else party.last_seen_ms,
            )
        )
    return found


async def set_worker_reference(
    request: operator_pb2.SetWorkerReferenceRequest, desk: OperatorDesk
) -> operator_pb2.SetWorkerReferenceResponse:
    def mark(tx: Transaction) -> None:
        party = tx.get(Party, request.worker_id)
        if party is None:
            raise NotFound("worker.not_found", f"There is no worker {request.worker_id!r}.", worker=request.worker_id)
        tx.put(replace(party, reference=request.reference))

    await desk.engine.store.write(mark)
    link = desk.engine.links.get(request.worker_id)
    if link is not None:
        link.reference = request.reference
    return operator_pb2.SetWorkerReferenceResponse()


async def check_ledger(desk: OperatorDesk) -> operator_pb2.CheckLedgerResponse:
    report = await desk.engine.store.read(ledger.check)
    return operator_pb2.CheckLedgerResponse(
        balanced=report.balanced,
        sum_msat=report.sum_msat,
        violations=[why.render() for why in report.violations],
        transfers=report.transfers,
        accounts=report.accounts,
    )


class OperatorServicer(operator_pb2_grpc.OperatorServiceServicer):
    def __init__(self, gate: Gate, desk: OperatorDesk) -> None:
        self._gate, self._desk = gate, desk

    async def GetOverview(
        self, request: operator_pb2.GetOverviewRequest, context: Context
    ) -> operator_pb2.GetOverviewResponse:
        async with self._gate.admit(context, Role.OPERATOR):
            return await get_overview(self._desk)

    async def ListWorkers(
        self, request: operator_pb2.ListWorkersRequest, context: Context
    ) -> operator_pb2.ListWorkersResponse:
        async with self._gate.admit(context, Role.OPERATOR):
            return await list_workers(self._desk)

    async def SetWorkerReference(
        self, request: operator_pb2.SetWorkerReferenceRequest, context: Context
    ) -> operator_pb2.SetWorkerReferenceResponse:
        async with self._gate.admit(context, Role.OPERATOR):
            return await set_worker_reference(request, self._desk)

    async def CheckLedger(
        self, request: operator_pb2.CheckLedgerRequest, context: Context
    ) -> operator_pb2.CheckLedgerResponse:
        async with self._gate.admit(context, Role.OPERATOR):
            return await check_ledger(self._desk)
