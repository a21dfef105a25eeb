"""The writer's promises about grouping, isolation and a commit that fails, on a session that is a plain list."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from shardwork.errors import Internal
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.store.writer import GROUP_MAX, Writer

Work = Callable[[Transaction], Any]


class FakeSession:
    """Remembers what was committed, group by group; fails the commit with this number."""

    def __init__(self, fail_commit: int = 0) -> None:
        self.groups: list[list[str]] = []
        self.rollbacks = 0
        self.closed = False
        self._fail_commit = fail_commit
        self._open: list[str] = []

    def begin(self) -> Transaction:
        self._open = []
        return cast(Transaction, self._open)

    def commit(self) -> None:
        if len(self.groups) + 1 == self._fail_commit:
            raise OSError(5, "Input/output error")
        self.groups.append(self._open)

    def rollback(self) -> None:
        self.rollbacks += 1

    def close(self) -> None:
        self.closed = True


def note(text: str) -> Work:
    def work(tx: Transaction) -> str:
        cast("list[str]", tx).append(text)
        if text.startswith("bad"):
            raise ValueError(text)
        return text

    return work


async def held_back(writer: Writer, works: list[Work]) -> list[Any]:
    """Submits all works while the writer is busy with another, so that they form one group."""
    busy, release = threading.Event(), threading.Event()

    def block(tx: Transaction) -> None:
        busy.set()
        release.wait(10)

    first = asyncio.ensure_future(writer.submit(block))
    await asyncio.to_thread(busy.wait, 10)
    rest = [asyncio.ensure_future(writer.submit(work)) for work in works]
    await asyncio.sleep(0)
    release.set()
    await asyncio.gather(first, return_exceptions=True)
    return await asyncio.gather(*rest, return_exceptions=True)


async def test_works_that_wait_share_one_commit() -> None:
    session = FakeSession()
    writer = Writer(lambda: session)
    writer.start()
    assert await held_back(writer, [note(f"w{n}") for n in range(5)]) == [f"w{n}" for n in range(5)]
    writer.close()
    assert session.groups == [[], [f"w{n}" for n in range(5)]]
    assert session.closed


async def test_a_group_has_an_upper_limit() -> None:
    session = FakeSession()
    writer = Writer(lambda: session)
    writer.start()
    await held_back(writer, [note(str(n)) for n in range(GROUP_MAX + 3)])
    writer.close()
    assert [len(group) for group in session.groups] == [0, GROUP_MAX, 3]


async def test_a_failing_member_is_replayed_alone_and_fails_alone() -> None:
    session = FakeSession()
    writer = Writer(lambda: session)
    writer.start()
    results = await held_back(writer, [note("a"), note("bad"), note("c")])
    writer.close()
    assert results[0] == "a"
    assert isinstance(results[1], ValueError)
    assert results[2] == "c"
    # the group was rolled back whole, then each had a commit of its own
    assert session.groups == [[], ["a"], ["c"]]
    assert session.rollbacks == 2


async def test_a_failed_commit_is_an_unknown_outcome_and_ends_all_writing() -> None:
    session = FakeSession(fail_commit=2)
    writer = Writer(lambda: session)
    writer.start()
    results = await held_back(writer, [note("a"), note("b")])
    assert [result.code for result in results] == ["store.commit_unknown"] * 2
    with pytest.raises(Internal) as caught:
        await writer.submit(note("later"))
    assert caught.value.code == "store.stopped"
    writer.close()
    assert session.groups == [[]]
    assert session.closed


async def test_a_commit_that_fails_during_a_replay_leaves_the_answers_before_it_standing() -> None:
    session = FakeSession(fail_commit=3)
    writer = Writer(lambda: session)
    writer.start()
    results = await held_back(writer, [note("a"), note("bad"), note("c"), note("d")])
    writer.close()
    assert results[0] == "a"
    assert isinstance(results[1], ValueError)
    assert [results[2].code, results[3].code] == ["store.commit_unknown"] * 2


async def test_a_session_that_cannot_open_refuses_instead_of_hanging() -> None:
    def broken() -> FakeSession:
        raise OSError(13, "Permission denied")

    writer = Writer(broken)
    writer.start()
    with pytest.raises(Internal):
        await writer.submit(note("a"))
    writer.close()


async def test_closing_finishes_what_is_queued() -> None:
    session = FakeSession()
    writer = Writer(lambda: session)
    writer.start()
    waiting = [asyncio.ensure_future(writer.submit(note(str(n)))) for n in range(10)]
    await asyncio.sleep(0)
    await asyncio.to_thread(writer.close)
    assert await asyncio.gather(*waiting) == [str(n) for n in range(10)]


def test_a_caller_whose_loop_ended_disturbs_nobody() -> None:
    session = FakeSession()
    writer = Writer(lambda: session)
    started, release = threading.Event(), threading.Event()

    def block(tx: Transaction) -> None:
        started.set()
        release.wait(10)

    async def leave() -> None:
        task = asyncio.ensure_future(writer.submit(block))
        await asyncio.to_thread(started.wait, 10)
        task.cancel()

    writer.start()
    asyncio.run(leave())
    release.set()
    assert asyncio.run(cast("Any", writer.submit(note("next")))) == "next"
    writer.close()
