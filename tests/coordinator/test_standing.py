"""What the operator decides of a worker holds: nothing new, leases that go to others, earnings that stay, and words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from typer.testing import CliRunner

from shardwork.errors import Conflict, InvalidInput, NotAllowed, NotFound, StaleLease
from shardwork.money import sats
from shardwork_coordinator import cli
from shardwork_coordinator.engine import Engine
from shardwork_coordinator.events import Push
from shardwork_coordinator.granting import ready_replicas
from shardwork_coordinator.links import Links
from shardwork_coordinator.machine.planning import ATTEMPTS
from shardwork_coordinator.money import ledger, payouts
from shardwork_coordinator.money.movements import Move, external_account, worker_account
from shardwork_coordinator.payments.simulated import SimulatedPayments
from shardwork_coordinator.queueing import standing
from shardwork_coordinator.queueing.history import history_of
from shardwork_coordinator.reasons import why_idle
from shardwork_coordinator.records import (
    AuditEntry,
    JobState,
    Lease,
    Party,
    Payout,
    PayoutState,
    ReplicaState,
    Standing,
)
from shardwork_coordinator.scheduler import refusal, why_waiting
from shardwork_coordinator.store import SqlStore
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.sweeper import Sweeper

from .simulation import Simulation, count_job
from .test_sweeper import Swept
from .unruly import Unruly

T = TypeVar("T")
FIRST, SECOND = "worker0000000000", "worker0000000001"


def party(worker: str = FIRST, *, address: str = "") -> Party:
    return Party(
        id=worker,
        public_key=worker.encode(),
        roles="worker",
        name="",
        payout_address=address,
        created_ms=0,
        last_seen_ms=0,
    )


async def nothing() -> None:
    """No money moves."""


async def decide(simulation: Simulation, wanted: Standing, worker: str = FIRST) -> None:
    """As the dashboard of another coordinator does it: only the store learns it."""

    def work(tx: Transaction) -> None:
        if tx.get(Party, worker) is None:
            tx.put(party(worker))
        standing.change(tx, worker, wanted, "its results look odd")

    await simulation.store.write(work)


async def leases(simulation: Simulation, state: ReplicaState) -> list[Lease]:
    return await simulation.store.read(lambda tx: tx.find(Lease, state=state))


async def test_a_drained_worker_finishes_what_it_holds_is_paid_and_gets_nothing_new() -> None:
    simulation = Unruly(workers=1)
    swept = Swept(simulation)
    await simulation.submit(count_job(parts=2))
    (held,) = await simulation.grant_all()
    await decide(simulation, Standing.DRAINED)
    await swept.after(1)
    assert [one.shard_id for one in await simulation.held()] == [held.shard_id]
    await simulation.finish(held)
    assert [one.paid_msat for one in await leases(simulation, ReplicaState.ACCEPTED)] == [1_000]
    assert await simulation.granting.grant() == 0
    await decide(simulation, Standing.NORMAL)
    await swept.after(1)
    assert await simulation.granting.grant() == 1
    await simulation.check_books()


def _enrol(worker: str, tx: Transaction) -> None:
    tx.put(party(worker))


async def test_a_mark_of_reference_holds_within_a_second_for_a_worker_that_is_attached() -> None:
    simulation = Unruly(workers=2)
    swept = Swept(simulation)
    for worker in (FIRST, SECOND):
        await simulation.store.write(partial(_enrol, worker))
    for marked in (True, False):
        # as the command beside a coordinator that serves does it: only the store learns it
        await simulation.store.write(partial(standing.mark_reference, worker_id=FIRST, reference=marked))
        await swept.after(1)
        assert {one.worker_id: one.reference for one in simulation.links.all()} == {FIRST: marked, SECOND: False}


async def test_nothing_is_granted_between_the_decision_and_the_next_look() -> None:
    simulation = Unruly(workers=1)
    await simulation.submit(count_job(parts=1))
    await simulation.run_effects()
    await decide(simulation, Standing.DRAINED)
    link = simulation.links.get(FIRST)
    assert link is not None and link.takes_work, "the link has not heard of it yet"
    assert await simulation.granting.grant() == 0


@pytest.mark.parametrize("wanted", [Standing.QUARANTINED, Standing.BANNED])
async def test_leases_of_a_worker_that_is_not_trusted_go_to_others_at_no_attempts_cost(wanted: Standing) -> None:
    simulation = Unruly(workers=2)
    swept = Swept(simulation)
    await simulation.submit(count_job(parts=2))
    held = {one.worker_id: one for one in await simulation.grant_all()}
    await decide(simulation, wanted)
    # before the sweeper looks its result is stale already, after it as well
    with pytest.raises(StaleLease):
        await simulation.finish(held[FIRST])
    await swept.after(1)
    with pytest.raises(StaleLease):
        await simulation.finish(held[FIRST])
    (taken,) = await leases(simulation, ReplicaState.EXPIRED)
    assert (taken.worker_id, taken.paid_msat) == (FIRST, 0)
    assert json.loads(taken.why_json)["code"] == standing.TAKEN_BACK
    assert "odd" not in taken.why_json, "the operator's reason is not for the job's owner"
    (shard,) = [one for one in await simulation.shards() if one.id == held[FIRST].shard_id]
    assert shard.attempts_left == ATTEMPTS
    await simulation.finish(held[SECOND])
    assert await simulation.granting.grant() == 1
    assert [one.worker_id for one in await simulation.held()] == [SECOND]
    for replica in await simulation.held():
        await simulation.finish(replica)
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    await simulation.check_books()
    # being taken out of service is not a failure of its own
    assert (await simulation.store.read(lambda tx: history_of(tx, FIRST))).failures_in_a_row == 0


async def test_the_stream_of_a_banned_worker_ends_and_of_a_quarantined_one_does_not() -> None:
    simulation = Unruly(workers=2)
    swept = Swept(simulation)
    await decide(simulation, Standing.QUARANTINED)
    await decide(simulation, Standing.BANNED, SECOND)
    banned = simulation.links.get(SECOND)
    await swept.after(1)
    assert [link.worker_id for link in simulation.links.all()] == [FIRST]
    assert banned is not None and banned.is_banned and banned.queue.get_nowait() is None


async def test_the_worker_and_the_job_are_told_why() -> None:
    simulation = Unruly(workers=1)
    swept = Swept(simulation)
    await decide(simulation, Standing.DRAINED)
    for _ in range(4):
        await swept.after(1)
    link = simulation.links.get(FIRST)
    assert link is not None
    told = link.queue.get_nowait()
    assert told is not None and told.idle.why.code == "worker.drained_by_operator"
    assert told.idle.why.evidence["reason"] == "its results look odd"
    assert told.idle.why.next_step.startswith("Ask the operator")
    assert link.queue.empty(), "it is told once"
    worker = link.as_worker()
    assert why_idle(worker, []).code == "worker.drained_by_operator"
    await simulation.submit(count_job(parts=1))
    await simulation.run_effects()
    job = await simulation.job()
    (waiting,) = await simulation.store.read(lambda tx: ready_replicas(tx, job))
    assert refusal(waiting, worker) == "is drained by the operator"
    assert "is drained by the operator" in why_waiting(waiting, [worker]).evidence.values()
    await decide(simulation, Standing.NORMAL)
    await swept.after(1)
    assert link.as_worker().restricted is None


async def test_earnings_of_a_worker_that_is_not_trusted_stay_until_it_is_restored(tmp_path: Path) -> None:
    simulation = Simulation(workers=0)
    payments = SimulatedPayments(simulation.clock, tmp_path / "payments.jsonl")

    def earn(tx: Transaction) -> None:
        tx.put(party(address="rig@simulated"))
        pay = Move(
            id="earned",
            debit=external_account("simulated"),
            credit=worker_account(FIRST),
            msat=sats(5_000),
            reason="shard",
            reference="test",
        )
        ledger.apply(tx, pay, 0)

    async def sweep() -> list[Payout]:
        await payouts.advance(simulation.store, payments, simulation.clock)
        return await simulation.store.read(lambda tx: tx.find(Payout))

    await simulation.store.write(earn)
    await decide(simulation, Standing.QUARANTINED)
    assert await sweep() == []
    with pytest.raises(NotAllowed) as refused:
        rules = payouts.PayoutRules()
        await simulation.store.write(lambda tx: payouts.request(tx, FIRST, "simulated", rules, 0))
    assert refused.value.code == "payout.held"
    assert refused.value.why.evidence["reason"] == "its results look odd"
    await decide(simulation, Standing.NORMAL)
    assert [one.state for one in await sweep()] == [PayoutState.SETTLED]


@pytest.mark.parametrize("state", [PayoutState.CREATED, PayoutState.BOUND])
async def test_a_payout_that_was_not_sent_yet_is_held_too(tmp_path: Path, state: PayoutState) -> None:
    simulation = Simulation(workers=0)
    payments = SimulatedPayments(simulation.clock, tmp_path / "payments.jsonl")
    invoice = await payments.resolve_address("rig@simulated", sats(100))

    def begin(tx: Transaction) -> None:
        tx.put(party(address="rig@simulated"))
        move = Move(
            id="earned",
            debit=external_account("simulated"),
            credit=worker_account(FIRST),
            msat=sats(200),
            reason="shard",
            reference="test",
        )
        ledger.apply(tx, move, 0)
        row = payouts.request(tx, FIRST, "simulated", payouts.PayoutRules(), 0)
        if state is PayoutState.BOUND:
            row = replace(row, state=state, invoice=invoice.text, payment_hash=invoice.payment_hash)
            tx.put(row)

    await simulation.store.write(begin)
    await decide(simulation, Standing.BANNED)
    await payouts.advance(simulation.store, payments, simulation.clock)
    (row,) = await simulation.store.read(lambda tx: tx.find(Payout))
    assert row.state is state


async def test_a_change_needs_a_worker_a_reason_and_something_to_change() -> None:
    simulation = Simulation(workers=0)
    await decide(simulation, Standing.DRAINED)

    async def refused(worker: str, wanted: Standing, reason: str) -> str:
        with pytest.raises((Conflict, InvalidInput, NotFound)) as error:
            await simulation.store.write(lambda tx: standing.change(tx, worker, wanted, reason))
        return error.value.code

    assert await refused("nobody", Standing.DRAINED, "x") == "worker.not_found"
    assert await refused(FIRST, Standing.BANNED, " \n ") == "worker.no_reason"
    assert await refused(FIRST, Standing.DRAINED, "x") == "worker.unchanged"


async def test_what_one_coordinator_was_told_holds_at_every_other_on_the_database() -> None:
    simulation = Unruly(workers=0)
    there = Engine(simulation.store, Links("there"), simulation.clock)
    simulation.attach(FIRST)
    await simulation.submit(count_job(parts=1))
    (held,) = await simulation.grant_all()
    told: list[Push] = []
    there.tell_others = told.extend
    await decide(simulation, Standing.QUARANTINED)
    # the other one looks first: it takes the lease, and tells the one where the worker is attached
    await Sweeper(there, simulation.settings, nothing).sweep()
    assert [(one.worker_id, one.kind) for one in told] == [(FIRST, "revoke")]
    assert await simulation.held() == []
    link = simulation.links.get(FIRST)
    assert link is not None and link.takes_work
    await Swept(simulation).after(1)
    assert not link.takes_work and len(await leases(simulation, ReplicaState.EXPIRED)) == 1
    assert held.worker_id == FIRST


def test_the_commands_change_and_note_it(tmp_path: Path) -> None:
    path = f"sqlite:///{tmp_path / 'coordinator.db'}"

    def look(work: Callable[[Transaction], T]) -> T:
        store = SqlStore(path)
        store.start()
        try:
            return asyncio.run(_write(store, work))
        finally:
            store.close()

    look(lambda tx: tx.put(party()))
    for verb, wanted in (
        ("drain", Standing.DRAINED),
        ("quarantine", Standing.QUARANTINED),
        ("ban", Standing.BANNED),
        ("restore", Standing.NORMAL),
    ):
        done = CliRunner().invoke(cli.app, ["worker", verb, FIRST, "--reason", "odd", "--data-dir", str(tmp_path)])
        assert done.exit_code == 0, done.output
        row, entries = look(lambda tx: (standing.worker(tx, FIRST), tx.find(AuditEntry, order="id")))
        assert (row.standing, row.revoked) == (wanted, wanted is Standing.BANNED)
        last = entries[-1]
        assert (last.action, last.actor, last.subject, last.reason) == (f"worker.{verb}", "command line", FIRST, "odd")
    unexplained = CliRunner().invoke(cli.app, ["worker", "ban", FIRST, "--data-dir", str(tmp_path)])
    assert unexplained.exit_code == 2 and "--reason" in unexplained.output


async def _write(store: SqlStore, work: Callable[[Transaction], T]) -> T:
    return await store.write(work)
