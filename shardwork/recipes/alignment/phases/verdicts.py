"""Verdicts: phase `join` of judge: what a judge model said becomes votes and preference rows.

Every pair was asked in both orders. Both are votes; a preference row needs that both agree, so that a judge who likes
what stands first prefers nothing. With length control, what length alone won is no preference either. Runs in the
operator's executor; probabilities come from strangers and are read within bounds. Called by the recipe judge.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...base import Computed, Context
from ..answers import read_verdicts
from ..guards.wins import wins_in
from ..orders import JudgeVerdictsOrder
from .grading import read_rows
from .items import item_row, write_items
from .length_control import Values, controlled, fitted_length, length_terms
from .preference import preference_row

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Verdicts:
    """Of all pairs: the probability that A is better, with A shown first and with B shown first."""

    rows: Sequence[Row]
    first: Values
    second: Values

    @property
    def mean(self) -> Values:
        return (self.first + self.second) / 2

    @property
    def agree(self) -> npt.NDArray[np.bool_]:
        """Pairs whose two verdicts name the same answer."""
        return ((self.first > 0.5) & (self.second > 0.5)) | ((self.first < 0.5) & (self.second < 0.5))


def join(order: JudgeVerdictsOrder, context: Context) -> Computed:
    """inputs part-<i>, output-<i> -> outputs votes, rows; metrics are counts and shares.

    Raises Corrupt "answers.unreadable".
    """
    found = _read(order, context)
    sure, weight = _sure(order, found)
    votes, rows = context.output("votes"), context.output("rows")
    with (votes / "votes.jsonl").open("w", encoding="utf-8") as sink:
        for at, row in enumerate(found.rows):
            for shown, chance in (("ab", found.first[at]), ("ba", found.second[at])):
                sink.write(_line(_vote(order, row, shown, float(chance))))
    write_items(votes, (_item(row) for row in found.rows))
    kept = 0
    with (rows / "preferences.jsonl").open("w", encoding="utf-8") as sink:
        for at, row in enumerate(found.rows):
            chance = float(sure[at])
            stands = found.agree[at] and (chance > 0.5) == (found.mean[at] > 0.5)
            preferred = _preferred(order, row, chance) if stands else None
            if preferred is not None:
                sink.write(_line(preferred))
                kept += 1
    context.progress(1.0)
    flipped = len(found.rows) - int(found.agree.sum())
    metrics = {
        "pairs": float(len(found.rows)),
        "rows": float(kept),
        "flipped": float(flipped),
        "unsure": float(len(found.rows) - flipped - kept),
        # of the answer that stands first, over both orders; 0.5 of a judge without a leaning
        "first_share": float(np.mean([found.first > 0.5, found.second < 0.5])),
        "confidence": float(np.maximum(found.mean, 1 - found.mean).mean()),
        "length_weight": weight,
        **wins_in(votes / "votes.jsonl"),
    }
    return Computed(outputs={"votes": votes, "rows": rows}, metrics=metrics)


def _read(order: JudgeVerdictsOrder, context: Context) -> _Verdicts:
    rows: list[Row] = []
    first: list[Values] = []
    second: list[Values] = []
    for part in range(order.parts):
        these = read_rows(context.inputs[f"part-{part}"])
        verdicts = read_verdicts(context.inputs[f"output-{part}"], len(these))
        rows += these
        first.append(verdicts.first.astype(np.float64))
        second.append(verdicts.second.astype(np.float64))
    return _Verdicts(rows, np.concatenate(first), np.concatenate(second))


def _sure(order: JudgeVerdictsOrder, found: _Verdicts) -> tuple[Values, float]:
    """(probability that A is better, what length weighs in it before it was taken out)."""
    terms = length_terms(*([len(row[side]["text"]) for row in found.rows] for side in ("a", "b")))
    models = [(str(row["a"]["model"]), str(row["b"]["model"])) for row in found.rows]
    weight = fitted_length(found.mean, terms, models)
    return (controlled(found.mean, terms, weight) if order.length_controlled else found.mean), weight


def _vote(order: JudgeVerdictsOrder, row: Row, shown: str, chance: float) -> dict[str, Any]:
    winner = "tie" if chance == 0.5 else "a" if chance > 0.5 else "b"
    return {
        "prompt_id": row["prompt_id"],
        "item": row["item"],
        "model_a": row["a"]["model"],
        "model_b": row["b"]["model"],
        "winner": winner,
        "order": shown,
        "annotator": order.judge,
        "ms": 0,
        "job": order.job_id,
        "source": "judge",
        "confidence": round(max(chance, 1 - chance), 6),
    }


def _item(row: Row) -> dict[str, Any]:
    answers = [(row[side]["model"], row[side]["text"]) for side in ("a", "b")]
    return item_row(row["item"], row["prompt_id"], row["prompt"], answers)


def _preferred(order: JudgeVerdictsOrder, row: Row, chance: float) -> dict[str, Any] | None:
    """None where it is not sure enough, or where an answer without a word would be the better one."""
    better, worse = ("a", "b") if chance > 0.5 else ("b", "a")
    confidence = max(chance, 1 - chance)
    chosen, rejected = row[better]["text"], row[worse]["text"]
    if chance == 0.5 or confidence < order.least_confidence or not chosen.strip():
        return None
    named = {"prompt_id": row["prompt_id"], "confidence": round(confidence, 6), "votes": 2}
    return preference_row(row["prompt"], chosen, rejected, **named)


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
