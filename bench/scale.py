"""What a coordinator answers with 10,000 shards in one job and 1,000 jobs queued: plan, submit, show, list, why, grant.

    python bench/scale.py          # writes bench/results/scale.json

The real store on disk (SQLite, then a PostgreSQL server of its own or the one that --postgresql names), engine,
granting and the jobs RPC's own handlers, without the network; scripted workers. One job of ten rounds with 1,000 learn
shards each (10,000 in all), of which the phase that is open waits; 999 more jobs with a phase open. The raw limit in
the same run is one durable commit of this disk. Each figure is a median over several calls, in milliseconds, and the
most that was seen.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

from bench.phase import raw_commit_ms
from shardwork.identity.role import Role
from shardwork.jobs.spec import BudgetSection, JobSpec, PlanSection, StageSpec, TrustSection
from shardwork.v1 import jobs_pb2
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import Move, external_account, user_account
from shardwork_coordinator.records import Replica, ReplicaState, Shard
from shardwork_coordinator.rpc.auth import Caller
from shardwork_coordinator.rpc.jobs import JobsDesk, get_job, get_job_report, list_job_events, list_jobs, quote_job
from shardwork_coordinator.rpc.steering import preview_job_control
from shardwork_coordinator.store import SqlStore
from shardwork_coordinator.store.base import Store, Transaction
from tests.coordinator.simulation import FACTS, OWNER, Simulation, count_job

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "deploy" / "demo"))

import database

RESULTS = Path(__file__).parent / "results" / "scale.json"
JOBS, ROUNDS, SHARDS, WORKERS = 1_000, 10, 1_000, 16
CALLS = 9
ME = Caller(OWNER, bytes(32), Role.REQUESTER)
OPERATOR = Caller("operator00000000", bytes(32), Role.OPERATOR)


def large_job() -> JobSpec:
    stage = StageSpec(
        name="tune",
        recipe="sft",
        base_model="./base",
        data=["train.jsonl"],
        plan=PlanSection(rounds=ROUNDS, shards_per_round=SHARDS, inner_steps=5),
    )
    trust = TrustSection.model_validate({"class": "public"})
    return JobSpec(name="large", stages=[stage], trust=trust, budget=BudgetSection(max_sats=10**9))


async def timed(work: Callable[[], Awaitable[object]], calls: int = CALLS) -> dict[str, float]:
    found: list[float] = []
    for _ in range(calls):
        start = time.perf_counter()
        await work()
        found.append((time.perf_counter() - start) * 1000)
    return {"median_ms": round(statistics.median(found), 2), "most_ms": round(max(found), 2)}


async def fill(simulation: Simulation) -> str:
    """The large job with its first learn phase open, behind it 999 with a phase open; the id of the large one."""

    def deposit(tx: Transaction) -> None:
        fund = Move(
            id="deposit/bench",
            debit=external_account("simulated"),
            credit=user_account(OWNER),
            msat=10**15,
            reason="deposit",
            reference="bench",
        )
        ledger.apply(tx, fund, 0)

    await simulation.store.write(deposit)
    large = await simulation.submit(large_job(), job_id="large0000000", funds_msat=10**12)
    await simulation.run_effects()
    while await simulation.granting.grant():
        for replica in await simulation.held():
            if replica.phase == "learn":
                break
            await simulation.finish(replica)
        else:
            await simulation.run_effects()
            continue
        break
    for number in range(JOBS - 1):
        simulation.clock.advance(0.001)
        await simulation.submit(count_job(parts=10), job_id=f"job{number:09d}", owner=f"owner{number % 50:011d}")
    await simulation.run_effects()
    return large


async def submit_ms(simulation: Simulation) -> dict[str, float]:
    """Submitting the large job once more, with everything it writes at once."""
    number = 0

    async def work() -> None:
        nonlocal number
        number += 1
        await simulation.submit(large_job(), job_id=f"again{number:07d}", funds_msat=10**12)

    return await timed(work, 3)


async def grants(simulation: Simulation) -> dict[str, float]:
    """A round of granting when one worker came free, with everything waiting."""
    found: list[float] = []
    for _ in range(4 * CALLS):
        held = await simulation.held()
        await simulation.finish(held[0])
        start = time.perf_counter()
        granted = await simulation.granting.grant()
        found.append((time.perf_counter() - start) * 1000)
        assert granted == 1
    return {"median_ms": round(statistics.median(found), 2), "most_ms": round(max(found), 2)}


async def misfits(simulation: Simulation) -> dict[str, float]:
    """A round of granting when an idle worker can take nothing of what waits."""
    simulation.attach("worker-picky0000", minimum_msat=10**12)

    async def work() -> None:
        await simulation.granting.grant()

    found = await timed(work, 3 * CALLS)
    simulation.detach("worker-picky0000")
    return found


async def measure(store: Store) -> dict[str, object]:
    simulation = Simulation(workers=WORKERS)
    simulation.store = simulation.engine.store = store  # type: ignore[assignment]
    started = time.perf_counter()
    large = await fill(simulation)
    filled_s = time.perf_counter() - started
    desk = JobsDesk(engine=simulation.engine, rates=simulation.rates)
    spec = large_job().canonical_json()
    facts = [jobs_pb2.StageFacts(stage="tune", **asdict(FACTS))]
    waiting = await store.read(lambda tx: sum(tx.count(Replica, "state", state=ReplicaState.READY).values()))
    shards = await store.read(lambda tx: sum(tx.count(Shard, "state").values()))
    found: dict[str, object] = {"filled_s": round(filled_s, 1), "waiting_replicas": waiting, "shards": shards}

    async def show() -> None:
        await get_job(jobs_pb2.GetJobRequest(job_id=large), ME, desk)

    found["plan"] = await timed(lambda: quote_job(jobs_pb2.QuoteJobRequest(spec_json=spec, facts=facts), ME, desk))
    found["show"] = await timed(show)
    found["list"] = await timed(lambda: list_jobs(jobs_pb2.ListJobsRequest(page_size=50), OPERATOR, desk))
    found["events"] = await timed(lambda: list_job_events(jobs_pb2.ListJobEventsRequest(job_id=large), ME, desk))
    found["report"] = await timed(lambda: get_job_report(jobs_pb2.GetJobReportRequest(job_id=large), ME, desk))
    preview = jobs_pb2.PreviewJobControlRequest(job_id=large, action="cancel")
    found["cost_of_cancel"] = await timed(lambda: preview_job_control(preview, ME, simulation.engine))
    found["grant"] = await grants(simulation)
    found["grant_to_nobody"] = await misfits(simulation)
    found["submit"] = await submit_ms(simulation)
    return found


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--postgresql", metavar="URL", help="an empty database; left out: a server of our own")
    given = options.parse_args()
    found: dict[str, object] = {"jobs": JOBS, "shards_in_one_job": ROUNDS * SHARDS, "workers": WORKERS}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        urls = {"sqlite": f"sqlite:///{folder}/coordinator.db"}
        urls["postgresql"] = given.postgresql or stack.enter_context(database.embedded()).new_database()
        for name, url in urls.items():
            store = SqlStore(url)
            store.start()
            found[name] = asyncio.run(measure(store))
            store.close()
            print(name, json.dumps(found[name], indent=2))
        found["raw_commit_ms"] = round(raw_commit_ms(Path(folder)), 3)
    found |= {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
