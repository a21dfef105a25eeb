"""Time as an argument: a Clock Protocol, the real one, and one that tests move by hand.

The pure core takes `now_ms` and never a clock. Deadlines are wall-clock milliseconds since the epoch because they
cross the wire; durations on one machine use `monotonic`.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for durations."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that stands still until a test moves it. Starts far from zero so that mixing clocks fails fast."""

    def __init__(self, now_ms: int = 1_900_000_000_000) -> None:
        self._now_ms = now_ms
        self._set_by_ms = 0

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic(self) -> float:
        return (self._now_ms - self._set_by_ms) / 1000

    def advance(self, seconds: float) -> None:
        self._now_ms += int(seconds * 1000)

    def set_by(self, seconds: float) -> None:
        """Somebody sets the wall clock; the steady one goes on."""
        self.advance(seconds)
        self._set_by_ms += int(seconds * 1000)
