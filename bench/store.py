"""Durable transactions per second of the SQL store, against a raw sqlite3 loop with one commit each.

    python bench/store.py            # writes bench/results/store.json

Two works: `row` inserts one row; `transfer` is one `ledger.apply` (its replay check, its sequence, the transfer and two
accounts). The raw loops do the least that leaves the same rows: one INSERT, or one INSERT and two upserts, then COMMIT.
All run in WAL mode with synchronous=FULL, in files on the same disk, in turns (raw, 1 client, 8 clients, raw, …) in one
run; the figures are medians. Clients are coroutines that send their next work when the last was answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sqlite3
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import Move
from shardwork_coordinator.records import Answer
from shardwork_coordinator.store import SqlStore, Transaction

CLIENTS = (1, 8, 64)
REPEATS = 5
SECONDS = 1.5
RESULTS = Path(__file__).parent / "results" / "store.json"

Work = Callable[[Transaction], object]


def row_work(client: int, number: int) -> Work:
    answer = Answer(id=f"{client}.{number}", request_sha256="00" * 32, response=b"x" * 100, created_ms=number)
    return lambda tx: tx.insert(answer)


def transfer_work(client: int, number: int) -> Work:
    move = Move(
        id=f"{client}.{number}",
        debit="external:simulated",
        credit=f"user:{client}",
        msat=1,
        reason="deposit",
        reference="bench",
    )
    return lambda tx: ledger.apply(tx, move, number)


async def _store_rate(folder: Path, work: Callable[[int, int], Work], clients: int) -> float:
    store = SqlStore(f"sqlite:///{folder}/store.db")
    store.start()
    done = 0

    async def client(name: int, until: float) -> None:
        nonlocal done
        number = 0
        while time.perf_counter() < until:
            number += 1
            await store.write(work(name, number))
            done += 1

    await store.write(work(-1, 0))
    start = time.perf_counter()
    await asyncio.gather(*(client(name, start + SECONDS) for name in range(clients)))
    elapsed = time.perf_counter() - start
    store.close()
    return done / elapsed


def store_rate(work: Callable[[int, int], Work], clients: int, folder: Path) -> float:
    return asyncio.run(_store_rate(folder, work, clients))


def raw_row(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("INSERT INTO answer VALUES (?, ?, ?, ?)", (str(number), "00" * 32, b"x" * 100, number))


def raw_transfer(connection: sqlite3.Connection, number: int) -> None:
    connection.execute(
        "INSERT INTO transfer VALUES (?, ?, 'posted', 'external:simulated', 'user:0', 1, NULL, 'deposit', 'bench', ?)",
        (str(number), number, number),
    )
    for account, column in (("external:simulated", "debits_posted"), ("user:0", "credits_posted")):
        connection.execute(
            f"INSERT INTO account (id, debits_pending, debits_posted, credits_pending, credits_posted) "
            f"VALUES (?, 0, ?, 0, ?) ON CONFLICT DO UPDATE SET {column} = {column} + 1",
            (account, column == "debits_posted", column == "credits_posted"),
        )


def raw_rate(folder: Path, body: Callable[[sqlite3.Connection, int], None]) -> float:
    """The store's own schema, so that its indexes and checks weigh on both sides."""
    store = SqlStore(f"sqlite:///{folder}/raw.db")
    store.start()
    store.close()
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    number, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        number += 1
        connection.execute("BEGIN IMMEDIATE")
        body(connection, number)
        connection.execute("COMMIT")
    elapsed = time.perf_counter() - start
    connection.close()
    return number / elapsed


def in_new_folder(measure: Callable[[Path], float]) -> float:
    with tempfile.TemporaryDirectory(dir=os.environ.get("SHARDWORK_BENCH_DIR")) as folder:
        return measure(Path(folder))


def compare(raw: Callable[[sqlite3.Connection, int], None], work: Callable[[int, int], Work]) -> dict[str, float]:
    rates: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        rates.setdefault("raw", []).append(in_new_folder(lambda folder: raw_rate(folder, raw)))
        for clients in CLIENTS:
            rates.setdefault(str(clients), []).append(in_new_folder(partial(store_rate, work, clients)))
    middle = {name: median(values) for name, values in rates.items()}
    report = {"raw_per_s": round(middle["raw"])}
    for clients in CLIENTS:
        report[f"clients_{clients}_per_s"] = round(middle[str(clients)])
    return report | {f"clients_{n}_ratio": round(middle[str(n)] / middle["raw"], 2) for n in CLIENTS}


def main() -> None:
    report = {
        "what": "durable transactions per second, median of "
        f"{REPEATS}, raw sqlite3 loop and store in turns; ratio = store : raw",
        "machine": {
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "load": round(os.getloadavg()[0], 2),
        },
        "row": compare(raw_row, row_work),
        "transfer": compare(raw_transfer, transfer_work),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
