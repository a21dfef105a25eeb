"""Writing: puts one stream's leaves into its upload on a thread, while the event loop receives the next ones."""

from __future__ import annotations

import asyncio

from .store import ArtifactStore


class Writing:
    """One leaf batch is written while the next is received; never more, so memory stays flat."""

    def __init__(self, contents: ArtifactStore, artifact_id: str, owner: str) -> None:
        self._contents = contents
        self._artifact_id = artifact_id
        self._owner = owner
        self._task: asyncio.Task[int] | None = None

    async def push(self, leaves: bytearray) -> None:
        """Starts writing once the batch before it is written; raises what that one raised."""
        await self._settle()
        append = asyncio.to_thread(self._contents.append, self._artifact_id, leaves, owner=self._owner)
        self._task = asyncio.create_task(append)

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

    async def _settle(self) -> None:
        task = self._task
        if task is None:
            return
        # waiting, not awaiting: a thread can't be cancelled, and a cancelled stream still counts on what it writes
        await asyncio.wait({task})
        self._task = None
        task.result()
