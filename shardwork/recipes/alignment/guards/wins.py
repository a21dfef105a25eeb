"""Wins: how often one model's answers beat another's, as numbers that a stage of votes tells when it ends.

Owns their names: "win.<a>.<b>" is the share of a's wins over b (a tie is half a one), "win_low.<a>.<b>" and
"win_high.<a>.<b>" its 95 % interval, a before b in the alphabet. The figures are `shardwork.feedback`'s. Pure; called
by the phases `join` of people, judge and consensus, and by whoever compares stages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path

from ....feedback.intervals import Share
from ....feedback.ratings import win_rate
from ....feedback.votes import Vote, read
from ....jobs.spec import NAME

#: more models than these are a table for a report, not numbers of a stage
MOST_MODELS = 6
_KINDS = ("win", "win_low", "win_high")


def win_metrics(votes: Iterable[Vote]) -> dict[str, float]:
    """Of every pair of models that met; models whose name no job could give are left out."""
    met = [vote for vote in votes if vote.model_a != vote.model_b]
    models = sorted({name for vote in met for name in (vote.model_a, vote.model_b) if NAME.match(name)})
    found: dict[str, float] = {}
    for a, b in combinations(models[:MOST_MODELS], 2):
        these = [vote for vote in met if {vote.model_a, vote.model_b} == {a, b}]
        if these:
            rate = win_rate(these, a, b).rate
            found |= dict(zip((f"{kind}.{a}.{b}" for kind in _KINDS), (rate.value, rate.low, rate.high), strict=True))
    return found


def wins_in(file: Path) -> dict[str, float]:
    """Of a votes file that a phase just wrote. Rows of uploaded answers need name no models."""

    def named() -> Iterator[str]:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                models = [str(row.get(key, "")) for key in ("model_a", "model_b")]
                if all(NAME.match(one) for one in models) and models[0] != models[1]:
                    yield line

    return win_metrics(read(named(), file.name))


def wins_among(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if name.partition(".")[0] in _KINDS}


def win_of(numbers: Mapping[str, float], model: str, against: str) -> Share | None:
    """The share that `model` won against the other; None where they did not meet."""
    a, b = sorted((model, against))
    told = [numbers.get(f"{kind}.{a}.{b}") for kind in _KINDS]
    if a == b or any(value is None for value in told):
        return None
    value, low, high = (float(one or 0.0) for one in told)
    return Share(value, low, high, 0) if model == a else Share(1 - value, 1 - high, 1 - low, 0)
