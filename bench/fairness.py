"""Fair shares between requesters on the real core: who gets how much of the workers, who waits how long, who starves.

    python bench/fairness.py            # writes bench/results/fairness.json

The real machine, engine, granting and ledger on the in-memory store; scripted workers with a virtual clock take as long
as a shard's work at their speed says, and compute nothing. Scenarios: two requesters with ten jobs each whose shards
differ in length by 1 to 100; one whose jobs come late; one greedy requester with a hundred jobs beside one with three;
the same with workers eight times slower than others. The peer in the same run is the order used before (oldest job
first). A share is a requester's part of the worker-seconds, weighted by speed, while both have work; a wait is the time
in which a job has something ready and nothing running: with more jobs than workers there are always such. What a job
waits for other people's long shards is what it waits when it is its turn: until any worker comes free, and never for a
certain one. Starved is a job that waited longer than it takes to serve every other one a shard first.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from shardwork.jobs.spec import BudgetSection, JobSpec, PlanSection, StageSpec, TrustSection
from shardwork.recipes.base import StageFacts
from shardwork_coordinator.queueing import line
from shardwork_coordinator.records import JobState, Replica, ReplicaState, Shard
from shardwork_coordinator.store.base import Transaction
from tests.coordinator import simulation as scripted
from tests.coordinator.simulation import Simulation

RESULTS = Path(__file__).parent / "results" / "fairness.json"
WORKERS = 8
#: work units a second of a plain worker, and seconds that any shard takes beside computing
SPEED, OVERHEAD_S = 10**11, 1.0
#: the clock counts whole milliseconds
TICK_S = 1e-3
FACTS = StageFacts(rows=500, tokens=50_000, run_params=1_000_000, trained_params=1_000_000, input_bytes=10_000)


@dataclass(frozen=True, slots=True)
class Planned:
    """One job of a scenario: when it comes, and inner steps of a shard, which make its length."""

    owner: str
    at_s: float
    inner_steps: int


@dataclass(slots=True)
class Seen:
    """What one run showed."""

    #: (owner, job, from, to, its worker's speed) of each shard that ran
    ran: list[tuple[str, str, float, float, float]] = field(default_factory=list[tuple[str, str, float, float, float]])
    longest_wait_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    #: how long a job whose turn it was waited until a worker came free
    turn_s: list[float] = field(default_factory=list[float])
    idle_while_waiting: int = 0
    ended_s: dict[str, float] = field(default_factory=dict[str, float])


def job(planned: Planned, rounds: int = 2, shards: int = 4) -> JobSpec:
    stage = StageSpec(
        name="tune",
        recipe="sft",
        base_model="./base",
        data=["train.jsonl"],
        params={"method": "full"},
        plan=PlanSection(rounds=rounds, shards_per_round=shards, inner_steps=planned.inner_steps),
    )
    trust = TrustSection.model_validate({"class": "public"})
    return JobSpec(name="bench", stages=[stage], trust=trust, budget=BudgetSection(max_sats=10**7))


class Run:
    """Drives the core event by event: a job comes, a worker ends a shard."""

    def __init__(self, plan: list[Planned], speeds: list[float]) -> None:
        scripted.FACTS = FACTS
        self.simulation, self.seen = Simulation(workers=0), Seen()
        self.start = self.simulation.clock.now_ms()
        self.speed: dict[str, float] = {}
        for number, each in enumerate(speeds):
            name = f"worker{number:010d}"
            self.simulation.attach(name, reference=number == 0)
            self.speed[name] = each
        self.coming = list(enumerate(sorted(plan, key=lambda one: one.at_s)))
        self.owners: dict[str, str] = {}
        #: (when, shard, replica) of what runs
        self.ending: list[tuple[float, str, int]] = []
        #: since when a job waits with nothing running
        self.since: dict[str, float] = {}
        self.known = line.KnownJobs()
        #: (job whose turn it is, since when); empty where nothing waits
        self.turn = ("", 0.0)

    def now_s(self) -> float:
        return (self.simulation.clock.now_ms() - self.start) / 1000

    async def until(self, horizon_s: float) -> Seen:
        while (self.coming or self.ending) and self.now_s() < horizon_s:
            arrival = self.coming[0][1].at_s if self.coming else float("inf")
            next_s = min(arrival, self.ending[0][0] if self.ending else float("inf"))
            self.simulation.clock.advance(max(next_s - self.now_s(), 0.0))
            await self._arrive()
            await self._end()
            await self._settle()
        for name, started in self.since.items():
            self.seen.longest_wait_s[name] = max(self.seen.longest_wait_s[name], self.now_s() - started)
        return self.seen

    async def _arrive(self) -> None:
        while self.coming and self.coming[0][1].at_s <= self.now_s() + TICK_S:
            number, planned = self.coming.pop(0)
            name = f"job{number:09d}"
            self.owners[name] = planned.owner
            await self.simulation.submit(job(planned), job_id=name, owner=planned.owner, funds_msat=10**13)

    async def _end(self) -> None:
        while self.ending and self.ending[0][0] <= self.now_s() + TICK_S:
            _, shard, number = heapq.heappop(self.ending)
            replica = await self.simulation.store.read(partial(_replica, shard=shard, number=number))
            assert replica is not None
            await self.simulation.finish(replica)
            done = await self.simulation.job(replica.job_id)
            if done.state is JobState.SUCCEEDED:
                self.seen.ended_s.setdefault(done.id, self.now_s())

    async def _settle(self) -> None:
        granting = self.simulation.granting
        while await self.simulation.run_effects() + await granting.grant() or granting.is_half_done:
            pass
        known = {(shard, number) for _, shard, number in self.ending}
        for replica in await self.simulation.held():
            if (replica.shard_id, replica.number) in known:
                continue
            shard = await self.simulation.store.read(partial(_shard, shard=replica.shard_id))
            assert shard is not None
            ends_s = self.now_s() + OVERHEAD_S + shard.work_units / (SPEED * self.speed[replica.worker_id])
            heapq.heappush(self.ending, (ends_s, replica.shard_id, replica.number))
            speed = self.speed[replica.worker_id]
            self.seen.ran.append((self.owners[replica.job_id], replica.job_id, self.now_s(), ends_s, speed))
            if replica.job_id == self.turn[0]:
                self.seen.turn_s.append(self.now_s() - self.turn[1])
                self.turn = ("", 0.0)
        await self._look()
        head = await self.simulation.store.write(self._head) or ""
        if head != self.turn[0]:
            self.turn = (head, self.now_s())

    def _head(self, tx: Transaction) -> str | None:
        return line.Line(tx, self.known).head()

    async def _look(self) -> None:
        ready, anybodys, held = await self.simulation.store.read(_counts)
        if anybodys and sum(held.values()) < len(self.speed):
            self.seen.idle_while_waiting += 1
        for name in self.owners:
            if ready.get(name) and not held.get(name):
                self.since.setdefault(name, self.now_s())
            elif name in self.since:
                waited = self.now_s() - self.since.pop(name)
                self.seen.longest_wait_s[name] = max(self.seen.longest_wait_s[name], waited)


def _replica(tx: Transaction, *, shard: str, number: int) -> Replica | None:
    return tx.get(Replica, shard, number)


def _shard(tx: Transaction, *, shard: str) -> Shard | None:
    return tx.get(Shard, shard)


def _counts(tx: Transaction) -> tuple[dict[str, int], int, dict[str, int]]:
    """What waits by job, how much of it anybody may take, what runs by job."""
    # what only the reference worker may take waits for nobody else
    kept = {shard.id for shard in tx.find(Shard, state="ready", reference_only=True)}
    anybodys = sum(one.shard_id not in kept for one in tx.find(Replica, state=ReplicaState.READY))
    ready = tx.count(Replica, "job_id", state=ReplicaState.READY)
    return ready, anybodys, tx.count(Replica, "job_id", state=["leased", "committed"])


async def run(plan: list[Planned], speeds: list[float], horizon_s: float) -> Seen:
    return await Run(plan, speeds).until(horizon_s)


def shares(seen: Seen, owners: tuple[str, str], contested: tuple[float, float]) -> dict[str, float]:
    """Each owner's part of the worker-seconds, weighted by speed, within the time in which both had work."""
    inside: dict[str, float] = defaultdict(float)
    for owner, _, begun, ended, speed in seen.ran:
        inside[owner] += speed * max(min(ended, contested[1]) - max(begun, contested[0]), 0.0)
    total = sum(inside[owner] for owner in owners) or 1.0
    return {owner: round(inside[owner] / total, 4) for owner in owners}


