"""The trimmed mean: each parameter's outermost fifths do not count (Yin et al., arXiv 1803.01498, section 4)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from shardwork.tensors.encoding import F32

from .ordered import Ordered, Rows
from .rule import hostile


class TrimmedMean(Ordered):
    name: ClassVar[str] = "trimmed_mean"

    def reduce(self, rows: Rows, out: F32) -> None:
        trim = hostile(len(rows), least_honest=1)
        np.mean(rows[trim : len(rows) - trim], axis=0, out=out)
