"""A thousand workers on one coordinator: how long until all are attached, what they cost, and until all are back.

    python bench/crowd.py [--workers 1000]          # writes bench/results/crowd.json

A real coordinator (SQLite) and the worker's own session and stream on real TLS connections, a few hundred in a process
and with no device behind them. All come at once; then they only send their heartbeats, while a requester lists jobs and
a browser opens the public page; then the coordinator is killed with -9 and started again on the same port. Everything
runs on the same cores, the thousand handshakes of the workers' side, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "deploy" / "demo"))

from shardwork import Client
from shardwork.errors import ShardworkError
from shardwork.identity.keys import SigningKey
from shardwork.identity.role import Role
from shardwork.session import JoinLine, Session, backoff_s
from shardwork.v1 import types_pb2, work_pb2
from shardwork.why import Why
from shardwork_worker.stream import Stream
from tests.e2e.world import World

RESULT = Path(__file__).resolve().parent / "results" / "crowd.json"
A_PROCESS = 250
IDLE_S = 60.0
PATIENCE_S = 240.0
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Nobody:
    """The desk of a worker that takes no work and counts how often it was welcomed."""

    welcomed: Callable[[], None]
    accepting: bool = False
    is_away: bool = False
    instance: str = field(default_factory=lambda: os.urandom(8).hex())

    def hello(self) -> work_pb2.Hello:
        capability = work_pb2.Capability(device="cpu", recipes=["count"])
        return work_pb2.Hello(capability=capability, accepting=False, instance=self.instance)

    def running(self) -> Sequence[work_pb2.LeaseStatus]:
        return ()

    def holdings(self) -> work_pb2.Holdings | None:
        return None

    def on_welcome(self, worker_id: str) -> None:
        self.welcomed()

    def on_offer(self, envelope: types_pb2.Envelope) -> None: ...
    def on_revoke(self, lease_id: str, why: Why) -> None: ...
    def on_settlement(self, settlement: work_pb2.Settlement) -> None: ...
    def on_idle(self, why: Why) -> None: ...
    def on_peers(self) -> None: ...
    def on_disconnect(self, why: Why) -> None: ...


async def live(join: JoinLine, welcomed: Callable[[], None]) -> None:
    """One worker, as its agent would do it: enrols until it is let in, then stays attached for ever."""
    key, failures = SigningKey.generate(), 0
    while True:
        try:
            session = await Session.open(join, key, Role.WORKER)
            break
        except ShardworkError:
            await asyncio.sleep(backoff_s(min(failures, 3)))
            failures += 1
    await Stream(session, Nobody(welcomed)).run()


def crowd(join: str, workers: int, welcomes: Semaphore) -> None:
    async def all_of_them() -> None:
        await asyncio.gather(*(live(JoinLine.parse(join), welcomes.release) for _ in range(workers)))

    asyncio.run(all_of_them())


def until_all(welcomes: Semaphore, workers: int) -> dict[str, float]:
    """Seconds until the first, half, and the last of so many welcomes."""
    begun = time.monotonic()
    spent: list[float] = []
    for _ in range(workers):
        assert welcomes.acquire(timeout=PATIENCE_S), f"{len(spent)} of {workers} came"
        spent.append(time.monotonic() - begun)
    return {"first_s": round(spent[0], 2), "half_s": round(spent[workers // 2], 2), "last_s": round(spent[-1], 2)}


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mb(pid: int) -> float:
    return round(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 1e6, 1)


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def idle(world: World, span_s: float) -> dict[str, Any]:
    """What the attached workers cost, and what others feel of them."""
    pid, web = world.processes.pid("coordinator"), world.processes.web
    before, begun = cpu_s(pid), time.monotonic()
    calls: list[float] = []
    pages: list[float] = []
    with Client(world.processes.join, home=world.folder / "client") as client:
        client.connect()
        while time.monotonic() < begun + span_s:
            calls.append(timed(lambda: client.jobs(limit=20)))
            pages.append(timed(lambda: urllib.request.urlopen(web, timeout=30).read()))
            time.sleep(0.5)
    return {
        "cpu_share": round((cpu_s(pid) - before) / (time.monotonic() - begun), 3),
        "memory_mb": memory_mb(pid),
        "open_files": len(os.listdir(f"/proc/{pid}/fd")),
        "list_median_ms": round(statistics.median(calls), 1),
        "list_most_ms": round(max(calls), 1),
        "page_median_ms": round(statistics.median(pages), 1),
        "page_most_ms": round(max(pages), 1),
    }


def measure(world: World, workers: int) -> dict[str, Any]:
    world.start_coordinator()
    world.succeed("login", world.processes.join)
    found: dict[str, Any] = {"workers": workers, "cores": os.cpu_count(), "alone": idle(world, IDLE_S / 3)}
    welcomes, left = multiprocessing.Semaphore(0), workers
    processes: list[multiprocessing.Process] = []
    while left > 0:
        here = min(A_PROCESS, left)
        processes.append(
            multiprocessing.Process(target=crowd, args=(world.processes.join, here, welcomes), daemon=True)
        )
        left -= here
    try:
        for process in processes:
            process.start()
        found["until attached"] = until_all(welcomes, workers)
        found["attached"] = idle(world, IDLE_S)
        world.kill_coordinator()
        begun = time.monotonic()
        world.start_coordinator()
        found["restart_s"] = round(time.monotonic() - begun, 2)
        found["until back"] = until_all(welcomes, workers)
        found["back"] = idle(world, IDLE_S / 3)
    finally:
        for process in processes:
            process.kill()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    given = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        try:
            found = {"load": [round(one, 1) for one in os.getloadavg()], **measure(world, given.workers)}
            log = [json.loads(line) for line in (Path(folder) / "coordinator.log").read_text().splitlines()]
            found["log"] = sorted({line["event"] for line in log if line["level"] != "info"})
        finally:
            world.stop()
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
