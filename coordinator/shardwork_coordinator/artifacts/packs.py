"""Packs: where each leaf of a manifest lies. Pure; staging and reading agree on places through it alone.

Leaves are concatenated in manifest order into packs of at most 64 MiB; a leaf never straddles two packs, so any leaf
is one range of one object, and ten thousand small files still become few objects.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass

from shardwork.artifact import Manifest

PACK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Place:
    pack: int
    offset_bytes: int
    size_bytes: int


class Packs:
    """The places of one manifest's leaves. `overhead_bytes`: how much longer each is stored than it is."""

    def __init__(self, manifest: Manifest, overhead_bytes: int = 0) -> None:
        #: offset of each leaf in the artifact's stream of leaves, and its end
        self._offsets = array("Q", [0])
        #: global number of each pack's first leaf
        self._firsts: list[int] = []
        base = 0
        end = 0
        for number, size in enumerate(manifest.leaf_sizes()):
            start, end = end, end + size + overhead_bytes
            if not self._firsts or end - base > PACK_BYTES + overhead_bytes * (number - self._firsts[-1] + 1):
                self._firsts.append(number)
                base = start
            self._offsets.append(end)

    @property
    def count(self) -> int:
        return len(self._firsts)

    def place(self, leaf: int) -> Place:
        """Where the leaf with this global number lies."""
        pack = bisect_right(self._firsts, leaf) - 1
        base = self._offsets[self._firsts[pack]]
        return Place(pack, self._offsets[leaf] - base, self._offsets[leaf + 1] - self._offsets[leaf])

    def leaves(self, pack: int) -> range:
        """Global numbers of the pack's leaves."""
        last = pack + 1 == self.count
        return range(self._firsts[pack], len(self._offsets) - 1 if last else self._firsts[pack + 1])

    def size_bytes(self, pack: int) -> int:
        leaves = self.leaves(pack)
        return self._offsets[leaves.stop] - self._offsets[leaves.start]
