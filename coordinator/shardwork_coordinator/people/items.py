"""Items: the texts that people are shown, read out of a stage's artifact one line at a time. Few stay in memory."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from shardwork.artifact import LEAF_BYTES
from shardwork.errors import Corrupt, ShardworkError

from ..artifacts import ArtifactStore

#: stages whose index is kept, and pieces of items of a MiB each
MOST_INDEXES, MOST_LEAVES = 32, 24

#: stage -> which answer of each item is longer
Longer = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Index:
    """Where each item's line begins, and where the last one ends."""

    first_leaf: int
    offsets: tuple[int, ...]
    #: of each item with two answers, which has more letters; -1: neither
    longer: tuple[int, ...] = ()

    def letters(self, number: int) -> int:
        """About how long it is."""
        return self.offsets[number + 1] - self.offsets[number]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    prompt: str
    answers: tuple[str, ...]
    #: the known answer; None of an item that is asked
    gold: dict[str, Any] | None
    #: the stage made the item out of one answer, and nobody knows whether that one is any good
    made: bool = False


class Items:
    def __init__(self, contents: ArtifactStore) -> None:
        self._contents = contents
        self._indexes: OrderedDict[str, Index] = OrderedDict()
        self._leaves: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    async def index(self, artifact: str) -> Index:
        if (known := self._indexes.get(artifact)) is not None:
            self._indexes.move_to_end(artifact)
            return known
        found = await asyncio.to_thread(self._read_index, artifact)
        self._indexes[artifact] = found
        if len(self._indexes) > MOST_INDEXES:
            self._indexes.popitem(last=False)
        return found

    async def longer(self, artifacts: Mapping[str, str]) -> Longer:
        """`artifacts`: stage -> its items. Nothing is told of what is deleted or cannot be read now."""
        found: dict[str, Sequence[int]] = {}
        for stage, artifact in artifacts.items():
            try:
                found[stage] = (await self.index(artifact)).longer
            except (ShardworkError, OSError):
                continue
        return found

    async def item(self, artifact: str, number: int) -> Item:
        index = await self.index(artifact)
        if not 0 <= number < len(index.offsets) - 1:
            raise Corrupt("people.no_item", "The stage's items lack one.", item=number)
        start, end = index.offsets[number], index.offsets[number + 1]
        data = bytearray()
        for leaf in range(start // LEAF_BYTES, (end - 1) // LEAF_BYTES + 1):
            data += await self._leaf(artifact, index.first_leaf + leaf)
        at = start % LEAF_BYTES
        line = json.loads(data[at : at + end - start])
        return Item(
            prompt=line["prompt"], answers=tuple(line["answers"]), gold=line.get("gold"), made=bool(line.get("made"))
        )

    async def _leaf(self, artifact: str, number: int) -> bytes:
        key = (artifact, number)
        if (known := self._leaves.get(key)) is not None:
            self._leaves.move_to_end(key)
            return known
        found = await asyncio.to_thread(lambda: next(self._contents.read_leaves(artifact, number, 1)))
        self._leaves[key] = bytes(found)
        if len(self._leaves) > MOST_LEAVES:
            self._leaves.popitem(last=False)
        return self._leaves[key]

    def _read_index(self, artifact: str) -> Index:
        manifest = self._contents.manifest(artifact)
        first, count = manifest.leaf_span("index.json")
        text = b"".join(islice(self._contents.read_leaves(artifact, first, count), count))
        told = json.loads(text)
        return Index(manifest.leaf_span("items.jsonl")[0], tuple(told["offsets"]), tuple(told.get("longer", ())))
