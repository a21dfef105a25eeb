"""Writing: puts one stream's leaves into its upload on a thread, while the event loop receives the next ones."""

from __future__ import annotations

import asyncio

from shardwork.errors import LimitExceeded

from .store import ArtifactStore


class Writing:
    """One leaf batch is written while the next is received; never more, so memory stays flat."""

    def __init__(self, contents: ArtifactStore, artifact_id: str, owner: str, *, reserve_bytes: int = 0) -> None:
        self._contents = contents
        self._reserve_bytes = reserve_bytes
        self._artifact_id = artifact_id
        self._owner = owner
        self._task: asyncio.Task[int] | None = None

    async def push(self, leaves: bytearray) -> None:
        """Starts writing once the batch before it is written; raises what that one raised."""
        await self._settle()
        self._task = asyncio.create_task(asyncio.to_thread(self._append, leaves))

    async def finish(self, leaves: bytearray) -> int:
        """Writes the last leaves and answers how many are durable then. After a refused leaf nothing is appended."""
        try:
            await self._settle()
            if leaves:
                await self.push(leaves)
                await self._settle()
        finally:
            durable = await asyncio.to_thread(self._contents.sync, self._artifact_id, owner=self._owner)
        return durable

    def _append(self, leaves: bytearray) -> int:
        # again with every batch: what was free when the upload began may be promised to many
        free = self._contents.free_bytes()
        if free - len(leaves) < self._reserve_bytes:
            raise LimitExceeded(
                "artifact.no_space",
                "The disk that stores artifacts is full.",
                next_step="Ask the operator to free space, then send it again; what arrived is kept.",
                free_bytes=free,
            )
        return self._contents.append(self._artifact_id, leaves, owner=self._owner)

    async def _settle(self) -> None:
        task = self._task
        if task is None:
            return
        # waiting, not awaiting: a thread can't be cancelled, and a cancelled stream still counts on what it writes
        await asyncio.wait({task})
        self._task = None
        task.result()
