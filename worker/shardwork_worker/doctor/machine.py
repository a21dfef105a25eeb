"""This machine: folders, key, memory, and how fast its disk writes.

Owns checks that need neither the child nor a coordinator. Called by `examination`.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from shardwork.config import Home
from shardwork.errors import ShardworkError
from shardwork.identity.keys import load_or_create

from ..app import Folders
from ..limits import conflicts, gpu
from ..limits.size import show
from ..sandbox.jail import physical_memory_bytes
from ..settings import WorkerSettings
from .finding import Finding, Health, finding

#: below these a worker runs, but small models are all it can take
LOW_DISK_BYTES = 10 * 1024**3
LOW_MEMORY_BYTES = 4 * 1024**3
#: written to see how fast the disk is, and what is slow for checkpoints
TRIAL_BYTES, SLOW_BYTES_PER_S = 64 * 1024**2, 20 * 1024**2


def check_folders(folders: Folders) -> Finding:
    try:
        folders.make()
        touched = folders.artifacts / ".doctor"
        touched.write_bytes(b"")
        touched.unlink()
        free_bytes = shutil.disk_usage(folders.artifacts).free
    except OSError as error:
        next_step = "Mend the folder's permissions, or set SHARDWORK_HOME to another place."
        return finding("disk", Health.BAD, "The worker's folders cannot be written.", next_step, error=error)
    evidence = {"folder": str(folders.artifacts), "free": show(free_bytes)}
    if free_bytes < LOW_DISK_BYTES:
        next_step = f"Free some; {show(LOW_DISK_BYTES)} hold the inputs of a 1B model."
        return finding("disk", Health.NOTE, "There is little free disk.", next_step, **evidence)
    return finding("disk", Health.OK, "Folders can be written and there is room.", **evidence)


def check_key(home: Home) -> Finding:
    path = home.key_path("worker")
    if not path.exists():
        return finding("key", Health.OK, "There is no key yet; `start` makes one.", path=path)
    try:
        load_or_create(path)
    except ShardworkError as error:
        return Finding("key", Health.BAD, error.why)
    return finding("key", Health.OK, "The key is closed to other users.", path=path)


def check_disk_speed(folder: Path) -> Finding:
    """Writes a file as an output is written, with everything on the disk before it counts."""
    trial = folder / ".doctor"
    block = os.urandom(1 << 20)
    try:
        started_s = time.monotonic()
        with trial.open("wb") as file:
            for _ in range(TRIAL_BYTES // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        took_s = max(time.monotonic() - started_s, 1e-6)
    except OSError as error:
        next_step = f"Free at least {show(TRIAL_BYTES)} there; outputs are larger."
        return finding("disk-speed", Health.BAD, "A file could not be written.", next_step, error=error.strerror)
    finally:
        trial.unlink(missing_ok=True)
    speed = TRIAL_BYTES / took_s
    evidence = {"written": show(TRIAL_BYTES), "a_second": show(speed)}
    if speed < SLOW_BYTES_PER_S:
        sentence = "The disk writes slowly: checkpoints of larger models will take long."
        return finding("disk-speed", Health.NOTE, sentence, "Point SHARDWORK_HOME at a faster disk.", **evidence)
    return finding("disk-speed", Health.OK, "The disk writes fast enough.", **evidence)


def check_limits(settings: WorkerSettings, folder: Path) -> list[Finding]:
    """What of its owner's limits does not fit together or to this machine; nothing when all does."""
    try:
        conflicts.check_memory(settings, physical_memory_bytes())
    except ShardworkError as error:
        return [Finding("limits", Health.BAD, error.why)]
    device = "cpu" if settings.device == "auto" and not gpu.is_here() else settings.device
    found = conflicts.conflicts(settings, device, disk_bytes=shutil.disk_usage(folder).total)
    return [Finding("limits", Health.NOTE, why) for why in found]


def check_memory(meminfo: Path = Path("/proc/meminfo")) -> Finding:
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return finding("memory", Health.NOTE, "This system does not say how much memory is free.")
    evidence = {"total": show(total), "free": show(free)}
    if free < LOW_MEMORY_BYTES:
        sentence = "Little memory is free right now: shards of larger models would run out of it."
        return finding("memory", Health.NOTE, sentence, "End what takes it, or set memory_share.", **evidence)
    return finding("memory", Health.OK, "There is memory to work with.", **evidence)
