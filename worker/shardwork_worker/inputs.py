"""A lease's inputs on disk: from the cache, rebuilt from a round's update, or downloaded.

Owns which way is the cheapest and counts the bytes. A worker that holds the parent of a checkpoint fetches only the
update (about one byte a parameter) and lets the child rebuild; the result must have the checkpoint's id, bit by bit.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shardwork.errors import LimitExceeded, ShardworkError
from shardwork.session import Session
from shardwork.transfer import download, size_of

from .cache import Cache
from .limits.size import show
from .log import say

#: another way to `checkpoint`; the phase itself reads none of them
UPDATE_NAMES = frozenset({"parent_checkpoint", "step", "moments"})


class Rebuilder(Protocol):
    async def rebuild(self, *, checkpoint: Path, step: Path, moments: Path, into: Path) -> None: ...


@dataclass(slots=True)
class InputFetcher:
    """Fetches one lease's inputs. `bytes_down` counts what came over the network."""

    session: Session
    cache: Cache
    rebuilder: Rebuilder
    on_progress: Callable[[float], None]
    bytes_down: int = 0
    #: a shard that would bring more is not for this worker; None: any
    limit_bytes: int | None = None

    async def fetch(self, inputs: Mapping[str, str]) -> dict[str, Path]:
        """Input name -> folder, only those that the phase reads. Raises what `download` raises."""
        has_update = "checkpoint" in inputs and set(inputs) >= UPDATE_NAMES
        needed = {name: inputs[name] for name in inputs if not (has_update and name in UPDATE_NAMES)}
        await self._check_size(needed.values())
        folders: dict[str, Path] = {}
        for count, (name, artifact_id) in enumerate(sorted(needed.items())):
            self.on_progress(count / len(needed))
            folder = await self.cache.find(artifact_id)
            if folder is None and name == "checkpoint" and has_update:
                folder = await self._rebuild(inputs)
            folders[name] = folder or await self._download_with_room(artifact_id, inputs)
        self.cache.trim(keep=set(inputs.values()))
        return folders

    async def _check_size(self, artifacts: Iterable[str]) -> None:
        """Raises LimitExceeded "worker.limit_input_bytes" before anything is fetched."""
        if self.limit_bytes is None:
            return
        missing = [one for one in artifacts if not self.cache.place(one).is_dir()]
        total = sum([await size_of(self.session, one) for one in missing])
        if total > self.limit_bytes:
            raise LimitExceeded(
                "worker.limit_input_bytes",
                f"The shard's inputs are {show(total)}, and this worker's owner allows {show(self.limit_bytes)}.",
                next_step="Raise input_bytes in worker.toml to take such shards.",
                input_bytes=total,
            )

    async def _download_with_room(self, artifact_id: str, inputs: Mapping[str, str]) -> Path:
        """Downloads it; on a full disk once more after the cache gave way, since nothing in it is irreplaceable."""
        try:
            return await self._download(artifact_id)
        except LimitExceeded as error:
            if error.code != "artifact.no_space" or not self.cache.make_room(keep=set(inputs.values())):
                raise
        say("the disk is full: dropped the inputs of earlier shards")
        return await self._download(artifact_id)

    async def _rebuild(self, inputs: Mapping[str, str]) -> Path | None:
        """The checkpoint made from its parent; None when the parent is not here or the result is not the checkpoint."""
        parent = await self.cache.find(inputs["parent_checkpoint"])
        if parent is None:
            return None
        step = await self._find_or_download(inputs["step"])
        moments = await self._find_or_download(inputs["moments"])
        wanted = inputs["checkpoint"]
        into = self.cache.place(wanted).with_suffix(".rebuilt")
        shutil.rmtree(into, ignore_errors=True)
        try:
            await self.rebuilder.rebuild(checkpoint=parent, step=step, moments=moments, into=into)
        except ShardworkError as error:
            say(f"could not rebuild the checkpoint, downloading it: {error}")
            shutil.rmtree(into, ignore_errors=True)
            return None
        if not await self.cache.accept(wanted, into):
            say("the rebuilt checkpoint differs from the coordinator's, downloading it")
            return None
        return self.cache.place(wanted)

    async def _find_or_download(self, artifact_id: str) -> Path:
        return await self.cache.find(artifact_id) or await self._download(artifact_id)

    async def _download(self, artifact_id: str) -> Path:
        manifest = await download(self.session, artifact_id, self.cache.place(artifact_id))
        self.bytes_down += manifest.total_bytes
        return self.cache.add(artifact_id)
