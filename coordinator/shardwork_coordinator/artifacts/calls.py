"""Calls: what one party has open on the artifacts service, so that no key alone can take all memory and threads.

Counts calls, and lets one party's uploads begin one after the other, or its quota would be passed by many at once.
In memory, as large as what is open. Used by `rpc.artifacts` on the event loop only.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from shardwork.errors import LimitExceeded


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: how many hold it or wait for it
    wanted: int = 0


class Calls:
    def __init__(self, *, of_one_max: int) -> None:
        self._of_one_max = of_one_max
        self._open: Counter[str] = Counter()
        self._turns: dict[str, _Turn] = {}

    @contextmanager
    def one(self, owner: str) -> Generator[None, None, None]:
        """Counts a call while it lasts. Raises LimitExceeded "artifact.too_many_calls"."""
        if self._open[owner] >= self._of_one_max:
            raise LimitExceeded(
                "artifact.too_many_calls",
                "You have too many transfers open at the same time.",
                next_step="Wait until one of them ends.",
                limit=self._of_one_max,
            )
        self._open[owner] += 1
        try:
            yield
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncGenerator[None, None]:
        """One at a time per party."""
        turn = self._turns.setdefault(owner, _Turn())
        turn.wanted += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[owner]
