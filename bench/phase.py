"""What the coordinator itself spends on a shard, in phases of 16 to 1,024 shards, against the bare commits it needs.

    python bench/phase.py            # writes bench/results/phase.json

The real core (machine, engine, granting, ledger) on SQLite with scripted workers that compute nothing: per shard one
grant, one commitment with its submission, in durable transactions one after the other. The raw limit is the same
number of one-row sqlite3 commits with synchronous=FULL on the same disk, in the same run. A cost per shard that grows
with the phase would be a step that reads its siblings.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import tempfile
import time
from pathlib import Path

from shardwork_coordinator.records import JobState
from shardwork_coordinator.store import SqlStore
from tests.coordinator.simulation import Simulation, count_job

SHARDS = (16, 128, 1024)
WORKERS = 8
RESULTS = Path(__file__).parent / "results" / "phase.json"


async def milliseconds_a_shard(shards: int, folder: Path) -> dict[str, float]:
    simulation = Simulation(workers=WORKERS)
    store = SqlStore(f"sqlite:///{folder}/coordinator.db")
    store.start()
    simulation.store = simulation.engine.store = store  # type: ignore[assignment]
    await simulation.submit(count_job(shards), funds_msat=10**12)
    await simulation.run_effects()
    granting = finishing = 0.0
    while True:
        start = time.perf_counter()
        await simulation.granting.grant()
        granting += time.perf_counter() - start
        held = await simulation.held()
        if not held:
            break
        start = time.perf_counter()
        for replica in held:
            await simulation.finish(replica)
        finishing += time.perf_counter() - start
    await simulation.run_effects()
    assert (await simulation.job()).state is JobState.SUCCEEDED
    store.close()
    return {"grant_ms": granting / shards * 1000, "result_ms": finishing / shards * 1000}


def raw_commit_ms(folder: Path, count: int = 500) -> float:
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, text TEXT)")
    start = time.perf_counter()
    for number in range(count):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO row VALUES (?, ?)", (number, "x" * 100))
        connection.execute("COMMIT")
    elapsed = time.perf_counter() - start
    connection.close()
    return elapsed / count * 1000


def main() -> None:
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        raw = [raw_commit_ms(Path(folder))]
        for shards in SHARDS:
            place = Path(folder) / str(shards)
            place.mkdir()
            found[str(shards)] = asyncio.run(milliseconds_a_shard(shards, place))
            (Path(folder) / "raw.db").unlink()
            raw.append(raw_commit_ms(Path(folder)))
    result = {
        "phase_of": {
            shards: {name: round(value, 3) for name, value in times.items()} for shards, times in found.items()
        },
        "result_ms_1024_over_16": round(found["1024"]["result_ms"] / found["16"]["result_ms"], 2),
        "raw_commit_ms": round(sorted(raw)[len(raw) // 2], 3),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
