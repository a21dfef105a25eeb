"""A command of the operator in a process of its own, which gets a signal as it is about to change a file.

The process comes from a server that runs no threads: one made from the test's own, with gRPC's threads and the store's
in it, would hold locks that nobody gives back. Used by `test_moments`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from pathlib import Path

from shardwork_coordinator.cli import app

CHANGES = {"open", "sqlite3.connect", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}
PATIENCE_S = 60

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__, "shardwork_coordinator.app"])


def ended(command: list[str], number: int, folder: Path, what: signal.Signals) -> int:
    """How a process ends that runs the command and gets the signal at that moment: its exit code, or minus a signal."""
    process = _processes.Process(target=_run, args=(command, number, folder, what))
    process.start()
    process.join(PATIENCE_S)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"{command} did not end, with {what.name} at its change {number}")
    return process.exitcode


def _run(command: list[str], number: int, folder: Path, what: signal.Signals) -> None:
    code = 99
    try:
        _at_moment(number, folder, what)
        code = app(command, standalone_mode=False) or 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _at_moment(number: int, folder: Path, what: signal.Signals) -> None:
    """This process gets the signal as it is about to make its `number`th change in the folder."""
    seen = 0

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in CHANGES and any(str(one).startswith(str(folder)) for one in arguments[:2]):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), what)

    sys.addaudithook(hear)
