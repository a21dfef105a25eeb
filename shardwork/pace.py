"""Pace: who may slow transfers down and count their bytes. A worker's owner may allow it only so much of a line.

Owns the Protocol and asking a session for it; `transfer` and `direct` tell it of bytes as they go.
"""

from __future__ import annotations

from typing import Any, Protocol


class Pace(Protocol):
    async def came_down(self, count_bytes: int) -> None:
        """Returns once more bytes may come."""
        ...

    async def went_up(self, count_bytes: int) -> None: ...


class Unhurried:
    """Waits for nothing and counts nothing."""

    async def came_down(self, count_bytes: int) -> None: ...

    async def went_up(self, count_bytes: int) -> None: ...


FREE = Unhurried()


def pace_of(session: Any) -> Pace:
    """The session's own, where its owner set one."""
    found: Pace | None = getattr(session, "pace", None)
    return FREE if found is None else found
