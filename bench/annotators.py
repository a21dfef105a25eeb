# pyright: standard
"""Two hundred keys answer one job over the coordinator's web API: who is paid, who is stopped, what the votes say.

    python bench/annotators.py [--seed 0]     # bench/results/annotators.json; a quarter of an hour on two busy cores

A real coordinator (SQLite) with its web server; every call signed, over a socket. 160 honest people (right in 80 to
95 % of ordinary and 92 to 99 % of hidden items, as tests/shardwork/feedback/simulation.py has them) and 40 bots: any
key, a coin for left or right, always left, a copier of somebody's keys, and any key at once. One vote in ten is sent
twice at the same time, one in twenty after the line was lost under it, one in twenty is taken back; half-way the
coordinator is killed with -9 and started again. What is told was read from the ledger, the votes and the job's files.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "deploy" / "demo"))

import httpx
from annotating import outcome, questions
from annotating.keys import CLUMSY, Somebody
from run import books_of

from tests.e2e.world import World
from tests.shardwork.feedback.simulation import Habit, person

RESULT = Path(__file__).resolve().parent / "results" / "annotators.json"
HONEST, OF_A_KIND = 160, 8
KINDS = (Habit.RANDOM, Habit.COIN, Habit.LEFT, Habit.COPIER, Habit.HASTY)
#: votes after which the coordinator is killed
KILL_AT = 1_500
#: what testing everybody costs
TOPUP_SATS = 6_000
PATIENCE_S = 1_500.0


def everybody(client: httpx.AsyncClient, over: asyncio.Event, stage: dict[str, str], seed: int) -> list[Somebody]:
    """In the order in which they come: bots are spread among the others."""
    honest = [Somebody(client, person(f"honest-{number}", Habit.HONEST, seed), over, stage) for number in range(HONEST)]
    found = list(honest)
    for number in range(OF_A_KIND * len(KINDS)):
        habit = KINDS[number % len(KINDS)]
        bot = Somebody(client, person(f"{habit}-{number}", habit, seed), over, stage)
        bot.others = honest if habit is Habit.COPIER else ()
        found.insert(5 * number + 4, bot)
    return found


async def answer(world: World, job: str, stage: str, seed: int) -> list[Somebody]:
    over = asyncio.Event()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
    async with httpx.AsyncClient(base_url=world.processes.web, timeout=60, limits=limits) as client:
        people = everybody(client, over, {"job": job, "stage": stage}, seed)
        async with asyncio.TaskGroup() as group:
            for one in people:
                group.create_task(one.sit())
            await _until_over(world, job, over)
    return people


async def _until_over(world: World, job: str, over: asyncio.Event) -> None:
    killed, end_s, told_s = False, time.monotonic() + PATIENCE_S, 0.0
    while (state := world.job_state(job)) not in ("succeeded", "failed", "cancelled", "paused"):
        await asyncio.sleep(1.0)
        votes = world.rows("select count(*) from vote where job_id = ? and cast_ms > 0", job)[0][0]
        if time.monotonic() > told_s:
            print(f"{votes} votes", flush=True)
            told_s = time.monotonic() + 20
        if not killed and votes >= KILL_AT:
            killed = True
            await asyncio.to_thread(world.kill_coordinator)
            await asyncio.to_thread(world.start_coordinator)
        assert time.monotonic() < end_s, "the job does not end"
    print(f"job {state}", flush=True)
    over.set()


def measure(folder: Path, seed: int) -> dict[str, Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = World(folder, {"SHARDWORK_WEB": f"127.0.0.1:{port}"})
    planted = questions.write(folder, seed)
    try:
        world.start(sats=100_000)
        job = world.submit("annotators.yaml")
        ready = "select 1 from round where job_id = ? and phase = 'ask' and state = 'open'"
        world.until(lambda: bool(world.rows(ready, job)), "people to be asked")
        # for so few items no more would be let in than its reserve can tell apart
        world.succeed("job", "topup", job, TOPUP_SATS, "--yes")
        stage = str(world.rows("select name from stage where job_id = ?", job)[0][0])
        begun = time.monotonic()
        people = asyncio.run(answer(world, job, stage, seed))
        seconds = time.monotonic() - begun
        world.succeed("job", "download", job, "out")
        clumsy = sum((one.seen for one in people), Counter[str]())
        return {
            "seconds": round(seconds),
            "did": {name: clumsy[name] for name in CLUMSY},
            "coordinator_killed": 1,
            "differing": [told for one in people for told in one.differing],
            "payments": outcome.payments(world, job),
            "standings": outcome.standings(world, job),
            "ranking": outcome.ranking(next((folder / "out").rglob("votes.jsonl")), planted),
            "books": books_of(world.processes),
        }
    finally:
        world.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {"seed": given.seed, **measure(Path(folder), given.seed)}
    told = outcome.claims(found)
    found = {"claims": [{"says": says, "holds": holds} for says, holds in told], **found}
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    return int(not all(holds for _, holds in told))


if __name__ == "__main__":
    sys.exit(main())
