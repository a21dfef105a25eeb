"""SwitchedChannel: a gRPC channel that can go on to another coordinator under the same stubs.

A stub keeps the methods of the channel it was made from. Here they look up the channel of the moment at each call, so
that a session moves and nobody who holds one of its stubs has to know. Used by `shardwork.session`.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc.aio

#: calls that still run on a channel that was left get so long
LEFT_GRACE_S = 5.0


class SwitchedChannel:
    """Looks like the channel in it. `current` is that one."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.current = channel
        self._closing: set[asyncio.Task[None]] = set()

    def as_channel(self) -> grpc.aio.Channel:
        """For stubs, which ask for nothing but the four kinds of call."""
        return cast(grpc.aio.Channel, self)

    def switch(self, channel: grpc.aio.Channel) -> None:
        """Calls from now on go over `channel`; the one before is closed once its last calls had their time."""
        left, self.current = self.current, channel
        closing = asyncio.get_running_loop().create_task(left.close(LEFT_GRACE_S))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close(self, grace: float | None = None) -> None:
        for closing in list(self._closing):
            closing.cancel()
        await self.current.close(grace)

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> _Method:
        return _Method(self, "unary_unary", method, args, kwargs)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> _Method:
        return _Method(self, "unary_stream", method, args, kwargs)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> _Method:
        return _Method(self, "stream_unary", method, args, kwargs)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> _Method:
        return _Method(self, "stream_stream", method, args, kwargs)


class _Method:
    """One method, on whichever channel is current when it is called."""

    def __init__(self, owner: SwitchedChannel, kind: str, method: str, args: Any, kwargs: Any) -> None:
        self._owner, self._kind, self._method, self._args, self._kwargs = owner, kind, method, args, kwargs
        self._made_for: grpc.aio.Channel | None = None
        self._made: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        channel = self._owner.current
        if self._made_for is not channel:
            self._made = getattr(channel, self._kind)(self._method, *self._args, **self._kwargs)
            self._made_for = channel
        return self._made(*args, **kwargs)
