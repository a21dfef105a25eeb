"""SqlStore: the Store in SQLite (default) or PostgreSQL, by SQLAlchemy Core.

Owns engines, transactions and the reader threads; `statements` owns the SQL, `writer` the commit, `server` what only a
database server needs, `tables` the shape, `migrations` its history. SQLite runs in WAL mode with synchronous=FULL: what
was answered survives a power cut.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from shardwork.errors import Internal, InvalidInput

from ..records import Event, Lease, Record
from . import server
from .base import Match, R, T, Transaction
from .columns import Query, can_be, column, key_of
from .database_clock import DatabaseClock
from .migrations import Migration, migrate
from .rules import APPEND_ONLY, check_record, check_replace, duplicate
from .statements import Statement, Statements, key_parameters, query_parameters, record_of, values_of
from .writer import Committed, Session, Writer, unheard

#: how long one process waits for another's write lock
BUSY_TIMEOUT_MS = 10_000
READERS = 4


class SqlTransaction:
    """One unit of work on one connection, whose transaction somebody else begins and ends."""

    def __init__(self, connection: Connection, statements: Statements, *, read_only: bool) -> None:
        self._statements = statements
        self._read_only = read_only
        self._cursor: Any = connection.connection.cursor()
        self._errors: type[Exception] = connection.dialect.loaded_dbapi.Error
        #: whether it wrote anything
        self.changed = False

    def get(self, kind: type[R], *key: str | int) -> R | None:
        if not all(map(can_be, key)):
            return None
        rows = self._rows(self._statements.of(kind).get, key_parameters(kind, key))
        return record_of(kind, rows[0]) if rows else None

    def find(
        self,
        kind: type[R],
        /,
        *,
        order: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        after: str | int | None = None,
        **equals: Match,
    ) -> list[R]:
        query = Query.of(kind, equals, order=order, descending=descending, limit=limit, after=after)
        if query.is_impossible:
            return []
        return [record_of(kind, row) for row in self._rows(self._statements.find(query), query_parameters(query))]

    def pick(
        self,
        kind: type[Record],
        names: Sequence[str],
        /,
        *,
        order: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        after: str | int | None = None,
        **equals: Match,
    ) -> list[tuple[Any, ...]]:
        readers = [column(kind, name).read for name in names]
        query = Query.of(kind, equals, order=order, descending=descending, limit=limit, after=after)
        if query.is_impossible:
            return []
        rows = self._rows(self._statements.pick(query, tuple(names)), query_parameters(query))
        if not rows or not any(readers):
            return rows
        # a column at a time, and each of its few values once: thousands of rows are asked for
        read = [_read_all(values, reader) for values, reader in zip(zip(*rows, strict=True), readers, strict=True)]
        return list(zip(*read, strict=True))

    def count(self, kind: type[Record], by: str, /, **equals: Match) -> dict[str, int]:
        read = bool if column(kind, by).type is bool else str
        query = Query.of(kind, equals)
        if query.is_impossible:
            return {}
        rows = self._rows(self._statements.count(query, by), query_parameters(query))
        return {"" if value is None else str(read(value)): total for value, total in rows}

    def insert(self, record: R) -> R:
        self._check_write(record)
        if isinstance(record, Event) and record.sequence == 0:
            ((sequence,),) = self._rows(self._statements.insert_event, values_of(record))
            return cast("R", replace(record, sequence=sequence))
        if self._change(self._statements.of(type(record)).insert, values_of(record)) == 0:
            raise duplicate(record)
        return record

    def put(self, record: Record) -> None:
        self._check_write(record)
        kind, statements = type(record), self._statements.of(type(record))
        if kind in APPEND_ONLY or kind is Lease:
            old = self.get(kind, *key_of(record))
            if old is not None:
                check_replace(old)
        own_key = key_parameters(kind, key_of(record))
        parameters = values_of(record) | own_key
        for names, holder in statements.unique.items():
            held = {name: parameters[name] for name in names}
            if None not in held.values() and self._rows(holder, held | own_key):
                raise duplicate(record, names)
        if kind in APPEND_ONLY or self._change(statements.update, parameters) == 0:
            self.insert(record)

    def _check_write(self, record: Record) -> None:
        if self._read_only:
            raise Internal("store.read_only", "A reading transaction can't write.", kind=type(record).__name__)
        check_record(record)
        self.changed = True

    def _rows(self, statement: Statement, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        try:
            statement.run(self._cursor, parameters)
            rows: list[tuple[Any, ...]] = self._cursor.fetchall()
        except self._errors as error:
            raise _database_error(error) from error
        return rows

    def _change(self, statement: Statement, parameters: Mapping[str, Any]) -> int:
        """How many rows it changed."""
        try:
            statement.run(self._cursor, parameters)
        except self._errors as error:
            raise _database_error(error) from error
        return int(self._cursor.rowcount)


def _read_all(values: Sequence[Any], reader: Callable[[Any], Any] | None) -> Sequence[Any]:
    if reader is None:
        return values
    known = {value: reader(value) for value in set(values)}
    return [known[value] for value in values]


def _database_error(error: BaseException | None) -> Internal:
    """Names the cause without the statement's values, which may be another party's."""
    return Internal(
        "store.database",
        "The database refused a statement.",
        next_step="Check the disk and the coordinator's log.",
        cause=f"{type(error).__name__}: {error}",
    )


class _FileSession:
    """The writer's connection to a file. SQLite takes its write lock at BEGIN, so that no commit can find it taken."""

    def __init__(self, engine: Engine) -> None:
        self._connection = engine.connect()
        self._statements = Statements(engine.dialect)

    def begin(self) -> Transaction:
        try:
            self._connection.begin()
        except DBAPIError as error:
            raise _database_error(error.orig) from error
        return SqlTransaction(self._connection, self._statements, read_only=False)

    def commit(self) -> None:
        self._connection.commit()

    def rollback(self) -> None:
        self._connection.rollback()

    def close(self) -> None:
        self._connection.close()


