"""The loop behind the blocking face: inside a running loop, Ctrl-C, early leaving, its own thread."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator

import pytest

from shardwork.client.background import background


async def numbers(closed: list[str]) -> AsyncGenerator[int, None]:
    try:
        for number in range(5):
            yield number
    finally:
        closed.append("closed")


async def test_it_works_where_a_loop_runs_already() -> None:
    async def answer() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    assert background().run(answer()) == "shardwork"


def test_leaving_a_loop_early_closes_its_generator() -> None:
    closed: list[str] = []
    found = background().iterate(numbers(closed))
    assert next(found) == 0
    assert next(found) == 1
    found.close()  # type: ignore[attr-defined]
    assert closed == ["closed"]
    assert list(background().iterate(numbers(closed))) == [0, 1, 2, 3, 4]
    assert closed == ["closed", "closed"]


def test_ctrl_c_cancels_what_runs_and_waits_for_its_clean_up() -> None:
    begun, cleaned = threading.Event(), threading.Event()

    async def forever() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    main = threading.get_ident()

    def press() -> None:
        assert begun.wait(20)
        signal.pthread_kill(main, signal.SIGINT)

    finger = threading.Thread(target=press)
    finger.start()
    with pytest.raises(KeyboardInterrupt):
        background().run(forever())
    finger.join()
    assert cleaned.is_set()
    assert background().run(asyncio.sleep(0, "still there")) == "still there"


def test_a_blocking_call_inside_a_callback_is_refused_instead_of_waiting_for_itself() -> None:
    async def callback() -> None:
        background().run(asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="wait for itself"):
        background().run(callback())


def test_an_error_arrives_as_it_is() -> None:
    async def fail() -> None:
        raise ZeroDivisionError("oops")

    with pytest.raises(ZeroDivisionError, match="oops"):
        background().run(fail())
