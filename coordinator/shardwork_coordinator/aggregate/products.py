"""Inner products of all pairs of deltas, over all elements: every distance in the span of the deltas follows from them.

One more pass over the deltas, for the rules that ask for it. Memory stays bounded. Called by `merge`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from shardwork.tensors.checkpoint import Checkpoint
from shardwork.tensors.encodedfile import pieces, scratch

from .gates import OpenDelta
from .rule import Matrix

#: elements of one strip of all deltas together
STRIP = 1 << 21


def inner_products(deltas: Mapping[int, OpenDelta], checkpoint: Checkpoint) -> Matrix:
    """(deltas, deltas), in the order of the mapping; accumulated in double."""
    count, room = len(deltas), scratch()
    total = np.zeros((count, count))
    for name, start, end in pieces(checkpoint.shapes):
        width = max(1, STRIP // count)
        for at in range(start, end, width):
            stop = min(at + width, end)
            total += _strip(deltas, checkpoint, (name, start, end), slice(at - start, stop - start), room)
    return total


def _strip(
    deltas: Mapping[int, OpenDelta],
    checkpoint: Checkpoint,
    place: tuple[str, int, int],
    part: slice,
    room: np.ndarray[tuple[int], np.dtype[np.float32]],
) -> Matrix:
    rows = np.stack([delta.change(checkpoint, place, room)[part].astype(np.float64) for delta in deltas.values()])
    return np.asarray(rows @ rows.T)
