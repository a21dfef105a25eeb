"""Kept: an answer that is dear to compute, given again for a while instead of being computed for each who asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from ..telemetry import logs

T = TypeVar("T")
_log = logs.Log("metrics")
#: a computation is followed by a rest of this many times its length, so that it takes a small share of the machine
RESTS = 20.0


class Kept(Generic[T]):
    """Asks `compute` at most once per `keep_s`, and less often when it is slow. One computation at a time."""

    def __init__(
        self, compute: Callable[[], Awaitable[T]], keep_s: float, *, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._compute, self._keep_s, self._seconds = compute, keep_s, seconds
        self._answer: tuple[T] | None = None
        self._fresh_until = 0.0
        self._lock = asyncio.Lock()

    async def get(self) -> T:
        """The answer: the one from before while it is fresh."""
        async with self._lock:
            started = self._seconds()
            if self._answer is None or started >= self._fresh_until:
                return await self._renew(started)
            return self._answer[0]

    async def renew(self) -> T:
        """Computes it now, for somebody who asked for that."""
        async with self._lock:
            return await self._renew(self._seconds())

    @property
    def latest(self) -> T | None:
        """The last answer, however old; None before the first."""
        return self._answer[0] if self._answer else None

    async def _renew(self, started: float) -> T:
        self._answer = (await self._compute(),)
        took = self._seconds() - started
        self._fresh_until = started + max(self._keep_s, took * RESTS)
        return self._answer[0]


class Beside(Generic[T]):
    """An answer that is waited for, but not longer than so long; what takes longer goes on beside, once, and is had
    later. A store that does not answer must not hold one reader for every scrape."""

    def __init__(self, kept: Kept[T], name: str) -> None:
        """`name`: for the log, when it fails."""
        self._kept, self._name = kept, name
        self._task: asyncio.Task[T] | None = None
        #: what the last one that ended came to; None before the first, and after one that failed
        self.latest: T | None = None

    async def get(self, patience_s: float) -> bool:
        """Whether `latest` is an answer of now."""
        task = self._task = self._task or asyncio.create_task(self._kept.get())
        await asyncio.wait({task}, timeout=patience_s)
        if not task.done():
            return False
        if self._task is task:
            # the first of those who waited takes it over
            self._task, error = None, task.exception()
            if error is not None:
                _log.warning("metrics.part_failed", part=self._name, error=error)
            self.latest = None if error else task.result()
        return self.latest is not None