def contested(seen: Seen, plan: list[Planned], horizon_s: float) -> tuple[float, float]:
    """From when both have jobs until the first of them has none left."""
    owners = {planned.owner for planned in plan}
    first = max(min(one.at_s for one in plan if one.owner == owner) for owner in owners)
    ends: dict[str, float] = defaultdict(float)
    for number, planned in enumerate(sorted(plan, key=lambda one: one.at_s)):
        ends[planned.owner] = max(ends[planned.owner], seen.ended_s.get(f"job{number:09d}", horizon_s))
    return first, min(ends.values())


def figures(
    seen: Seen, plan: list[Planned], owners: tuple[str, str], horizon_s: float, workers: int = WORKERS
) -> dict[str, object]:
    window = contested(seen, plan, horizon_s)
    longest = max(ended - begun for _, _, begun, ended, _ in seen.ran)
    waits = [seen.longest_wait_s.get(name, 0.0) for _, name, _, _, _ in seen.ran]
    return {
        "shares": shares(seen, owners, window),
        "contested_s": round(window[1] - window[0], 1),
        "longest_shard_s": round(longest, 1),
        "longest_wait_s": round(max(waits), 1),
        "median_longest_wait_s": round(statistics.median(waits), 1),
        "longest_wait_in_turn_s": round(max(seen.turn_s, default=0.0), 1),
        "median_wait_in_turn_s": round(statistics.median(seen.turn_s or [0.0]), 2),
        "starved": sum(1 for wait in seen.longest_wait_s.values() if wait > longest * (len(plan) / workers + 1)),
        "moments_with_an_idle_worker_and_work_waiting": seen.idle_while_waiting,
        "mean_job_s": round(statistics.mean(seen.ended_s.values()), 1) if seen.ended_s else None,
        "jobs_done": len(seen.ended_s),
    }


