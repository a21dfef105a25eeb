"""What a database server needs that a file does not: one writer among all coordinators, and connections that end.

Works are written for one writer at a time. Each group therefore takes one advisory lock, held to its commit: writers of
all coordinators take turns, and group commit makes the turns few. Every group that changed something also writes its
number into the session's `Mark`. When a connection ends, the next one looks there, and knows whether the last commit
was kept: a restart of the server neither loses nor doubles anything, and needs nobody. Used by `sql`.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError

from shardwork.errors import Internal, ShardworkError, Unreachable

from ..telemetry.logs import Log
from .base import Transaction
from .database_clock import DatabaseClock
from .writer import Away, Lost

T = TypeVar("T")

#: "SHARDWRK"; every writer of every coordinator on one database takes it
WRITERS_LOCK = 0x5348415244575248
#: for so long a database is waited for, then whoever asked is told
PATIENCE_S = 20.0
#: a coordinator that stops in the middle of a transaction holds up all others; then the server ends its connection
IDLE_IN_TRANSACTION_MS = 30_000
#: a mark that nobody moved for so long belongs to nobody
MARK_KEPT_MS = 7 * 24 * 3600 * 1000
#: a dead network shows after this
TCP = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
CONNECT_TIMEOUT_S = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0

log = Log("store.server")


class _Ended(Exception):
    """A reader's connection ended."""


