"""Lag: how late the event loop is. One that is late answers everybody late, whatever else looks well.

Runs in `app` beside everything else; the first thing to look at when all calls are slow at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LOOK_S = 0.5


async def watch_lag(
    observe: Callable[[float], None], every_s: float = LOOK_S, *, seconds: Callable[[], float] = time.monotonic
) -> None:
    """Tells how much later than asked for it was woken, again and again, until cancelled."""
    while True:
        due = seconds() + every_s
        await asyncio.sleep(every_s)
        observe(max(seconds() - due, 0.0))
