"""What the operator sees of workers, jobs and money."""

from __future__ import annotations

import pytest

from shardwork.errors import NotFound
from shardwork.v1 import operator_pb2
from shardwork_coordinator.records import Party
from shardwork_coordinator.rpc.operator import (
    OperatorDesk,
    check_ledger,
    get_overview,
    list_workers,
    set_worker_reference,
)

from .simulation import Simulation, count_job
from .unruly import Unruly


async def desk_of(simulation: Simulation) -> OperatorDesk:
    """Three enrolled workers, of whom two are attached, and a requester."""
    for number, roles in enumerate(("worker", "worker", "requester,worker", "requester")):
        party = Party(
            id=f"worker{number:010d}",
            public_key=bytes([number]) * 32,
            roles=roles,
            name=f"w{number}",
            created_ms=number,
            last_seen_ms=number,
        )
        await simulation.store.write(lambda tx, party=party: tx.put(party))  # type: ignore[misc]
    simulation.detach("worker0000000002")
    return OperatorDesk(engine=simulation.engine)


async def test_the_overview_counts_workers_jobs_and_money() -> None:
    simulation = Unruly(workers=3)
    desk = await desk_of(simulation)
    await simulation.submit(count_job(parts=2))
    held = await simulation.grant_all()
    await simulation.finish(held[0])
    overview = await get_overview(desk)
    assert dict(overview.jobs) == {"running": 1}
    assert dict(overview.workers) == {"ready": 1, "busy": 1, "offline": 1}
    assert dict(overview.shards) == {"done": 1, "running": 1}
    assert (overview.owed_msat, overview.fees_msat, overview.paid_msat) == (1_000, 20, 0)
    assert overview.escrow_msat == (await simulation.job()).budget_msat - 1_020


async def test_workers_are_listed_with_what_they_did_and_others_are_not() -> None:
    simulation = Unruly(workers=3)
    desk = await desk_of(simulation)
    await simulation.submit(count_job(parts=2))
    first, second = await simulation.grant_all()
    await simulation.finish(first)
    await simulation.lose(second)
    found = {one.id: one for one in (await list_workers(desk)).workers}
    assert sorted(found) == [f"worker{number:010d}" for number in range(3)]
    assert (found[first.worker_id].accepted, found[first.worker_id].earned_msat) == (1, 1_000)
    assert (found[second.worker_id].expired, found[second.worker_id].earned_msat) == (1, 0)
    assert found["worker0000000002"].state == "offline"


async def test_a_reference_mark_holds_at_once_and_for_known_workers_only() -> None:
    simulation = Unruly(workers=3)
    desk = await desk_of(simulation)
    await set_worker_reference(
        operator_pb2.SetWorkerReferenceRequest(worker_id="worker0000000000", reference=True), desk
    )
    assert simulation.engine.world().references == 1
    row = await simulation.store.read(lambda tx: tx.get(Party, "worker0000000000"))
    assert row is not None and row.reference
    with pytest.raises(NotFound):
        await set_worker_reference(operator_pb2.SetWorkerReferenceRequest(worker_id="nobody"), desk)


async def test_the_ledger_check_says_what_it_recounted() -> None:
    simulation = Unruly(workers=3)
    desk = await desk_of(simulation)
    await simulation.submit(count_job(parts=1))
    report = await check_ledger(desk)
    assert report.balanced and report.sum_msat == 0 and list(report.violations) == []
    assert report.transfers >= 2 and report.accounts >= 3
