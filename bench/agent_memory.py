"""Memory of the worker's agent over ten shards of 100 MiB: `python bench/agent_memory.py [SHARDS] [MIB]`.

A fake coordinator (the tests') and a child without torch stand around a real agent process; every shard downloads an
input of its own and uploads that much again. Writes bench/results/agent_memory.json and exits 1 above the limit.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.worker.agent_process import __file__ as agent_script  # noqa: E402
from tests.worker.fake_coordinator import FakeCoordinator  # noqa: E402

LIMIT_MIB = 80
RESULT = ROOT / "bench" / "results" / "agent_memory.json"


def memory_mib(pid: int) -> dict[str, float]:
    """VmRSS, VmHWM (peak) and RssAnon of a process, in MiB."""
    rows = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {row[0][:-1]: round(int(row[1]) / 1024, 1) for row in rows if row[0] in ("VmRSS:", "VmHWM:", "RssAnon:")}


async def measure(folder: Path, shards: int, mib: int) -> dict[str, object]:
    coordinator = FakeCoordinator(folder / "coordinator", forget_uploads=True)
    await coordinator.start()
    agent = await asyncio.create_subprocess_exec(
        sys.executable, agent_script, coordinator.join.text(), str(folder / "home"), env={**os.environ}
    )
    try:
        await coordinator.wait("Hello")
        idle = memory_mib(agent.pid)
        series: list[float] = []
        started = time.monotonic()
        for number in range(1, shards + 1):
            rows = coordinator.keep_file(folder / f"input-{number}", "rows", os.urandom(mib << 20))
            coordinator.offer(coordinator.lease({"do": "copy"}, {"train": rows}))
            async with asyncio.timeout(300):
                while coordinator.calls["SubmitResult"] < number:
                    await asyncio.sleep(0.1)
            del coordinator.blobs[rows]
            series.append(memory_mib(agent.pid)["VmRSS"])
        seconds = time.monotonic() - started
        return {
            "shards": shards,
            "mib_down_and_up_per_shard": mib,
            "seconds": round(seconds, 1),
            "limit_mib": LIMIT_MIB,
            "idle_mib": idle,
            "rss_after_each_shard_mib": series,
            "end_mib": memory_mib(agent.pid),
        }
    finally:
        agent.terminate()
        await agent.wait()
        await coordinator.stop()


def main() -> int:
    shards = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    mib = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(measure(Path(folder), shards, mib))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    end = result["end_mib"]
    assert isinstance(end, dict)
    return 0 if end["VmHWM"] <= LIMIT_MIB else 1


if __name__ == "__main__":
    raise SystemExit(main())
