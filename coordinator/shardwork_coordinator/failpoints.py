"""Failpoints: places where a test may kill the coordinator, before and after every commit and every effect.

A commit's name is where `store.write` is called ("granting:Granting.grant"); `Failing` wraps the store, so no commit is
without one. Effects name themselves. `SHARDWORK_FAILPOINT=<name>:before|after` arms one; nothing happens otherwise.
`tests/chaos` lists them from the source and kills the coordinator at each.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .store.base import Store, Transaction
from .telemetry.traces import part

T = TypeVar("T")

BEFORE, AFTER = "before", "after"


def hit(name: str, moment: str) -> None:
    """Kills this process, as kill -9 does, when this failpoint is the armed one."""
    if os.environ.get("SHARDWORK_FAILPOINT") == f"{name}:{moment}":
        sys.stderr.write(f"failpoint {name}:{moment}\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)


class Failing:
    """A store whose every commit can be cut off on either side."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    def start(self) -> None:
        self._inner.start()

    def write(self, work: Callable[[Transaction], T]) -> Awaitable[T]:
        caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
        module = str(caller.f_globals["__name__"]).rpartition("shardwork_coordinator.")[2]
        return self._write(f"{module}:{caller.f_code.co_qualname}", work)

    async def _write(self, name: str, work: Callable[[Transaction], T]) -> T:
        hit(name, BEFORE)
        with part("store.write", commit=name):
            result = await self._inner.write(work)
        hit(name, AFTER)
        return result

    def read(self, work: Callable[[Transaction], T]) -> Awaitable[T]:
        return self._inner.read(work)

    def close(self) -> None:
        self._inner.close()
