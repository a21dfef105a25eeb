"""The coordinate median: each parameter takes the middle of its values (Yin et al., arXiv 1803.01498, section 4)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from shardwork.tensors.encoding import F32

from .ordered import Ordered, Rows


class Median(Ordered):
    name: ClassVar[str] = "median"

    def reduce(self, rows: Rows, out: F32) -> None:
        upper = len(rows) // 2
        np.add(rows[len(rows) - 1 - upper], rows[upper], out=out)
        np.multiply(out, np.float32(0.5), out=out)
