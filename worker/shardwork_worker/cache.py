"""Artifacts on this machine's disk: folders by id, the least recently used dropped first.

Owns what is kept and for how long. It only speeds: whatever is missing is downloaded again. `inputs` fills it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from shardwork.artifact import describe_folder

DEFAULT_LIMIT_BYTES = 20 * 1024**3
#: every shard looks at all that is kept, so tiny artifacts are bounded by their number
MOST_ARTIFACTS = 500
ID_LETTERS = 64


class Cache:
    """One folder per artifact id. One agent uses it at a time (the worker's lock file)."""

    def __init__(self, folder: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        #: checked against their id since this process started
        self._trusted: set[str] = set()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def place(self, artifact_id: str) -> Path:
        """Where the artifact lies or will lie."""
        return self._folder / artifact_id

    async def find(self, artifact_id: str) -> Path | None:
        """The artifact's folder if it is here and intact. A folder that no longer matches its id is removed."""
        folder = self.place(artifact_id)
        if not folder.is_dir():
            return None
        if artifact_id not in self._trusted and not await self.accept(artifact_id, folder):
            return None
        os.utime(folder)
        return folder

    async def accept(self, artifact_id: str, folder: Path) -> bool:
        """Takes `folder` in as the artifact if its content has that id; removes it otherwise."""
        # hashing is native code that releases the interpreter, so heartbeats go on
        found = await asyncio.to_thread(describe_folder, folder)
        if found.id != artifact_id:
            shutil.rmtree(folder, ignore_errors=True)
            return False
        if folder != self.place(artifact_id):
            folder.replace(self.place(artifact_id))
        self._trusted.add(artifact_id)
        return True

    def add(self, artifact_id: str) -> Path:
        """Notes that the artifact was just completed at its place by something that checked every byte."""
        self._trusted.add(artifact_id)
        return self.place(artifact_id)

    def newest(self, most: int) -> list[str]:
        """Ids of what lies here, most recently used first: what the coordinator is told, as a hint."""
        names = [entry.name for entry in reversed(self._oldest_first()) if len(entry.name) == ID_LETTERS]
        return names[:most]

    def trim(self, *, keep: Collection[str]) -> None:
        """Removes the least recently used artifacts until the rest fits; never one of `keep`, complete or not."""
        entries = self._oldest_first()
        sizes = {entry: _size_bytes(entry) for entry in entries}
        excess_bytes, excess = sum(sizes.values()) - self._limit_bytes, len(entries) - MOST_ARTIFACTS
        for entry in entries:
            if excess_bytes <= 0 and excess <= 0:
                return
            if self._drop(entry, keep):
                excess_bytes -= sizes[entry]
                excess -= 1

    def make_room(self, *, keep: Collection[str]) -> bool:
        """Removes everything but `keep`, for a disk that is full; whether there was anything."""
        dropped = [entry for entry in self._oldest_first() if self._drop(entry, keep)]
        return bool(dropped)

    def _oldest_first(self) -> list[Path]:
        return sorted(self._folder.iterdir(), key=lambda entry: entry.stat().st_mtime)

    def _drop(self, entry: Path, keep: Collection[str]) -> bool:
        if entry.name.partition(".")[0] in keep:
            return False
        self._trusted.discard(entry.name)
        _remove(entry)
        return True


def _size_bytes(entry: Path) -> int:
    if not entry.is_dir():
        return entry.stat().st_size
    return sum(file.stat().st_size for file in entry.rglob("*") if file.is_file())


def _remove(entry: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
