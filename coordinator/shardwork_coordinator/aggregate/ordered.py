"""What `median` and `trimmed_mean` share: each parameter's values side by side and in order.

Planned tokens carry no weight here: in order is in order. The moments go through the same rule, each by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np

from shardwork.tensors.encoding import F32

from .mean import WeightedMean
from .rule import JUDGE_FROM

Rows = np.ndarray[tuple[int, int], np.dtype[np.float32]]


class Ordered(WeightedMean, ABC):
    holds_all: ClassVar[bool] = True

    def combine(self, pieces: Iterable[F32], weights: Sequence[float], out: F32) -> None:
        if len(weights) < JUDGE_FROM:
            super().combine(pieces, weights, out)
            return
        rows = np.empty((len(weights), len(out)), np.float32)
        for row, piece in zip(rows, pieces, strict=True):
            row[:] = piece
        sort_rows(rows)
        self.reduce(rows, out)

    @abstractmethod
    def reduce(self, rows: Rows, out: F32) -> None:
        """(deltas, elements), lowest first in each column -> (elements)."""


def sort_rows(rows: Rows) -> None:
    """Sorts each column in place by a network of whole-row minima and maxima.

    For a few rows many times faster than a sort along the first axis, which walks memory in strides.
    """
    smaller = np.empty(rows.shape[1], np.float32)
    for low, high in network(len(rows)):
        np.minimum(rows[low], rows[high], out=smaller)
        np.maximum(rows[low], rows[high], out=rows[high])
        rows[low] = smaller


def network(count: int) -> Iterator[tuple[int, int]]:
    """Comparators that sort `count` values: Batcher's merge exchange (Knuth, vol. 3, 5.2.2, algorithm M)."""
    top = 1 << max(count - 1, 1).bit_length() - 1
    step = top
    while step:
        reach, rest, distance = top, 0, step
        while True:
            yield from ((low, low + distance) for low in range(count - distance) if low & step == rest)
            if reach == step:
                break
            distance, reach, rest = reach - step, reach >> 1, step
        step >>= 1