class ServerSession:
    """The writer's connection to a server; a new one whenever the last ended."""

    def __init__(
        self,
        engine: Engine,
        make: Callable[[Connection], Transaction],
        clock: DatabaseClock,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`make` wraps a connection whose transaction is open."""
        self._engine, self._make, self._clock, self._patience_s = engine, make, clock, patience_s
        self._connection: Connection | None = None
        self._transaction: Any = None
        #: this session's mark, and the number of the last group that wrote it
        self._name, self._number = secrets.token_hex(8), 0

    def begin(self) -> Transaction:
        transaction = self._make(patiently(self._open_turn, self._patience_s))
        self._transaction = transaction
        return transaction

    def commit(self) -> None:
        connection = self._held()
        self._number += 1
        try:
            if self._transaction.changed:
                self._write_mark(connection)
        except DBAPIError as error:
            self._drop()
            raise Lost(str(error.orig)) from error
        try:
            connection.commit()
        except DBAPIError as error:
            self._drop()
            if not self._was_kept(error):
                raise Lost(str(error.orig)) from error

    def rollback(self) -> None:
        connection = self._connection
        if connection is None:
            raise Lost("the connection ended")
        try:
            connection.rollback()
        except DBAPIError as error:
            self._drop()
            raise Lost(str(error.orig)) from error
        if has_ended(connection):
            self._drop()
            raise Lost("the connection ended")

    def close(self) -> None:
        if self._connection is not None and not has_ended(self._connection):
            with contextlib.suppress(DBAPIError):
                self._connection.exec_driver_sql("DELETE FROM mark WHERE id = %s", (self._name,))
                self._connection.commit()
        self._drop()

    def _open_turn(self) -> Connection:
        """A connection on which the writers' turn is ours."""
        fresh = self._connection is None
        connection = self._connection or self._engine.connect()
        self._connection = connection
        try:
            take_turn(connection, self._clock)
            if fresh:
                oldest_ms = self._clock.now_ms() - MARK_KEPT_MS
                connection.exec_driver_sql("DELETE FROM mark WHERE at_ms < %s", (oldest_ms,))
        except DBAPIError:
            self._drop()
            raise
        return connection

    def _write_mark(self, connection: Connection) -> None:
        connection.exec_driver_sql(
            "INSERT INTO mark (id, number, at_ms) VALUES (%s, %s, %s) "
            "ON CONFLICT (id) DO UPDATE SET number = excluded.number, at_ms = excluded.at_ms",
            (self._name, self._number, self._clock.now_ms()),
        )

    def _was_kept(self, error: DBAPIError) -> bool:
        """Whether the commit that got no answer was carried out. Raises Away while the database can't be asked."""

        def look() -> bool:
            # the server may still hold the old connection's transaction; with the turn ours, it has ended either way
            connection = self._open_turn()
            try:
                row = connection.exec_driver_sql("SELECT number FROM mark WHERE id = %s", (self._name,)).one_or_none()
                connection.rollback()
            except DBAPIError:
                self._drop()
                raise
            return row is not None and row[0] == self._number

        if not self._transaction.changed:
            # nothing was written, so nothing can be lost or doubled
            return True
        try:
            kept = patiently(look, self._patience_s)
        except Away:
            raise Away(_unknown(error)) from error
        log.warning("store.commit_unanswered", kept=kept)
        return kept

    def _held(self) -> Connection:
        if self._connection is None:
            raise Lost("the connection ended")
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            discard(connection)


def take_turn(connection: Connection, clock: DatabaseClock) -> None:
    """Begins a transaction that writes, once no other coordinator's is open."""
    asked = "SELECT pg_advisory_xact_lock(%s), (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    clock.heard(int(connection.exec_driver_sql(asked, (WRITERS_LOCK,)).one()[1]))


def read(
    engine: Engine, make: Callable[[Connection], Transaction], work: Callable[[Transaction], T], patience_s: float
) -> T:
    """`work` on a snapshot, again on a new connection when the first ended. Raises Unreachable "store.unreachable"."""

    def once() -> T:
        with engine.connect() as connection:
            try:
                with connection.begin():
                    return work(make(connection))
            except Exception:
                if has_ended(connection):
                    discard(connection)
                    raise _Ended from None
                raise

    try:
        return patiently(once, patience_s)
    except Away as away:
        raise away.error from away


def patiently(work: Callable[[], T], patience_s: float) -> T:
    """What `work` gives, tried again while the database can't be reached. Raises Away after `patience_s`."""
    pause_s, until = FIRST_PAUSE_S, time.monotonic() + patience_s
    while True:
        try:
            return work()
        except (DBAPIError, _Ended) as error:
            if time.monotonic() + pause_s > until:
                raise Away(_unreachable(error)) from error
        log.warning("store.unreachable")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def has_ended(connection: Connection) -> bool:
    """Whether the server, or the way to it, ended this connection."""
    if connection.closed or connection.invalidated:
        return True
    driver: Any = connection.connection.dbapi_connection
    return driver is None or bool(driver.closed)


def discard(connection: Connection) -> None:
    """Closes a connection in whatever state, without giving it back to the pool."""
    with contextlib.suppress(Exception):
        connection.invalidate()
    with contextlib.suppress(Exception):
        connection.close()


def options(*, write: bool) -> dict[str, Any]:
    """For `create_engine`: readers on a snapshot, and a way that says when it is dead."""
    found: dict[str, Any] = {"connect_args": {**TCP, "connect_timeout": CONNECT_TIMEOUT_S}}
    if not write:
        found["execution_options"] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return found


def tune(engine: Engine) -> None:
    """What was answered is on the server's disk, whatever the database's own default is."""

    def connected(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            # `local` is on this server's disk, `on` on its standby's too: a server that waits for one keeps doing so
            cursor.execute("SELECT set_config('synchronous_commit', 'on', false)")
            cursor.execute(f"SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MS}")
        connection.commit()

    event.listen(engine, "connect", connected)


def _unreachable(error: Exception) -> ShardworkError:
    return Unreachable(
        "store.unreachable",
        "The database can't be reached; nothing was changed.",
        next_step="Try again. The coordinator goes on by itself once its database answers.",
        cause=type(getattr(error, "orig", error)).__name__,
    )


def _unknown(error: DBAPIError) -> ShardworkError:
    return Internal(
        "store.commit_unknown",
        "The database ended the connection during a commit and can't be reached; whether the change was kept is "
        "unknown until it answers again.",
        next_step="Ask again once the database is back: every call can be repeated.",
        cause=type(error.orig).__name__,
    )
