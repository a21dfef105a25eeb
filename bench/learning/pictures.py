"""Pictures: held-out loss against steps and against bytes, as SVG that reads on light and dark pages.

Owns how a chart is drawn; what is drawn comes from `figures`. No plotting library: a chart is lines, ticks and words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 380
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 44, 52
#: Okabe and Ito's colours, which people with any colour sight tell apart, and dashes for those who print
INKS = (("#0072b2", ""), ("#d55e00", ""), ("#009e73", "7 3"), ("#cc79a7", "2 3"))
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600;font-size:15px}"
    ".axis{stroke:#57606a;stroke-width:1}.grid{stroke:#8c959f;stroke-width:1;opacity:.3}"
    "polyline{fill:none;stroke-width:2.2}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.axis{stroke:#9198a1}.grid{stroke:#9198a1}}"
)


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    #: (x, loss)
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    title: str
    across: str
    lines: Sequence[Line]
    #: powers of ten on the x axis
    log: bool = False


def draw(chart: Chart) -> str:
    """The chart as one SVG document."""
    points = [point for line in chart.lines for point in line.points]
    lows, highs = (tuple(pick(axis) for axis in zip(*points, strict=True)) for pick in (min, max))
    across = _ticks_of_ten(lows[0], highs[0]) if chart.log else _ticks(lows[0], highs[0])
    up = _ticks(lows[1], highs[1])
    shown = math.log10 if chart.log else float
    place_x = _scale(shown(across[0]), shown(across[-1]), LEFT, WIDTH - RIGHT)
    place_y = _scale(up[0], up[-1], HEIGHT - BOTTOM, TOP)
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(chart.title)}</title><style>{STYLE}</style>",
        f'<text class="title" x="{LEFT}" y="20">{escape(chart.title)}</text>',
        f'<text x="{middle:.0f}" y="{HEIGHT - 10}" text-anchor="middle">{escape(chart.across)}</text>',
        *(_rule_up(place_x(shown(tick)), _words(tick)) for tick in across),
        *(_rule_across(place_y(tick), f"{tick:g}") for tick in up),
    ]
    for number, line in enumerate(chart.lines):
        ink, dash = INKS[number % len(INKS)]
        path = " ".join(f"{place_x(shown(x)):.1f},{place_y(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline points="{path}" style="stroke:{ink};stroke-dasharray:{dash or "none"}"/>')
        parts.append(_legend(number, line.name, ink, dash))
    return "\n".join([*parts, "</svg>", ""])


def _scale(low: float, high: float, first: float, last: float) -> Callable[[float], float]:
    span = high - low or 1.0
    return lambda value: first + (value - low) / span * (last - first)


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers that hold all values."""
    rough = (high - low or 1.0) / 5
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * times for times in (1, 2, 2.5, 5, 10) if size * times >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _ticks_of_ten(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def _words(value: float) -> str:
    """Bytes and steps in short: 10k, 1M, 1G."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size and value % size == 0:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _rule_up(x: float, words: str) -> str:
    y = HEIGHT - BOTTOM
    return (
        f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{y}"/>'
        f'<text x="{x:.1f}" y="{y + 18}" text-anchor="middle">{words}</text>'
    )


def _rule_across(y: float, words: str) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{words}</text>'
    )


def _legend(number: int, name: str, ink: str, dash: str) -> str:
    x, y = WIDTH - RIGHT - 218, TOP + 16 + number * 20
    return (
        f'<line x1="{x}" y1="{y - 4}" x2="{x + 26}" y2="{y - 4}" '
        f'style="stroke:{ink};stroke-width:2.2;stroke-dasharray:{dash or "none"}"/>'
        f'<text x="{x + 34}" y="{y}">{escape(name)}</text>'
    )
