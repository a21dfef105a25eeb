"""What `median` and `trimmed_mean` share: each parameter's values side by side, to be put in order.

Planned tokens carry no weight here: in order is in order. The moments go through the same rule, each by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
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
        self.reduce(rows, out)

    @abstractmethod
    def reduce(self, rows: Rows, out: F32) -> None:
        """(deltas, elements) -> (elements); `rows` may be reordered."""
