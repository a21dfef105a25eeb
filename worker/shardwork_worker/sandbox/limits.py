"""Resource limits of the child: memory, size of a file, threads, open files, no core dumps.

They cannot be raised again. There is no address-space limit: CUDA reserves more addresses than any machine has memory.
Data is limited instead, which counts only what can be written. Called by `confine` in the child.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from .jail import Jail, Kind

OPEN_FILES = 4096


def apply(jail: Jail) -> str:
    """Sets all that the system has. Empty when each one holds, else which do not."""
    wanted = {
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_FSIZE": jail.file_bytes,
        "RLIMIT_DATA": jail.memory_bytes or resource.RLIM_INFINITY,
        "RLIMIT_NPROC": jail.threads + _tasks_of_others(jail),
    }
    failed = [name for name, value in wanted.items() if not _lower(name, value)]
    return ", ".join(failed)


def _lower(name: str, value: int) -> bool:
    kind = getattr(resource, name, None)
    if kind is None:
        return False
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY and (value == resource.RLIM_INFINITY or value > hard):
        value = hard
    try:
        resource.setrlimit(kind, (value, value))
    except (ValueError, OSError):
        return False
    return True


def _tasks_of_others(jail: Jail) -> int:
    """Threads that count against the same limit: in a user namespace of its own there are none."""
    if jail.kind is Kind.BUBBLEWRAP:
        return 0
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == os.getuid():
                total += sum(1 for _ in os.scandir(process / "task"))
        except OSError:
            continue
    return total
