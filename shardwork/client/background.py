"""The event loop behind the blocking face: one thread for the whole process, started at its first use.

One loop, because gRPC's transport serves several loops of a process badly; a thread of its own, so that blocking calls
work where a loop runs already, as in a notebook. Ctrl-C in the caller cancels what runs for it and waits until that has
cleaned up. Used by `blocking` alone.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from concurrent.futures import CancelledError, Future, wait
from typing import Any, TypeVar

T = TypeVar("T")

#: what a cancelled call may take to clean up before Ctrl-C goes on without it
CLEAN_UP_S = 10.0
#: a Ctrl-C that falls between Python's check for signals and its wait for a lock is seen when the wait ends
LOOK_EVERY_S = 0.5


class BackgroundLoop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="shardwork", daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; an error or a break in the caller cancels it first."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a blocking call from inside the client's own callback would wait for itself")
        outcome: Future[T] = Future()
        tasks: list[asyncio.Task[T]] = []

        def begin() -> None:
            tasks.append(self._loop.create_task(work))
            tasks[0].add_done_callback(lambda task: _hand_over(task, outcome))

        def cancel() -> None:
            if tasks:
                tasks[0].cancel()
            else:  # the break came before it could begin
                work.close()
                outcome.set_exception(CancelledError())

        try:
            # inside, because a break may come as soon as the work runs
            self._loop.call_soon_threadsafe(begin)
            while not wait([outcome], LOOK_EVERY_S).done:
                pass
            return outcome.result()
        except BaseException:
            self._loop.call_soon_threadsafe(cancel)
            # its own clean-up, as closing a stream; a second Ctrl-C ends the waiting
            wait([outcome], CLEAN_UP_S)
            raise

    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        """The items one by one; leaving the loop closes the generator."""
        try:
            while True:
                try:
                    item = self.run(_next(items))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self.run(items.aclose())

    def stop(self) -> None:
        """Ends the thread; at the end of the process. Nothing may run in it afterwards."""
        if self._loop.is_closed() or os.getpid() != self.owner:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1.0)
        if not self._thread.is_alive():
            self._loop.close()


async def _next(items: AsyncGenerator[T, None]) -> T:
    # an `async def` may not raise StopIteration, but StopAsyncIteration passes
    return await anext(items)


def _hand_over(task: asyncio.Task[T], outcome: Future[T]) -> None:
    """The end of `task`, whatever it is, for the thread that waits."""
    if task.cancelled():
        outcome.set_exception(CancelledError())
    elif (error := task.exception()) is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())


_lock = threading.Lock()
_current: BackgroundLoop | None = None


def background() -> BackgroundLoop:
    """The loop of this process; a forked child gets its own."""
    global _current
    with _lock:
        if _current is None or _current.owner != os.getpid():
            _current = BackgroundLoop()
        return _current
