"""Intake: cuts a stream of frames into whole leaves. Pure; one per upload stream, holds little more than one leaf."""

from __future__ import annotations

from shardwork.artifact import Manifest
from shardwork.errors import InvalidInput


class Intake:
    """Frames may end anywhere; what `take` answers begins and ends at leaves."""

    def __init__(self, manifest: Manifest, first_leaf: int) -> None:
        self._manifest = manifest
        self._next = first_leaf
        self._buffer = bytearray()
        #: bytes of whole leaves at the front of the buffer
        self.whole_bytes = 0

    def add(self, frame: bytes) -> None:
        """Raises InvalidInput "artifact.too_much_data" when it goes beyond the last leaf."""
        self._buffer += frame
        while self._next < self._manifest.leaf_count:
            end = self.whole_bytes + self._manifest.leaf(self._next).size_bytes
            if end > len(self._buffer):
                return
            self.whole_bytes = end
            self._next += 1
        if len(self._buffer) > self.whole_bytes:
            raise InvalidInput("artifact.too_much_data", "More data came than the manifest has.")

    def take(self) -> bytearray:
        """The whole leaves that came since; the rest waits for its end."""
        taken, self._buffer = self._buffer, self._buffer[self.whole_bytes :]
        del taken[self.whole_bytes :]
        self.whole_bytes = 0
        return taken
