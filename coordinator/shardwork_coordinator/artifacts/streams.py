"""Streams: the upload streams that are live, at most one per upload and so many in all.

A dropped connection may look alive on this side for long, so an owner who comes again ends its older stream and waits
until what came over that one is durable. Used by `rpc.artifacts` on the event loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from shardwork.errors import Conflict, LimitExceeded, ShardworkError, Unreachable


class UploadStream:
    """One live stream; `touch` after each frame, or it ends as idle."""

    def __init__(self, idle_s: float) -> None:
        self.done = asyncio.Event()
        self._idle_s = idle_s
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

    def touch(self) -> None:
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
            "Nothing came over this upload for too long.",
            next_step="Begin it again; what arrived is kept.",
            idle_s=self._idle_s,
        )


class UploadStreams:
    def __init__(self, *, streams_max: int, idle_s: float) -> None:
        self._streams_max = streams_max
        self._idle_s = idle_s
        self._live: dict[tuple[str, str], UploadStream] = {}

    @property
    def count(self) -> int:
        """Streams that are live now."""
        return len(self._live)

    async def end_older(self, artifact_id: str, owner: str) -> None:
        """Ends this owner's live stream of the upload, if there is one, once its leaves are durable."""
        while (stream := self._live.get((artifact_id, owner))) is not None:
            stream.supersede()
            await stream.done.wait()

    @asynccontextmanager
    async def only(self, artifact_id: str, owner: str) -> AsyncGenerator[UploadStream, None]:
        """The one stream of this upload. Raises LimitExceeded "artifact.too_many_uploads"."""
        await self.end_older(artifact_id, owner)
        if len(self._live) >= self._streams_max:
            raise LimitExceeded(
                "artifact.too_many_uploads",
                "The coordinator takes no more uploads at the moment.",
                next_step="Try again in a minute.",
                limit=self._streams_max,
            )
        stream = self._live[artifact_id, owner] = UploadStream(self._idle_s)
        try:
            yield stream
        finally:
            del self._live[artifact_id, owner]
            stream.done.set()
