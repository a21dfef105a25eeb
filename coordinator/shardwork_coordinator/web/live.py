"""Live: one look at the coordinator, shared by everybody who watches the page.

Owns when to look and what changed since; `rows` says what is seen, `pages` sends it. However many watch, the store is
read at most once per `QUIET_S`, and less often when that read is slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import shutil
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape
from sse_starlette import ServerSentEvent

from shardwork.client.display import figures
from shardwork.errors import Unreachable
from shardwork.money import show

from ..engine import Engine
from . import rows
from .alerts import Facts
from .books import Books

FOLDER = Path(__file__).parent
#: the parts of the page that change, each with a template and an event of its own
PARTS = ("figures", "alerts", "jobs", "workers", "events")
#: somebody who watches is told something at most this often
QUIET_S = 1.0
#: and at least this often, so that a page notices when the coordinator is gone
REFRESH_S = 5.0
#: a look is followed by a rest of this many times its length
RESTS = 10.0
LEDGER_PATIENCE_S = 0.05
#: open streams of everybody together, and of one person, who must not take all the places
MOST_LISTENERS, MOST_OF_ONE = 32, 12
#: a browser that lost the connection tries again after this long
RETRY_MS = 1_000

#: ages move on in the browser; they are no change
_CODE = re.compile(r"`([^`]+)`")
_AGE = re.compile(r"(<time[^>]*>)[^<]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The page at one moment."""

    number: int
    now_ms: int
    parts: Mapping[str, str]
    #: the parts without what changes by itself
    keys: Mapping[str, str]
    #: set by the next commit after this look
    committed: asyncio.Event
    fresh_until: float


