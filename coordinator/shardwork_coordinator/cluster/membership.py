"""Membership: which coordinators live on this database, and which workers are attached to the others.

Each beats once a second into its own row; a row that is silent for some seconds belongs to a dead one, whose effects
and workers the others take over. Every second, and when the bulletin says so, `links` learn who is attached elsewhere,
and a link whose worker moved on is ended. Time is the database's. Called by `app`; asked by `outbox`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from ..engine import Engine
from ..links import Presence, from_hello, is_another
from ..records import Attachment, Coordinator, Party
from ..store.base import Transaction
from ..telemetry.logs import Log

BEAT_S = 1.0
#: a coordinator that did not beat for so long is dead
SILENT_MS = 3_500
#: notices of the others are looked at this often at most
LOOK_PAUSE_S = 0.1
#: in the data folder: the id of its last run, which is certainly over when the next one starts
LAST_RUN_FILE = "last-run"

_log = Log("cluster.membership")


def new_id() -> str:
    """Of one run of a coordinator."""
    return secrets.token_hex(8)


def living(tx: Transaction, now_ms: int) -> dict[str, Coordinator]:
    """The coordinators that beat lately, by id."""
    found = tx.find(Coordinator, order="heartbeat_ms", after=now_ms - SILENT_MS)
    return {one.id: one for one in found}


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the database."""

    living: dict[str, Coordinator]
    elsewhere: list[Presence]
    #: workers attached here that have gone to another coordinator since, as they are there
    moved: list[Presence]
    references: frozenset[str]


class Membership:
    """This coordinator among the others."""

    def __init__(self, engine: Engine, address: str, folder: Path) -> None:
        self._engine, self._folder = engine, folder
        self.id = engine.links.coordinator
        self._own = Coordinator(id=self.id, address=address, started_ms=engine.clock.now_ms(), heartbeat_ms=0)
        self._look_now = asyncio.Event()
        self._addresses: tuple[str, ...] = (address,)
        self._others: frozenset[str] = frozenset()

    @property
    def addresses(self) -> tuple[str, ...]:
        """host:port of every living coordinator, this one first."""
        return self._addresses

    @property
    def has_others(self) -> bool:
        return bool(self._others)

    async def begin(self) -> None:
        """Enters this run; ends the last run in the same folder, which is over: the folder's lock is ours."""
        path = self._folder / LAST_RUN_FILE
        last = path.read_text().strip() if path.exists() else ""

        def enter(tx: Transaction) -> None:
            before = tx.get(Coordinator, last)
            if before is not None:
                tx.put(_beaten(before, 0))
            tx.put(_beaten(self._own, self._engine.clock.now_ms()))

        await self._engine.store.write(enter)
        await asyncio.to_thread(path.write_text, self.id)
        await self.look()

    async def end(self) -> None:
        """Says that this run is over, so that nobody waits for its silence."""
        await self._engine.store.write(lambda tx: tx.put(_beaten(self._own, 0)))

    async def run(self) -> None:
        """Beats and looks until cancelled; wakes granting and the outbox now and then, if a notice was lost."""
        beaten_s = float("-inf")
        while True:
            self._look_now.clear()
            if time.monotonic() - beaten_s >= BEAT_S:
                beaten_s = time.monotonic()
                await _carefully(self._beat)
                self._engine.wake()
            await _carefully(self.look)
            await asyncio.sleep(LOOK_PAUSE_S)
            rest_s = BEAT_S - (time.monotonic() - beaten_s)
            try:
                async with asyncio.timeout(max(rest_s, 0.0)):
                    await self._look_now.wait()
            except TimeoutError:
                pass

    def look_soon(self) -> None:
        """Somebody came or went elsewhere."""
        self._look_now.set()

    async def look(self) -> None:
        """Learns who lives and who is attached where."""
        links, clock = self._engine.links, self._engine.clock
        here = {link.worker_id: link.since_ms for link in links.all()}
        seen = await self._engine.store.read(lambda tx: _look(tx, self.id, here, clock.now_ms()))
        self._note(seen)

    async def _beat(self) -> None:
        await self._engine.store.write(lambda tx: tx.put(_beaten(self._own, self._engine.clock.now_ms())))

    def _note(self, seen: Seen) -> None:
        links = self._engine.links
        others = {name: one for name, one in seen.living.items() if name != self.id}
        for name in sorted(others.keys() - self._others):
            _log.warning("cluster.came", coordinator=name)
        for name in sorted(self._others - others.keys()):
            _log.warning("cluster.went", coordinator=name)
        self._others = frozenset(others)
        for there in seen.moved:
            if (link := links.get(there.worker_id)) is not None:
                link.replaced = is_another(there, link)
                links.detach(link)
                link.end()
        for link in links.all():
            link.reference = link.worker_id in seen.references
        links.know_elsewhere(seen.elsewhere)
        addresses = (self._own.address, *sorted({one.address for one in others.values()} - {self._own.address}))
        if addresses != self._addresses:
            self._addresses = addresses
            links.tell_peers(addresses)


def _beaten(row: Coordinator, now_ms: int) -> Coordinator:
    return Coordinator(id=row.id, address=row.address, started_ms=row.started_ms, heartbeat_ms=now_ms)


def _look(tx: Transaction, own: str, here: dict[str, int], now_ms: int) -> Seen:
    alive = living(tx, now_ms)
    attached = tx.find(Attachment, coordinator=[name for name in alive if name != own])
    mine = tx.find(Attachment, worker_id=list(here))
    names = [*here, *(one.worker_id for one in attached)]
    parties = {one.id: one for one in tx.find(Party, id=names)}
    return Seen(
        living=alive,
        elsewhere=[
            # its own coordinator parts from those it does not hear
            from_hello(one, parties[one.worker_id], alive[one.coordinator].heartbeat_ms)
            for one in attached
            if one.worker_id in parties
        ],
        moved=[
            from_hello(one, parties[one.worker_id], now_ms)
            for one in mine
            if one.coordinator not in ("", own) and one.since_ms >= here[one.worker_id] and one.worker_id in parties
        ],
        references=frozenset(one.id for one in parties.values() if one.reference),
    )


async def _carefully(part: Callable[[], Awaitable[None]]) -> None:
    """The database may be away: then the next beat tries again."""
    try:
        await part()
    except Exception as error:
        _log.warning("cluster.beat_failed", error=error)
