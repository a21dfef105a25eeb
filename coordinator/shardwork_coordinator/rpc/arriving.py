"""Arriving: a request that is one message is there in time, or its call ends; and only so many are slow to arrive.

gRPC reads such a request whole before any handler, and so before any check of who asks: up to 4 MiB for each call that
a stranger begins and never finishes, for as long as the connection lives (measured: 1.1 GB of memory on each). Here all
are served as streams of one message, which on the wire is the same, so that we read and may stop reading. What handlers
of streams read is bounded by themselves. A gRPC interceptor, built by `app`; handlers do not know of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from shardwork.errors import InvalidInput, Unreachable

from .auth import Context, answer_errors

#: 4 MiB over a line of 140 kB a second
WITHIN_S = 30.0
#: what has not arrived by then is slow: most requests take a millisecond
SLOW_AFTER_S = 1.0
#: 4 MiB each
MOST_SLOW = 64


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """A request on its way. `address`: of its sender, without the port."""

    address: str
    deadline: asyncio.Timeout


class Arriving(grpc.aio.ServerInterceptor):
    """Reads the one message of a call for its handler, which must be a coroutine function or an async generator's."""

    def __init__(
        self, *, within_s: float = WITHIN_S, slow_after_s: float = SLOW_AFTER_S, most_slow: int = MOST_SLOW
    ) -> None:
        self._within_s = within_s
        self._slow_after_s = slow_after_s
        self._most_slow = most_slow
        self._readings: set[_Reading] = set()
        #: the longest slow first
        self._slow: dict[_Reading, None] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        given = {"request_streaming": True, "unary_unary": None, "unary_stream": None}
        if handler.response_streaming:
            return handler._replace(**given, stream_stream=self._as_stream(handler.unary_stream))
        return handler._replace(**given, stream_unary=self._as_one(handler.unary_unary))

    def _as_one(self, inner: Callable[[Any, Context], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """For a handler that returns an answer, or writes answers to its context."""

        async def call(messages: AsyncIterator[Any], context: Context) -> Any:
            return await inner(await self._first(messages, context), context)

        return call

    def _as_stream(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        if not inspect.isasyncgenfunction(inner):
            return self._as_one(inner)

        async def call(messages: AsyncIterator[Any], context: Context) -> AsyncGenerator[Any, None]:
            async with contextlib.aclosing(inner(await self._first(messages, context), context)) as answers:
                async for answer in answers:
                    yield answer

        return call

    def close(self) -> None:
        """Ends what has not arrived; before the server stops, which waits for calls and is loud about those it cuts."""
        for reading in self._readings:
            _give_up(reading)

    async def _first(self, messages: AsyncIterator[Any], context: Context) -> Any:
        async with answer_errors(context):
            try:
                async with asyncio.timeout(self._within_s) as deadline:
                    with self._watched(_Reading(context.peer().rpartition(":")[0], deadline)):
                        return await anext(messages)
            except TimeoutError:
                raise Unreachable("call.unfinished", "The request did not arrive in time.") from None
            except StopAsyncIteration:
                raise InvalidInput(
                    "call.empty",
                    "The call has no request.",
                    next_step="A client of this contract sends one message with it.",
                ) from None

    @contextlib.contextmanager
    def _watched(self, reading: _Reading) -> Generator[None, None, None]:
        timer = asyncio.get_running_loop().call_later(self._slow_after_s, self._is_slow, reading)
        self._readings.add(reading)
        try:
            yield
        finally:
            timer.cancel()
            self._readings.discard(reading)
            self._slow.pop(reading, None)

    def _is_slow(self, reading: _Reading) -> None:
        """Makes room for one more: the longest slow one of the address that has the most of them ends."""
        self._slow[reading] = None
        if len(self._slow) > self._most_slow:
            (greedy, _), *_ = Counter(one.address for one in self._slow).most_common(1)
            victim = next(one for one in self._slow if one.address == greedy)
            del self._slow[victim]
            _give_up(victim)


def _give_up(reading: _Reading) -> None:
    # one whose time has just run out ends by itself, and may not be told again
    if not reading.deadline.expired():
        reading.deadline.reschedule(asyncio.get_running_loop().time())
