"""A snapshot: all that `top` shows of one moment, gathered from the worker that runs, its book, its cache and its GPUs.

Owns gathering; it works whether a worker runs or not, and follows one that is started again. The screen asks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardwork.errors import ShardworkError

from ..account.book import Book, Line
from ..control import Command, ask
from ..limits import gpu
from ..status import offline

#: verdicts that are shown, newest first
MOST_VERDICTS = 50
#: looking through the cache reads its whole folder
CACHE_EVERY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    #: as `status --json`
    status: dict[str, Any]
    #: paid since midnight, by the book
    today_msat: int
    #: what was handed in or given back, newest first
    verdicts: Sequence[Line]
    gpus: Sequence[gpu.Reading]
    cache_bytes: int
    cache_limit_bytes: int
    #: of this moment, for "ago"
    at_ms: int


class Watched:
    """The worker of one home. Safe to ask whatever it does."""

    def __init__(self, state: Path, cache: Path, *, cache_limit_bytes: int) -> None:
        self._state, self._cache = state, cache
        self._cache_limit_bytes = cache_limit_bytes
        self._cache_bytes, self._cache_at_s = 0, float("-inf")

    async def look(self) -> Snapshot:
        gpus = await gpu.readings() if gpu.is_here() else []
        return await asyncio.to_thread(self._look, gpus)

    async def tell(self, command: Command) -> dict[str, Any]:
        """Steers the worker; its status afterwards. Raises what it answers."""
        return await asyncio.to_thread(ask, self._state, command)

    def _look(self, gpus: Sequence[gpu.Reading]) -> Snapshot:
        try:
            status = ask(self._state, Command.STATUS)
        except ShardworkError as error:
            status = offline(error.why).to_json()
        book, now = Book(self._state), time.time()
        midnight = time.mktime((*time.localtime(now)[:3], 0, 0, 0, 0, 0, -1))
        return Snapshot(
            status=status,
            today_msat=book.paid_since(int(midnight * 1000)),
            verdicts=book.newest(MOST_VERDICTS),
            gpus=gpu.of_device(gpus, status["device"]) if status["device"] else gpus,
            cache_bytes=self._size(),
            cache_limit_bytes=self._cache_limit_bytes,
            at_ms=int(now * 1000),
        )

    def _size(self) -> int:
        if time.monotonic() - self._cache_at_s >= CACHE_EVERY_S:
            self._cache_at_s = time.monotonic()
            self._cache_bytes = sum(_bytes_of(file) for file in self._cache.rglob("*"))
        return self._cache_bytes


def _bytes_of(file: Path) -> int:
    """0 for what is a folder, or is dropped while one looks."""
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:
        return 0