def oldest_first() -> Callable[[], None]:
    """The order before fair shares: puts it in place, and gives back how to take it away."""
    kept = line.Line.head

    def head(self: line.Line) -> str | None:
        waiting = [(self.facts(name).created_ms, name) for jobs in self._jobs.values() for name in jobs]  # pyright: ignore[reportPrivateUsage]
        return min(waiting)[1] if waiting else None

    line.Line.head = head  # type: ignore[method-assign]

    def undo() -> None:
        line.Line.head = kept  # type: ignore[method-assign]

    return undo


def scenarios() -> dict[str, tuple[list[Planned], list[float]]]:
    lengths = [10, 20, 50, 100, 200, 400, 1_000, 1_000, 200, 50]
    even = [1.0] * WORKERS
    ten = [Planned(owner, 0.0, steps) for owner in ("anna", "boris") for steps in lengths]
    late = [Planned(one.owner, 0.0 if one.owner == "anna" else 60.0, one.inner_steps) for one in ten]
    greedy = [Planned("anna", 0.0, 100) for _ in range(100)] + [Planned("boris", 60.0, 400) for _ in range(3)]
    short = [Planned("anna", 0.0, 1_000) for _ in range(10)] + [Planned("boris", 5.0, 10) for _ in range(10)]
    return {
        "ten_jobs_each": (ten, even),
        "ten_jobs_each_mixed_workers": (ten, [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.125]),
        "late_comer": (late, even),
        "greedy": (greedy, even),
        "long_beside_short": (short, even),
    }


async def main() -> None:
    owners, horizon_s = ("anna", "boris"), 4_000.0
    found: dict[str, object] = {}
    for name, (plan, speeds) in scenarios().items():
        fair = figures(await run(plan, speeds, horizon_s), plan, owners, horizon_s)
        undo = oldest_first()
        before = figures(await run(plan, speeds, horizon_s), plan, owners, horizon_s)
        undo()
        found[name] = {"fair": fair, "oldest_first": before}
        print(name, json.dumps(found[name], indent=2))
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
