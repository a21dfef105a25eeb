"""The weighted mean: every delta that passed the gates counts by its planned tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from shardwork.tensors.encoding import F32

from .rule import Evidence


class WeightedMean:
    name: ClassVar[str] = "mean"
    needs_products: ClassVar[bool] = False
    holds_all: ClassVar[bool] = False

    def screen(self, evidence: Evidence) -> Mapping[int, str]:
        return {}

    def coefficients(self, evidence: Evidence, weights: Mapping[int, float]) -> Mapping[int, float]:
        return weights

    def combine(self, pieces: Iterable[F32], weights: Sequence[float], out: F32) -> None:
        """fp32, in the order of the deltas: a single delta of weight one passes through bit by bit."""
        for index, (piece, weight) in enumerate(zip(pieces, weights, strict=True)):
            if index == 0:
                np.multiply(piece, np.float32(weight), out=out)
            else:
                np.multiply(piece, np.float32(weight), out=piece)
                np.add(out, piece, out=out)
