"""Fellowship: this coordinator among the others on its database, membership and bulletin put together for `app`."""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from ..engine import Engine
from ..settings import Settings
from .bulletin import Bulletin
from .membership import Membership


@dataclass(frozen=True, slots=True, kw_only=True)
class Fellowship:
    """This coordinator among the others on its database."""

    membership: Membership
    bulletin: Bulletin

    def parts(self) -> tuple[tuple[str, Coroutine[Any, Any, None]], ...]:
        """What runs in the background."""
        return (
            ("membership", self.membership.run()),
            ("bulletin's calls", self.bulletin.call()),
            ("bulletin", self.bulletin.listen()),
        )


async def join_cluster(
    stack: contextlib.AsyncExitStack, engine: Engine, address: str, settings: Settings
) -> Fellowship:
    """Enters this coordinator among the others; `stack` takes it out again."""
    membership = Membership(engine, address, settings.data_dir)
    bulletin = Bulletin(engine, membership, libpq_url(settings.database))
    await membership.begin()
    stack.push_async_callback(membership.end)
    engine.tell_others = bulletin.tell
    # the others' workers are told at once where they may go
    bulletin.tell(moved=True)
    return Fellowship(membership=membership, bulletin=bulletin)


def libpq_url(database: str) -> str:
    """Without the driver's name, which only SQLAlchemy understands."""
    scheme, _, rest = database.partition("://")
    return f"{scheme.partition('+')[0]}://{rest}"
