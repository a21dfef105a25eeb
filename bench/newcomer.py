"""A newcomer's way: the quickstart's commands in an empty folder, until a job of one's own runs, by the stopwatch.

    python bench/newcomer.py         # writes bench/results/newcomer.json

Reads the commands from docs/quickstart.md and types each as soon as the one before has ended; reading and typing are
not counted, nor is the installation. The job is the page's own, not made smaller. Real processes on one machine.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "deploy" / "demo")]

from tests.docs.reader import Reader, environment, prepare  # noqa: E402
from tests.docs.shell import Shell  # noqa: E402
from tests.house.blocks import blocks  # noqa: E402

PAGE = "docs/quickstart.md"
LAST = "shardwork job plan"
RESULTS = Path(__file__).parent / "results" / "newcomer.json"
LOOK_EVERY_S = 0.2
PATIENCE_S = 180.0


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        measured = walk(Path(folder) / "newcomer")
    measured["machine"] = {
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }
    RESULTS.write_text(json.dumps(measured, indent=1) + "\n")
    print(json.dumps(measured, indent=1))
    return 0


def walk(folder: Path) -> dict[str, object]:
    """Seconds until the job was planned, until it ran, and until its first shard was done."""
    prepare(folder)
    shell = Shell(folder, environment(folder / "home"))
    reader = Reader(shell, homes={"requester": str(folder / "home")}, made_smaller=False)
    begun = time.monotonic()
    try:
        for block in blocks(PAGE, (ROOT / PAGE).read_text(encoding="utf-8")):
            if any(ran.command.startswith(LAST) for ran in reader.done):
                break
            wrong = reader.follow([block])
            assert not wrong, wrong
        planned = time.monotonic() - begun
        submitted = shell.run("shardwork job submit job.yaml --yes")
        assert submitted.exit_code == 0, submitted.output
        running = time.monotonic() - begun
        wait_first_shard(shell, reader)
        return {
            "commands": len(reader.done) + 1,
            "until_planned_s": round(planned, 2),
            "until_running_s": round(running, 2),
            "until_first_shard_done_s": round(time.monotonic() - begun, 2),
            "most_s": 180,
        }
    finally:
        shell.end()


def wait_first_shard(shell: Shell, reader: Reader) -> None:
    job = reader.put_in("ID")
    end_s = time.monotonic() + PATIENCE_S
    while not json.loads(shell.value(f"shardwork job show {job} --json"))["shards"].get("done"):
        assert time.monotonic() < end_s, "no shard was done"
        time.sleep(LOOK_EVERY_S)


if __name__ == "__main__":
    sys.exit(main())
