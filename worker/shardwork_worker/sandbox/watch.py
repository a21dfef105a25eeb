"""What a running shard has written: counted from outside, because no system limits a folder for an ordinary user.

Owns ending a shard that writes too much, too many files, or the disk full. Between two looks only the limit on one
file holds. Called by the lease around the child's run.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from shardwork.artifact import FILES_MAX
from shardwork.errors import Internal, LimitExceeded
from shardwork.partial import RESERVE_BYTES

LOOK_S = 0.5

T = TypeVar("T")


async def within(
    work: Coroutine[Any, Any, T], folder: Path, *, limit_bytes: int, kill: Callable[[], Awaitable[None]]
) -> T:
    """The result of `work`, whose files go to `folder`.

    Raises LimitExceeded "trainer.output_too_large" or "worker.disk_full" after `kill` ended whoever writes.
    """
    running = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({running}, timeout=LOOK_S))[0]:
            excess = await asyncio.to_thread(looked_at, folder, limit_bytes)
            if excess is not None:
                await _end(running, kill)
                raise excess
        return running.result()
    finally:
        if not running.done():
            # the caller was cancelled: so is the work, and its end is waited for as if nobody stood between
            running.cancel()
            await asyncio.wait({running})


async def _end(running: asyncio.Future[Any], kill: Callable[[], Awaitable[None]]) -> None:
    await kill()
    try:
        await running
    except Internal:
        pass  # "the child died", which is no news


def looked_at(folder: Path, limit_bytes: int) -> LimitExceeded | None:
    """What is wrong with what lies there now, if anything."""
    total = count = 0
    pending = [folder]
    while pending and count <= 2 * FILES_MAX:
        try:
            entries = list(os.scandir(pending.pop()))
        except OSError:
            continue
        for entry in entries:
            count += 1
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
            else:
                total += _size(entry)
    if total > limit_bytes or count > 2 * FILES_MAX:
        sentence = "The shard wrote more than this worker allows."
        next_step = "The worker's owner sets output_bytes."
        return LimitExceeded(
            "trainer.output_too_large", sentence, next_step=next_step, bytes=total, files=count, limit_bytes=limit_bytes
        )
    free = shutil.disk_usage(folder.parent).free
    if total and free < RESERVE_BYTES:
        sentence = "The worker's disk became full while the shard wrote."
        return LimitExceeded("worker.disk_full", sentence, next_step="Free some space.", free_bytes=free)
    return None


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except OSError:
        return 0
