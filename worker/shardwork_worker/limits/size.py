"""Sizes as people write them, "20 GB" or "512MiB", for settings that count bytes."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

UNITS = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
}
WRITTEN = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)


def parse(value: object) -> object:
    """The bytes of a text; anything else as it is. Raises ValueError for a text that is no size."""
    if not isinstance(value, str):
        return value
    found = WRITTEN.fullmatch(value.strip())
    unit = UNITS.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise ValueError(f"{value!r} is no size; write bytes, or as 500MB or 20 GiB")
    return round(float(found[1]) * unit)


Size = Annotated[int, BeforeValidator(parse)]


def show(count_bytes: float) -> str:
    """In the largest unit of 1024 that leaves a whole one."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count_bytes < 1024:
            return f"{count_bytes:.0f} {unit}" if unit == "bytes" else f"{count_bytes:.1f} {unit}"
        count_bytes /= 1024
    return f"{count_bytes:.1f} TiB"
