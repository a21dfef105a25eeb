"""How long the three commands take to say what they can do: CPU seconds of `--help`, and of bare Python beside it.

CPU seconds (user and system, with the system's share of starting the interpreter), because they hardly depend on what
else the machine does. The figure is the least of several runs after a first one that writes the bytecode.

    python bench/help.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RESULT = Path(__file__).resolve().parent / "results" / "help.json"
BIN = Path(sys.executable).parent
COMMANDS = ("shardwork", "shardwork-worker", "shardwork-coordinator")
#: CPU seconds that people may notice
GOAL_S = 0.3


def spent(command: list[str]) -> tuple[float, float]:
    """CPU and wall seconds of one run. Raises CalledProcessError when it fails."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_s


def measured(command: list[str], repeats: int) -> dict[str, float]:
    spent(command)
    runs = [spent(command) for _ in range(repeats)]
    return {"cpu_s": round(min(cpu for cpu, _ in runs), 3), "wall_s": round(min(wall for _, wall in runs), 3)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    figures: dict[str, Any] = {
        "python": measured([sys.executable, "-c", "pass"], given.repeats),
        **{name: measured([str(BIN / name), "--help"], given.repeats) for name in COMMANDS},
        "goal_cpu_s": GOAL_S,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "load": round(os.getloadavg()[0], 1),
    }
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    slow = [name for name in COMMANDS if figures[name]["cpu_s"] > GOAL_S]
    if slow:
        print(f"above {GOAL_S} s: {', '.join(slow)}", file=sys.stderr)
    return 1 if "shardwork" in slow else 0


if __name__ == "__main__":
    sys.exit(main())
