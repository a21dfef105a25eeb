"""DatabaseClock: the time of the database, for coordinators that share one.

Their machines' clocks differ, and a lease that one of them granted must not expire because another's is ahead. So all
take the database's: the store says what it showed with every commit, and between two commits the machine's steady clock
goes on from there. Lags by the way of one answer, which lets leases live a little longer, never shorter.
"""

from __future__ import annotations

import time


class DatabaseClock:
    """A `Clock`. Until the store said something it is the machine's own."""

    def __init__(self) -> None:
        self._ahead_ms: float | None = None

    def heard(self, database_ms: int) -> None:
        """What the database's clock shows at this moment."""
        self._ahead_ms = database_ms - time.monotonic() * 1000

    def now_ms(self) -> int:
        if self._ahead_ms is None:
            return time.time_ns() // 1_000_000
        return int(time.monotonic() * 1000 + self._ahead_ms)

    def monotonic(self) -> float:
        return time.monotonic()
