"""What one scrape of /metrics costs with 20,000 shards, 1,000 workers and 1,000 jobs in the store.

    python bench/scrape.py          # writes bench/results/scrape.json

The real store on disk (SQLite) and the real reader, with the state of `bench/scale.py`: one job whose open phase has
1,000 shards of 10,000, and 999 jobs with a phase open; 1,000 workers attached, each with an account. Each scrape is one
of a fresh reader, so that nothing was kept from the one before and the ledger is counted too; `scrape_kept` is that of
a reader that kept its look for the 5 s that it does. The two largest parts are measured alone. Milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.scale import JOBS, ROUNDS, SHARDS, fill, timed
from shardwork_coordinator import views
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import Move, user_account, worker_account
from shardwork_coordinator.records import Party, Shard
from shardwork_coordinator.store import SqlStore
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.web.metrics import Metrics
from tests.coordinator.simulation import OWNER, Simulation

RESULTS = Path(__file__).parent / "results" / "scrape.json"
WORKERS = 1_000


def enrol(tx: Transaction) -> None:
    """Rows and an earning for each worker."""
    for number in range(WORKERS):
        worker = f"worker{number:010d}"
        tx.put(
            Party(
                id=worker,
                public_key=number.to_bytes(32, "big"),
                roles="worker",
                name=worker,
                created_ms=number,
                last_seen_ms=number,
            )
        )
        earned = Move(
            id=f"bench/{worker}",
            debit=user_account(OWNER),
            credit=worker_account(worker),
            msat=1_000,
            reason="shard",
            reference="bench",
        )
        ledger.apply(tx, earned, 0)


def complete(tx: Transaction, large: str) -> None:
    """The shards of the rounds that the large job has not opened yet."""
    open_ = tx.find(Shard, job_id=large, phase="learn")
    for number in range(2, ROUNDS + 1):
        for shard in open_:
            name = shard.id.replace("/r1/", f"/r{number}/")
            tx.put(replace(shard, id=name, round=number))


async def measure(folder: Path) -> dict[str, Any]:
    store = SqlStore(f"sqlite:///{folder / 'coordinator.db'}")
    simulation = Simulation(workers=WORKERS, store=store)
    large = await fill(simulation)
    await store.write(enrol)
    await store.write(lambda tx: complete(tx, large))

    async def fresh() -> None:
        text = await Metrics(simulation.engine, folder=folder).scrape()
        assert b"shardwork_store_up 1.0" in text

    kept = Metrics(simulation.engine, folder=folder)
    size = len(await kept.scrape())
    counts = await store.read(lambda tx: {"shards": sum(tx.count(Shard, "state").values())})
    result = {
        "jobs": JOBS,
        "workers": WORKERS,
        **counts,
        "shards_a_phase": SHARDS,
        "cores": os.cpu_count(),
        "scrape_ms": await timed(fresh),
        "scrape_kept_ms": await timed(kept.scrape),
        "every_account_ms": await timed(lambda: store.read(views.house_totals)),
        "ledger_recount_ms": await timed(lambda: store.read(ledger.check), 3),
        "bytes": size,
        "database_bytes": sum(path.stat().st_size for path in folder.glob("coordinator.db*")),
    }
    store.close()
    return result


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder)))
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