def _open_session(engine: Engine, clock: DatabaseClock, patience_s: float) -> Session:
    if engine.dialect.name == "sqlite":
        return _FileSession(engine)
    statements = Statements(engine.dialect)
    return server.ServerSession(
        engine, lambda connection: SqlTransaction(connection, statements, read_only=False), clock, patience_s=patience_s
    )


class SqlStore:
    """The Store at a SQLAlchemy URL, e.g. "sqlite:////var/lib/shardwork/coordinator.db"."""

    def __init__(
        self,
        url: str,
        *,
        clock: DatabaseClock | None = None,
        patience_s: float = server.PATIENCE_S,
        committed: Committed = unheard,
    ) -> None:
        """`clock` is kept at the server's time. `patience_s`: for so long a server is waited for. `committed` hears of
        each group commit.

        Raises InvalidInput "store.bad_url": for SQLite without a file, as readers could not see the writer's rows.
        """
        parsed = _parsed(url)
        self._clock, self._patience_s = clock or DatabaseClock(), patience_s
        self._committed = committed
        self._is_sqlite = parsed.get_backend_name() == "sqlite"
        self._path = Path(parsed.database) if self._is_sqlite and parsed.database else None
        if self._is_sqlite and (self._path is None or parsed.database == ":memory:"):
            raise InvalidInput("store.bad_url", "The SQLite store needs a file.", next_step="Give sqlite:///path.")
        self._url = parsed
        self._engines: list[Engine] = []
        self._writer: Writer | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._read_engine: Engine | None = None
        self._read_statements: Statements | None = None

    def start(self) -> None:
        """Raises Conflict "store.newer_database" for a database that a newer version wrote."""
        if self._path is not None:
            _prepare_file(self._path)
        write_engine = self._engine(write=True)
        try:
            with write_engine.begin() as connection:
                if not self._is_sqlite:
                    server.take_turn(connection, self._clock)
                migrate(connection)
        except BaseException:
            self.close()
            raise
        self._read_engine = self._engine(write=False)
        self._read_statements = Statements(self._read_engine.dialect)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._writer = Writer(partial(_open_session, write_engine, self._clock, self._patience_s), self._committed)
        self._writer.start()

    def migrate(self, *, dry_run: bool = False) -> Migration:
        """What `start` does to the schema, and nothing else. `dry_run`: all of it runs, and is taken back."""
        is_new = self._path is not None and not self._path.exists()
        if dry_run and is_new:
            self._url = self._url.set(database=":memory:")
        elif self._path is not None:
            _prepare_file(self._path)
        try:
            with self._engine(write=True).connect() as connection, connection.begin() as transaction:
                if not self._is_sqlite:
                    server.take_turn(connection, self._clock)
                done = migrate(connection)
                if dry_run:
                    transaction.rollback()
        finally:
            self.close()
        return done

    async def write(self, work: Callable[[Transaction], T]) -> T:
        if self._writer is None:
            raise _not_started()
        return await self._writer.submit(work)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        if self._readers is None:
            raise _not_started()
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._readers is not None:
            self._readers.shutdown()
            self._readers = None
        for engine in self._engines:
            engine.dispose()
        self._engines.clear()

    def _read(self, work: Callable[[Transaction], T]) -> T:
        engine, statements = self._read_engine, self._read_statements
        if engine is None or statements is None:
            raise _not_started()

        def make(connection: Connection) -> Transaction:
            return SqlTransaction(connection, statements, read_only=True)

        if not self._is_sqlite:
            return server.read(engine, make, work, self._patience_s)
        with engine.connect() as connection, connection.begin():
            return work(make(connection))

    def _engine(self, *, write: bool) -> Engine:
        options = {} if self._is_sqlite else server.options(write=write)
        engine = create_engine(self._url, pool_size=1 if write else READERS, **options)
        if self._is_sqlite:
            _tune_sqlite(engine, write=write)
        else:
            server.tune(engine)
        self._engines.append(engine)
        return engine


def _parsed(url: str) -> URL:
    """The URL with the driver that is installed. Raises InvalidInput "store.bad_url"."""
    next_step = "Give sqlite:///PATH or postgresql://USER@HOST/NAME."
    try:
        parsed = make_url(url)
    except ArgumentError:
        # not shown: it may hold a password
        raise InvalidInput("store.bad_url", "The database URL can't be read.", next_step=next_step) from None
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql", "postgres"):
        raise InvalidInput(
            "store.bad_url", f"There is no store for {backend!r} databases.", next_step=next_step, backend=backend
        )
    return parsed if backend == "sqlite" else parsed.set(drivername="postgresql+psycopg")


def _not_started() -> Internal:
    return Internal("store.closed", "The store is closed.")


def _prepare_file(path: Path) -> None:
    """A folder and a file that only this user reads; SQLite gives its -wal and -shm files the same mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _tune_sqlite(engine: Engine, *, write: bool) -> None:
    """Durable WAL mode, and BEGIN said by us: the driver's own begins too late and never for a read."""

    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode=WAL" if write else "PRAGMA query_only=ON")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
