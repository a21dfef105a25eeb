"""Jobs of alignment on the pages of every job: their phases, how far they are, and what audits check."""

from __future__ import annotations

import html
import json
import re
from itertools import pairwise

from shardwork_coordinator.records import Job, JobState, Shard
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.web import phases, rows

from ..simulation import Simulation, answers_job, policy_job, scored_job
from .visitor import visitor

JOB = "job000000001"


async def step(simulation: Simulation) -> Job:
    """Everybody finishes what it holds."""
    simulation.clock.advance(0.1)
    await simulation.run_effects()
    await simulation.granting.grant()
    for replica in await simulation.held():
        await simulation.finish(replica)
    return await simulation.job()


def percent(tx: Transaction) -> int:
    [job] = tx.find(Job)
    return rows.job_row(tx, job, ()).percent


async def test_a_policys_job_never_seems_to_go_back() -> None:
    for spec in (policy_job(), scored_job(), answers_job()):
        simulation, seen = Simulation(workers=3), list[int]()
        await simulation.submit(spec)
        for _ in range(200):
            if (await step(simulation)).state is JobState.SUCCEEDED:
                break
            seen.append(await simulation.store.read(percent))
        assert all(before <= after for before, after in pairwise(seen)), seen
        assert 60 < seen[-1] < 100
        assert (await simulation.job()).state is JobState.SUCCEEDED


async def test_an_audit_is_called_by_what_it_checks() -> None:
    simulation = Simulation(workers=2)
    await simulation.submit(answers_job())
    await step(simulation)
    await simulation.granting.grant()
    [audit] = [one for one in await simulation.held() if one.phase == "audit"]
    [checked] = await simulation.store.read(lambda tx: tx.find(Shard, phase="map"))
    place, of = (one.removeprefix(f"{JOB}/") for one in (audit.shard_id, checked.id))
    async with visitor(simulation.engine) as client:
        page = (await client.get(f"/jobs/{JOB}/shards/{place}")).text
        assert "<h1>Audit of map shard 0</h1>" in page and f'href="/jobs/{JOB}/shards/{of}"' in page
        other = (await client.get(f"/jobs/{JOB}/shards/{of}")).text
        assert "A sample of it is checked by" in other and f'href="/jobs/{JOB}/shards/{place}"' in other
        job = (await client.get(f"/jobs/{JOB}?phase=audit")).text
        assert f'<a href="/jobs/{JOB}/shards/{place}">audit of map shard 0</a>' in job
        told = re.search(r'data-places="([^"]+)"', job)
        assert told is not None and json.loads(html.unescape(told[1])) == [place]
        assert "audit of map shard 0 went to worker" in job
        await simulation.lose(audit)
        assert "audit of map shard 0 was taken back from its worker" in (await client.get(f"/jobs/{JOB}")).text
        # shards that are numbered from 0 need no list
        assert "data-places" not in (await client.get(f"/jobs/{JOB}?phase=map")).text


async def test_phases_of_a_round_are_shown_as_they_follow_each_other() -> None:
    simulation = Simulation(workers=3)
    await simulation.submit(scored_job())
    while (await step(simulation)).state is not JobState.SUCCEEDED:
        pass
    async with visitor(simulation.engine) as client:
        page = (await client.get(f"/jobs/{JOB}?round=1")).text
    # of a round that is over: its last work, and not its audits
    assert re.search(r"Shards of [a-z]+, round 1: learn<", page)
    shown = list(dict.fromkeys(re.findall(r"round=1&amp;phase=([a-z]+)#shards", page)))
    assert shown == ["rollout", "score", "learn", "audit"]
    assert sorted(shown, key=phases.place) == shown
    throughput = re.search(r"Throughput: tokens per second from ([0-9.e+]+)", page)
    assert throughput is not None and float(throughput[1]) > 0
