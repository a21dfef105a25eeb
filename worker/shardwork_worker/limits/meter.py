"""The meter on this worker's line: counts what its transfers move, and holds them to so many bytes a second.

Owns the count since it was last taken, and the waiting. The session's transfers tell it of each frame; the guard takes
the count into the book.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Line:
    """One direction. A transfer that was slower than allowed saves nothing up for later."""

    bytes_per_s: int | None
    _free_at_s: float = field(default=float("-inf"))

    def wait_s(self, count_bytes: int, now_s: float) -> float:
        """How long to wait after having moved so many bytes."""
        if self.bytes_per_s is None:
            return 0.0
        self._free_at_s = max(self._free_at_s, now_s) + count_bytes / self.bytes_per_s
        return self._free_at_s - now_s


class Meter:
    def __init__(self, *, down_bytes_per_s: int | None = None, up_bytes_per_s: int | None = None) -> None:
        self._down, self._up = Line(down_bytes_per_s), Line(up_bytes_per_s)
        self._moved_bytes = 0

    async def came_down(self, count_bytes: int) -> None:
        await self._moved(self._down, count_bytes)

    async def went_up(self, count_bytes: int) -> None:
        await self._moved(self._up, count_bytes)

    def take(self) -> int:
        """Bytes that were moved since it was last asked."""
        moved, self._moved_bytes = self._moved_bytes, 0
        return moved

    async def _moved(self, line: Line, count_bytes: int) -> None:
        self._moved_bytes += count_bytes
        if (wait_s := line.wait_s(count_bytes, time.monotonic())) > 0:
            await asyncio.sleep(wait_s)
