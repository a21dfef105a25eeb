"""Columns: the artifact that scores or verdicts are, from the numbers that were reported with it.

Equal values have equal artifact ids (`file`), so a coordinator knows what must lie in a file of a few numbers
without reading it. Owns the bytes of one file of float32 columns, without numpy, which no client and no agent has.
Called by `recipes.alignment.auditing`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence

from ..artifact import artifact_of


def columns_id(file: str, columns: Mapping[str, Sequence[float]]) -> str:
    """The artifact of this one file; "" where a number is none of float32."""
    header: dict[str, object] = {}
    data = b""
    for name in sorted(columns):
        try:
            packed = struct.pack(f"<{len(columns[name])}f", *columns[name])
        except OverflowError:
            return ""
        offsets = [len(data), len(data) + len(packed)]
        header[name] = {"dtype": "F32", "shape": [len(columns[name])], "data_offsets": offsets}
        data += packed
    told = json.dumps(header, separators=(",", ":")).encode()
    told += b" " * (-len(told) % 8)
    return artifact_of({file: len(told).to_bytes(8, "little") + told + data})
