"""A worker with the fake child in a process of its own, to be killed: `agent_process.py JOIN HOME [IDLE_SECONDS]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from shardwork.config import Home
from shardwork.errors import ShardworkError
from shardwork.session import JoinLine
from shardwork_worker.app import Start, run
from shardwork_worker.sandbox.jail import Mode
from shardwork_worker.settings import WorkerSettings

FAKE_CHILD = (sys.executable, str(Path(__file__).with_name("fake_child.py")))


def start(join: JoinLine, folder: Path, *, idle_s: float | None = None, **settings: Any) -> Start:
    return Start(
        join=join,
        home=Home.find({"SHARDWORK_HOME": str(folder)}),
        settings=WorkerSettings(name="test", sandbox=Mode.OFF, **settings),
        idle_s=idle_s,
        child_command=FAKE_CHILD,
    )


def main() -> None:
    idle_s = float(sys.argv[3]) if len(sys.argv) > 3 else None
    try:
        code = run(start(JoinLine.parse(sys.argv[1]), Path(sys.argv[2]), idle_s=idle_s))
    except ShardworkError as error:
        print(f"error: {error} [{error.code}]", file=sys.stderr)
        code = error.exit_code
    heavy = sorted({"torch", "numpy"} & set(sys.modules))
    if heavy:
        print(f"heavy modules in the agent: {heavy}", file=sys.stderr)
        code = 99
    raise SystemExit(code)


if __name__ == "__main__":
    main()
