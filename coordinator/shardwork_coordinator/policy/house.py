"""House: the settings that are in force in this process, with every rule as the database has it.

Looks again every few moments, and at once when told, so that all coordinators of a database obey the same rules without
a restart. Who follows is told of each change. Built and run by `app`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..records import PolicyChange
from ..settings import Settings
from ..store.base import Store, Transaction
from ..telemetry.logs import Log
from .changes import in_force

LOOK_S = 1.0

_log = Log("policy")


class House:
    """One per coordinator process."""

    def __init__(self, store: Store, settings: Settings) -> None:
        """`settings`: as the coordinator was started with; they are what a rule is that nobody changed."""
        self.settings = settings
        #: what counts now
        self.now = settings
        self._store = store
        self._seen: str | None = None
        self._followers: list[Callable[[Settings], None]] = []

    def follow(self, follower: Callable[[Settings], None]) -> None:
        """Tells it what counts now, and again whenever that changed."""
        follower(self.now)
        self._followers.append(follower)

    async def refresh(self) -> bool:
        """Looks for changes; whether something counts now that did not."""

        def look(tx: Transaction) -> tuple[str, Settings]:
            latest = tx.pick(PolicyChange, ("id",), order="id", descending=True, limit=1)
            seen = latest[0][0] if latest else ""
            return seen, self.now if seen == self._seen else in_force(tx, self.settings)

        self._seen, found = await self._store.read(look)
        if found == self.now:
            return False
        self.now = found
        for follower in self._followers:
            follower(found)
        _log.info("policy.changed")
        return True

    async def run(self) -> None:
        """Looks until cancelled. A database that is away for a moment is asked again."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.refresh()
            except Exception:
                _log.error("policy.look_failed")
