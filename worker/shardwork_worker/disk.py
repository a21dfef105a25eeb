"""Disk: whether the worker's folders take files. A full or read-only disk often mends itself, so it is asked again.

Used by the agent while it rests because of its disk.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from shardwork.partial import RESERVE_BYTES

#: as large as a journal may get
TRIAL_BYTES = 64 * 1024
#: free beyond what a download leaves alone, or the next one would be refused at once
ROOM_BYTES = 2 * RESERVE_BYTES


def takes_files(folders: Iterable[Path]) -> bool:
    """Whether each folder has room and takes a file durably. Blocking; leaves nothing behind."""
    return all(_takes_a_file(folder) for folder in folders)


def _takes_a_file(folder: Path) -> bool:
    trial = folder / ".trial"
    try:
        if shutil.disk_usage(folder).free < ROOM_BYTES:
            return False
        with trial.open("wb") as file:
            file.write(bytes(TRIAL_BYTES))
            file.flush()
            os.fsync(file.fileno())
        trial.unlink()
    except OSError:
        return False
    return True
