"""Writer: the one thread that changes the database, with group commit.

It drains its queue, runs every queued work in one transaction, commits once and only then answers. When a work raises,
the group is rolled back and each member runs again in a commit of its own, so that one failure costs nobody else.
A commit that fails has an unknown outcome: the writer stops and refuses everything until a restart has looked. Unless
its session can find out, as `server` can: then a group of which nothing was kept runs again (`Lost`), and one whose
database stays away is refused (`Away`) while the writer goes on.
Knows no SQL; `sql` and `server` give it a Session. Called by `SqlStore.write` from any running loop.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from shardwork.errors import Internal, ShardworkError, Unreachable

from ..telemetry.logs import Log
from .base import T, Transaction

#: works in one commit; bounds how long the first of them waits
GROUP_MAX = 256
#: a group whose connection ended so often in a row is given up: perhaps it is what ends it
LOST_MAX = 5

log = Log("store.writer")


class Lost(Exception):
    """The connection ended, and nothing of the open transaction was kept: it may run again."""


class Away(Exception):
    """The database stays out of reach. `error` is what everybody in the group is told."""

    def __init__(self, error: ShardworkError) -> None:
        super().__init__(str(error))
        self.error = error


class Committed(Protocol):
    """Who hears of group commits, with how many works; not `kept`: rolled back because of one of its works, or away."""

    def __call__(self, seconds: float, works: int, *, kept: bool) -> None: ...


def unheard(seconds: float, works: int, *, kept: bool) -> None:
    """Nobody."""


class Session(Protocol):
    """The writer's own connection. Each call may raise Lost or Away, where the session can tell."""

    def begin(self) -> Transaction: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Task:
    work: Callable[[Transaction], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None
    answered: bool = False


class Writer:
    def __init__(self, open_session: Callable[[], Session], committed: Committed = unheard) -> None:
        """Both are called on the writer's thread, `open_session` once, `committed` after each group."""
        self._open_session, self._committed = open_session, committed
        self._queue: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        # makes "refused" and "queued before the end" exclusive
        self._gate = threading.Lock()
        self._refusal: Internal | None = None

    def start(self) -> None:
        self._thread.start()

    async def submit(self, work: Callable[[Transaction], T]) -> T:
        loop = asyncio.get_running_loop()
        task = _Task(work, loop, loop.create_future())
        with self._gate:
            if self._refusal is not None:
                raise Internal.from_why(self._refusal.why)
            self._queue.put(task)
        result: T = await task.future
        return result

    def close(self) -> None:
        """Finishes what is queued and ends the thread. Idempotent."""
        self._refuse(Internal("store.closed", "The store is closed."))
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _refuse(self, refusal: Internal) -> None:
        with self._gate:
            self._refusal = self._refusal or refusal

    def _run(self) -> None:
        session: Session | None = None
        pending: list[_Task] = []
        try:
            session = self._open_session()
            ending = False
            while not ending:
                pending, ending = self._take()
                self._run_group(session, pending)
        except BaseException as error:
            self._stop(error, pending)
        finally:
            if session is not None:
                _close_quietly(session)

    def _take(self) -> tuple[list[_Task], bool]:
        """Waits for one task, then takes all that are there; the flag says that the end was reached."""
        tasks: list[_Task] = []
        item = self._queue.get()
        while True:
            if item is None:
                return tasks, True
            tasks.append(item)
            if len(tasks) == GROUP_MAX or self._queue.empty():
                return tasks, False
            item = self._queue.get()

    def _run_group(self, session: Session, tasks: list[_Task]) -> None:
        if not tasks:
            return
        started = time.perf_counter()
        try:
            kept = _keep(session, tasks)
            self._committed(time.perf_counter() - started, len(tasks), kept=kept)
        except Away as away:
            self._committed(time.perf_counter() - started, len(tasks), kept=False)
            for task in tasks:
                task.error = type(away.error).from_why(away.error.why)
            kept = True
        if kept or len(tasks) == 1:
            _answer(tasks)
            return
        for task in tasks:
            self._run_group(session, [task])

    def _stop(self, error: BaseException, pending: list[_Task]) -> None:
        """A commit or rollback failed: whether the group is durable is unknown, so nobody may be told yes or no."""
        log.error("store.stopped", error=error)
        self._refuse(
            Internal(
                "store.stopped",
                "The store refuses writes since a commit failed.",
                next_step="Check the disk and restart the coordinator.",
                cause=type(error).__name__,
            )
        )
        while not self._queue.empty():
            task = self._queue.get()
            if task is not None:
                pending.append(task)
        pending = [task for task in pending if not task.answered]
        for task in pending:
            task.error = Internal(
                "store.commit_unknown",
                "A commit failed; whether this change was kept is unknown until a restart.",
                next_step="Check the disk and restart the coordinator.",
                cause=type(error).__name__,
            )
        _answer(pending)


def _keep(session: Session, tasks: list[_Task]) -> bool:
    """Commits the group, again when its connection ended before; False when one of its works raised."""
    for _ in range(LOST_MAX):
        try:
            if not _try_works(session, tasks):
                return False
            session.commit()
            return True
        except Lost as lost:
            log.warning("store.connection_ended", error=lost.__cause__ or lost)
    raise Away(
        Unreachable(
            "store.unreachable",
            "The database's connection ended each time this change was tried; nothing of it was kept.",
            next_step="Look into the database's log.",
            tries=LOST_MAX,
        )
    )


def _try_works(session: Session, tasks: list[_Task]) -> bool:
    """Runs all works in one open transaction. On the first error rolls back and returns False."""
    task = tasks[0]
    try:
        transaction = session.begin()
        for task in tasks:
            task.error = None
            task.result = task.work(transaction)
    except (Lost, Away):
        raise
    except BaseException as error:
        task.error = error
        session.rollback()
        return False
    return True


def _answer(tasks: list[_Task]) -> None:
    """Resolves the futures in their own loops, waking each loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Task]] = {}
    for task in tasks:
        task.answered = True
        by_loop.setdefault(task.loop, []).append(task)
    for loop, members in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, members)
        except RuntimeError:
            # the loop is closed: its callers are gone
            continue


def _resolve(tasks: list[_Task]) -> None:
    for task in tasks:
        if task.future.done():
            # cancelled by its caller
            continue
        if isinstance(task.error, StopIteration):
            # a future refuses to carry one, and its caller would wait for ever
            task.future.set_exception(RuntimeError("a work raised StopIteration"))
        elif task.error is not None:
            task.future.set_exception(task.error)
        else:
            task.future.set_result(task.result)


def _close_quietly(session: Session) -> None:
    try:
        session.close()
    except Exception as error:
        log.warning("store.close_failed", error=error)
