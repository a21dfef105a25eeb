"""Streams: who works on which upload right now: one at a time per upload, and so many streams in all and per party.

A dropped connection may look alive on this side for long, so an owner who comes again ends its older stream and waits
until what came over that one is durable. Used by `rpc.artifacts` on the event loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from shardwork.errors import Conflict, LimitExceeded, ShardworkError, Unreachable

#: a stream must bring so much within the idle time, or its end; a byte now and then would hold its place for ever
LEAST_BYTES = 64 << 10


class UploadStream:
    """One live stream, or one call that opens or completes the upload; `brought` after each frame, or it is idle."""

    def __init__(self, owner: str, idle_s: float, *, counts: bool) -> None:
        self.owner = owner
        #: against the limits of streams
        self.counts = counts
        self.done = asyncio.Event()
        self._idle_s = idle_s
        self._brought_bytes = 0
        self._scope: asyncio.Timeout | None = None
        self._superseded = False

    @asynccontextmanager
    async def receiving(self) -> AsyncGenerator[None, None]:
        """Raises Unreachable "artifact.idle" or Conflict "artifact.superseded" inside what waits for frames."""
        if self._superseded:
            raise self._ended()
        try:
            async with asyncio.timeout(self._idle_s) as self._scope:
                yield
        except TimeoutError:
            raise self._ended() from None
        finally:
            self._scope = None

    def brought(self, size_bytes: int) -> None:
        self._brought_bytes += size_bytes
        if self._brought_bytes >= LEAST_BYTES:
            self._brought_bytes = 0
            self._end_in(self._idle_s)

    def supersede(self) -> None:
        self._superseded = True
        self._end_in(0.0)

    def _end_in(self, seconds: float) -> None:
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time() + seconds)

    def _ended(self) -> ShardworkError:
        if self._superseded:
            return Conflict("artifact.superseded", "A newer connection of the same party goes on with this upload.")
        return Unreachable(
            "artifact.idle",
            "Next to nothing came over this upload for too long.",
            next_step="Begin it again; what arrived is kept.",
            idle_s=self._idle_s,
            least_bytes=LEAST_BYTES,
        )


class UploadStreams:
    def __init__(self, *, streams_max: int, of_one_max: int, idle_s: float) -> None:
        self._streams_max = streams_max
        self._of_one_max = of_one_max
        self._idle_s = idle_s
        self._live: dict[tuple[str, str], UploadStream] = {}

    @property
    def count(self) -> int:
        """Streams that are live now."""
        return sum(1 for stream in self._live.values() if stream.counts)

    def only(self, artifact_id: str, owner: str) -> AbstractAsyncContextManager[UploadStream]:
        """The one stream of this upload. Raises LimitExceeded "artifact.too_many_uploads"."""
        return self._place(artifact_id, owner, counts=True)

    @asynccontextmanager
    async def alone(self, artifact_id: str, owner: str) -> AsyncGenerator[None, None]:
        """Nobody else touches this upload meanwhile; what streams into it is ended first, its leaves durable."""
        async with self._place(artifact_id, owner, counts=False):
            yield

    @asynccontextmanager
    async def _place(self, artifact_id: str, owner: str, *, counts: bool) -> AsyncGenerator[UploadStream, None]:
        while (older := self._live.get((artifact_id, owner))) is not None:
            older.supersede()
            await older.done.wait()
        if counts:
            self._check_room(owner)
        stream = self._live[artifact_id, owner] = UploadStream(owner, self._idle_s, counts=counts)
        try:
            yield stream
        finally:
            del self._live[artifact_id, owner]
            stream.done.set()

    def _check_room(self, owner: str) -> None:
        mine = sum(1 for stream in self._live.values() if stream.counts and stream.owner == owner)
        if mine >= self._of_one_max or self.count >= self._streams_max:
            raise LimitExceeded(
                "artifact.too_many_uploads",
                "The coordinator takes no more uploads at the moment.",
                next_step="Try again in a minute.",
                yours=mine,
                limit_of_one=self._of_one_max,
                limit=self._streams_max,
            )
