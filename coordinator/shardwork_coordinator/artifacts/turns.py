"""Turns: one at a time for each name, such as a party's, and nothing kept for a name that nobody waits for.

In memory, on the event loop only. Used by `rpc.artifacts` for uploads, whose quota would be passed by many at once, and
by the HTTP API for what must not be begun twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: how many hold it or wait for it
    wanted: int = 0


@dataclass(slots=True)
class Turns:
    _turns: dict[str, _Turn] = field(default_factory=dict[str, _Turn])

    @asynccontextmanager
    async def of(self, name: str) -> AsyncGenerator[None, None]:
        """Waits for those of this name who came before."""
        turn = self._turns.setdefault(name, _Turn())
        turn.wanted += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[name]
