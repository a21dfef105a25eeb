"""Slow local work, as reading rows, beside the event loop: in a thread that never holds up a break.

A cancelled caller goes on at once; the thread ends at its next word about progress, or with the process. The loop's own
executor would be waited for instead, and Ctrl-C would hang until all rows are read.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from .progress import OnProgress, Progress

T = TypeVar("T")


class _Abandoned(BaseException):
    """Ends the thread of a caller that went away."""


async def beside_loop(work: Callable[[OnProgress], T], on_progress: OnProgress | None) -> T:
    """What `work` returns or raises; it is given the callback to tell its progress to."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    is_over = threading.Event()

    def heard(now: Progress) -> None:
        if is_over.is_set():
            raise _Abandoned
        if on_progress is not None:
            on_progress(now)

    def settle(set_to: Callable[[], None]) -> None:
        if not done.done():
            set_to()

    def body() -> None:
        try:
            result = work(heard)
        except Exception as error:
            failure = error
            _tell(loop, lambda: settle(lambda: done.set_exception(failure)))
        except _Abandoned:
            return
        else:
            _tell(loop, lambda: settle(lambda: done.set_result(result)))

    threading.Thread(target=body, name="shardwork-reading", daemon=True).start()
    try:
        return await done
    finally:
        is_over.set()


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        return  # the loop was closed meanwhile: nobody waits for it