class Live:
    """Everybody's view of one coordinator."""

    def __init__(
        self,
        engine: Engine,
        *,
        quiet_s: float = QUIET_S,
        refresh_s: float = REFRESH_S,
        heartbeat_s: float = 2.0,
        folder: Path | None = None,
        books: Books | None = None,
    ) -> None:
        """`folder`: the data folder, whose disk is watched; None watches none."""
        self._engine, self._quiet_s, self._refresh_s, self._heartbeat_s = engine, quiet_s, refresh_s, heartbeat_s
        self._folder = folder
        self._latest: Snapshot | None = None
        self._lock = asyncio.Lock()
        self.books = books or Books(engine)
        self._templates = environment()
        self._listeners = Counter[str]()
        # no mark of an earlier run comes again
        self._marked, self._mark = engine.committed, time.time_ns()
        self._is_closing = asyncio.Event()

    def close(self) -> None:
        """Ends every stream in its own time: one that the server cuts off leaves a traceback in the operator's log."""
        self._is_closing.set()

    async def now(self) -> Snapshot:
        """The page as it is, or as it was less than `QUIET_S` ago."""
        async with self._lock:
            latest = self._latest
            if latest is None or time.monotonic() >= latest.fresh_until:
                latest = self._latest = await self._look(latest.number + 1 if latest else 1)
            return latest

    async def after(self, seen: Snapshot) -> Snapshot:
        """The next look after one that was seen: soon after a commit, or after `REFRESH_S` without one."""
        await _any_of((seen.committed, self._is_closing), self._refresh_s)
        await self.rest(max(seen.fresh_until - time.monotonic(), 0))
        return seen if self._is_closing.is_set() else await self.now()

    @property
    def is_closing(self) -> bool:
        return self._is_closing.is_set()

    def mark(self) -> str:
        """Differs from an earlier mark if something was committed since."""
        if self._marked is not self._engine.committed:
            self._marked, self._mark = self._engine.committed, self._mark + 1
        return str(self._mark)

    @property
    def listeners(self) -> int:
        return self._listeners.total()

    def is_full(self, who: str) -> bool:
        """Whether this person gets no further stream."""
        return self.listeners >= MOST_LISTENERS or self._listeners[who] >= MOST_OF_ONE

    @contextlib.contextmanager
    def listening(self, who: str) -> Generator[bool, None, None]:
        """Counts an open stream; False: there is no place for it."""
        if self.is_full(who):
            yield False
            return
        self._listeners[who] += 1
        try:
            yield True
        finally:
            self._listeners[who] -= 1
            self._listeners += Counter()  # forgets whom none is left of

    async def wait(self, committed: asyncio.Event, timeout_s: float) -> bool:
        """Until a commit, the end or the time-out; whether it was a commit."""
        await _any_of((committed, self._is_closing), timeout_s)
        return committed.is_set()

    async def rest(self, seconds: float) -> None:
        """So long, or until the end."""
        await _any_of((self._is_closing,), seconds)

    async def updates(
        self, who: str = "", may_listen: Callable[[], Awaitable[bool]] | None = None
    ) -> AsyncGenerator[ServerSentEvent, None]:
        """Each part when it changed, and a beat with the coordinator's clock at least every few seconds, for as long as
        who listens may."""
        # a database that is away ends the stream; the page says so, and comes again
        with self.listening(who) as has_place, contextlib.suppress(Unreachable):
            sent: dict[str, str] = {}
            snapshot = await self.now()
            while has_place and not self._is_closing.is_set():
                for name in PARTS:
                    if sent.get(name) != snapshot.keys[name]:
                        sent[name] = snapshot.keys[name]
                        yield ServerSentEvent(snapshot.parts[name], event=name)
                yield ServerSentEvent(str(snapshot.now_ms), event="beat", retry=RETRY_MS)
                snapshot = await self.after(snapshot)
                if may_listen is not None and not await may_listen():
                    return

    async def _look(self, number: int) -> Snapshot:
        started, engine = time.monotonic(), self._engine
        # taken first: a commit during the look is then another look's reason
        committed, now_ms = engine.committed, engine.clock.now_ms()
        totals = await self.books.totals.get()
        # recounting a long ledger takes seconds, for which no page waits
        await self.books.beside.get(LEDGER_PATIENCE_S)
        checked = self.books.checked.latest
        balanced = checked is None or checked.report.balanced
        free = shutil.disk_usage(self._folder).free if self._folder else None
        facts = Facts(now_ms=now_ms, links=engine.links.everywhere(), balanced=balanced, free_bytes=free)
        attached, heartbeat_s = engine.links.attached(), self._heartbeat_s
        seen = await engine.store.read(lambda tx: rows.overview(tx, facts, attached, heartbeat_s=heartbeat_s))
        parts = {
            name: self._templates.get_template(f"parts/{name}.html").render(seen=seen, money=totals, now_ms=now_ms)
            for name in PARTS
        }
        return Snapshot(
            number=number,
            now_ms=now_ms,
            parts=parts,
            keys={name: _AGE.sub(r"\1", html) for name, html in parts.items()},
            committed=committed,
            fresh_until=started + max(self._quiet_s, (time.monotonic() - started) * RESTS),
        )


async def _any_of(events: Sequence[asyncio.Event], timeout_s: float) -> None:
    """Until one of them is set, but not longer."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()


async def compile_templates() -> None:
    """Beside everything else, one at a time, so that nobody's first look at a page waits for it."""
    found = environment()
    for name in found.list_templates():
        await asyncio.to_thread(found.get_template, name)


def commands(text: str) -> Markup:
    """What stands between `backticks` becomes code; everything is escaped first."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


@functools.cache
def environment() -> Environment:
    """Jinja with every value escaped: names of jobs and workers are strangers' text. One for all pages; a template is
    compiled once, and its file not looked at again."""
    found = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["sat"] = show
    found.filters["age"] = rows.age
    found.filters["moment"] = rows.moment
    found.filters["commands"] = commands
    found.filters["bytes"] = figures.size
    found.filters["duration"] = figures.duration
    found.filters["count"] = figures.count
    found.filters["loss"] = figures.loss
    found.filters["parameters"] = figures.parameters
    return found
