"""How long `job list`, `job show` and `job plan` take with 10,000 jobs: the command as a process, and the call alone.

    python bench/listing.py          # writes bench/results/listing.json

A real coordinator on SQLite and a real requester on this machine. One job is run; its rows are copied under new ids
until there are 10,000, all the same requester's. The process pays for starting Python and for TLS; the call is one of a
blocking client that is connected. Figures are medians in milliseconds, and the most that was seen; the raw limit beside
them is what `python -c "import grpc"` takes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "deploy" / "demo"))

from shardwork import Client
from tests.e2e.world import CALM, World

RESULT = Path(__file__).resolve().parent / "results" / "listing.json"
JOB = """\
name: words
recipe: count
data: corpus.txt
plan: {shards_per_round: 4}
trust: {class: public}
budget: {max_sats: 50}
"""
#: milliseconds that people wait without noticing; planning reads files as well
GOAL_MS, PLAN_GOAL_MS = 200, 1000
#: tables that say something of a job, and the column that names it
TABLES = {"job": "id", "stage": "job_id", "round": "job_id", "shard": "job_id", "replica": "job_id", "lease": "job_id"}


def timed(work: Callable[[], object], repeats: int) -> dict[str, float]:
    """Wall milliseconds; of a process its least CPU milliseconds, too: they hardly depend on what else runs here."""
    work()
    spent: list[float] = []
    cpu: list[float] = []
    for _ in range(repeats):
        begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        work()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append((time.perf_counter() - begun) * 1000)
        cpu.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000)
    figures = {"median_ms": round(statistics.median(spent), 1), "most_ms": round(max(spent), 1)}
    return figures | ({"cpu_ms": round(min(cpu), 1)} if min(cpu) > 1 else {})


def multiply(database: Path, job: str, jobs: int) -> None:
    """Copies of everything about one job, each under an id of its own and a little older than the one before."""
    with sqlite3.connect(database) as connection:
        accounts = {"account": f"id like '%{job}%'"}
        chosen = {**{table: f"{column} = '{job}'" for table, column in TABLES.items()}, **accounts}
        for table, condition in chosen.items():
            columns = [(row[1], row[2]) for row in connection.execute(f"pragma table_info({table})")]
            values = [
                f"{name} - :number" if name == "created_ms" else f"replace({name}, :job, :copy)" if text(kind) else name
                for name, kind in columns
            ]
            if table == "job":
                at = [name for name, _ in columns].index("submission_id")
                values[at] = ":copy"
            names = ", ".join(name for name, _ in columns)
            query = f"insert into {table} ({names}) select {', '.join(values)} from {table} where {condition}"
            copies = ({"job": job, "copy": f"{number:012x}", "number": number} for number in range(1, jobs))
            connection.executemany(query, copies)


def text(kind: str) -> bool:
    return kind.upper().startswith(("TEXT", "VARCHAR", "CHAR"))


def measure(world: World, job: str, repeats: int) -> dict[str, Any]:
    def command(*words: str) -> Callable[[], object]:
        def run() -> None:
            said = world.run(*words)
            assert said.exit_code == 0, said.stderr

        return run

    bare = [sys.executable, "-c", "import grpc"]
    found: dict[str, Any] = {"raw import grpc": timed(lambda: subprocess.run(bare, check=True), repeats)}
    for words in (
        *(("job", "list"), ("job", "list", "-n", "200"), ("job", "list", "--state", "succeeded")),
        *(("job", "list", "--state", "running"), ("job", "show", job), ("job", "show", job, "--json")),
        ("job", "plan", "job.yaml"),
    ):
        named = " ".join("ID" if word == job else word for word in words)
        found[f"shardwork {named}"] = timed(command(*words), repeats)
    with Client(world.processes.join, home=world.folder / "client") as client:
        client.connect()
        found["Client.jobs(limit=20)"] = timed(lambda: client.jobs(limit=20), repeats)
        found["Client.jobs(limit=200)"] = timed(lambda: client.jobs(limit=200), repeats)
        found["Client.jobs(states=running)"] = timed(lambda: client.jobs(limit=20, states=("running",)), repeats)
        found["Client.job(ID)"] = timed(lambda: client.job(job), repeats)
        found["Client.plan"] = timed(lambda: client.plan(world.folder / "job.yaml"), repeats)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), CALM)
        try:
            world.start("alice", sats=1_000)
            (world.folder / "corpus.txt").write_text("the river is long and the sea is wide\n" * 400)
            (world.folder / "job.yaml").write_text(JOB)
            job = world.submit("job.yaml")
            assert world.finish(job)["state"] == "succeeded"
            world.kill_coordinator()
            multiply(world.folder / "coordinator" / "coordinator.db", job, given.jobs)
            world.start_coordinator()
            figures = measure(world, job, given.repeats)
        finally:
            world.stop()
    told = {
        "jobs": given.jobs,
        "cores": os.cpu_count(),
        "load": [round(each, 1) for each in os.getloadavg()],
        "goal_ms": GOAL_MS,
        "plan_goal_ms": PLAN_GOAL_MS,
        **figures,
    }
    RESULT.write_text(json.dumps(told, indent=2) + "\n")
    for name, value in told.items():
        print(f"{name:<40} {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
