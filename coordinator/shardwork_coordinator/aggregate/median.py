"""The coordinate median: each parameter takes the middle of its values (Yin et al., arXiv 1803.01498, section 4)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from shardwork.tensors.encoding import F32

from .ordered import Ordered, Rows


class Median(Ordered):
    name: ClassVar[str] = "median"

    def reduce(self, rows: Rows, out: F32) -> None:
        np.median(rows, axis=0, out=out, overwrite_input=True)
