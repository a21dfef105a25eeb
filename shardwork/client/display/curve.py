"""A stage's losses as a picture: one line for training, one for held-out rows, as SVG that needs nothing else.

Pure text from numbers; colours are the classes "train" and "held-out" of whoever shows it. Used by `document` and in
notebooks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..results import Round, Stage
from . import figures

WIDTH, HEIGHT = 480, 200
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 30
#: lines across, and labels below, at most
TICKS, LABELS = 5, 12


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where a (round, loss) lies in the picture."""

    first: float
    last: float
    low: float
    high: float

    def x(self, number: float) -> float:
        share = (number - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, loss: float) -> float:
        share = (loss - self.low) / (self.high - self.low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def curve(stage: Stage) -> str:
    """The SVG of a learning stage; empty while it has no loss."""
    rounds = [each for each in stage.rounds if each.kind in ("setup", "learn")]
    lines = {"train": _points(rounds, "train_loss"), "held-out": _points(rounds, "eval_loss")}
    every = [point for points in lines.values() for point in points]
    if not every:
        return ""
    steps = ticks(min(loss for _, loss in every), max(loss for _, loss in every))
    frame = _Frame(min(number for number, _ in every), max(number for number, _ in every), steps[0], steps[-1])
    parts = [_across(frame, loss) for loss in steps] + _below(frame, sorted({number for number, _ in every}))
    parts += [_line(frame, name, points) for name, points in lines.items() if points]
    kept = {each.number for each in rounds if each.state != "rolled_back"}
    parts += [_dot(frame, name, point, point[0] in kept) for name, points in lines.items() for point in points]
    head = f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_told(lines)}">'
    return f"{head}{''.join(parts)}</svg>"


def _points(rounds: Sequence[Round], key: str) -> list[tuple[int, float]]:
    """(round, loss) of every round that has a finite one."""
    found: list[tuple[int, float]] = []
    for each in rounds:
        loss: float | None = getattr(each, key)
        if loss is not None and math.isfinite(loss):
            found.append((each.number, loss))
    return found


def ticks(low: float, high: float) -> list[float]:
    """Round values from below `low` to above `high`: steps of 1, 2 or 5 of a power of ten."""
    wide = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(wide / TICKS))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * TICKS >= wide)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _across(frame: _Frame, loss: float) -> str:
    y = frame.y(loss)
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{loss:.4g}</text>'
    )


def _below(frame: _Frame, numbers: Sequence[int]) -> list[str]:
    every = -(-len(numbers) // LABELS)
    return [
        f'<text x="{frame.x(number)}" y="{HEIGHT - 10}" text-anchor="middle">{number}</text>'
        for number in numbers[:: max(every, 1)]
    ]


def _line(frame: _Frame, name: str, points: Sequence[tuple[int, float]]) -> str:
    path = " ".join(f"{frame.x(number)},{frame.y(loss)}" for number, loss in points)
    return f'<polyline class="{name}" points="{path}"/>'


def _dot(frame: _Frame, name: str, point: tuple[int, float], is_kept: bool) -> str:
    number, loss = point
    state = "" if is_kept else ", rolled back"
    return (
        f'<circle class="{name}{"" if is_kept else " undone"}" cx="{frame.x(number)}" cy="{frame.y(loss)}" r="3.5">'
        f"<title>round {number}{state}: {name} {figures.loss(loss)}</title></circle>"
    )


def _told(lines: dict[str, list[tuple[int, float]]]) -> str:
    """The picture in words, for whoever can't see it."""
    texts = [
        f"{name} loss from {figures.loss(points[0][1])} in round {points[0][0]} "
        f"to {figures.loss(points[-1][1])} in round {points[-1][0]}"
        for name, points in lines.items()
        if points
    ]
    return "; ".join(texts)
