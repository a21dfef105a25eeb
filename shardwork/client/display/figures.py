"""Figures as people read them: bytes, durations, counts, shares, bars and sparklines. Pure text, no colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

SPARKS = "▁▂▃▄▅▆▇█"
_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB")


def size(num_bytes: int) -> str:
    """1234567 -> "1.2 MB" (powers of 1000)."""
    value = float(num_bytes)
    for unit in _BYTE_UNITS:
        if value < 999.5 or unit == _BYTE_UNITS[-1]:
            digits = 0 if unit == "B" or value >= 99.5 else 1
            return f"{value:.{digits}f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """4 -> "4 s", 75 -> "1 min 15 s", 7500 -> "2 h 5 min", 180000 -> "2 d 2 h"."""
    if seconds < 9.95 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two(whole, 60, "min", 1, "s")
    if whole < 86_400:
        return _two(whole, 3600, "h", 60, "min")
    return _two(whole, 86_400, "d", 3600, "h")


def _two(seconds: int, big: int, big_unit: str, small: int, small_unit: str) -> str:
    large, rest = divmod(seconds, big)
    little = rest // small
    return f"{large} {big_unit} {little} {small_unit}" if little else f"{large} {big_unit}"


def span(low: str, high: str) -> str:
    """A range, or the one value when both ends read the same."""
    return low if low == high else f"{low} – {high}"


def count(number: int) -> str:
    """1234567 -> "1,234,567"."""
    return f"{number:,}"


def parameters(number: int) -> str:
    """976000 -> "976.0k", 1100000000 -> "1.1B": how models are named."""
    for limit, unit in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k")):
        if number >= limit:
            return f"{number / limit:.1f}{unit}"
    return str(number)


def loss(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if math.isfinite(value) else str(value)


def percent(fraction: float) -> str:
    return f"{100 * min(max(fraction, 0.0), 1.0):.0f} %"


def share(fraction: float) -> str:
    """Two digits, and never more than are known: "0.12 %", "19 %", "100 %"."""
    value = 100 * fraction
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.2g} %"


def change(first: float, last: float) -> str:
    """Relative change with its sign: "−26.3 %"."""
    if first == 0 or not (math.isfinite(first) and math.isfinite(last)):
        return ""
    share = 100 * (last - first) / first
    return f"{'−' if share < 0 else '+'}{abs(share):.1f} %"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """The finite values as block characters; the newest `width` of them when there are more."""
    shown = [value for value in values if math.isfinite(value)][-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    if high == low:
        return SPARKS[3] * len(shown)
    top = len(SPARKS) - 1
    return "".join(SPARKS[round((value - low) / (high - low) * top)] for value in shown)


def bar(fraction: float, width: int) -> tuple[str, str]:
    """The filled and the empty part of a bar `width` cells wide; a value above zero shows at least one cell."""
    share = min(max(fraction, 0.0), 1.0)
    filled = int(share * width)
    if share > 0 and filled == 0:
        filled = 1
    return "━" * filled, "─" * (width - filled)


def clock_time(unix_ms: int) -> str:
    """Local wall-clock time, "14:03:07"."""
    return datetime.fromtimestamp(unix_ms / 1000).strftime("%H:%M:%S")


def day_time(unix_ms: int) -> str:
    """Local date and time, "2026-11-23 14:03"."""
    return datetime.fromtimestamp(unix_ms / 1000).strftime("%Y-%m-%d %H:%M")
