"""Judgements: phase `join` of people: every accepted vote as a row, and what they say together of each item.

Owns how votes of each kind become rows to learn from, by the rule that the job chose; the rules are
`shardwork.feedback`'s, so that a stage of consensus after this one says the same. Run by the executor, without numpy.
Called by the recipe people.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ....feedback.consensus import Rule, Verdict, consensus
from ....feedback.votes import Order, Vote, Winner, ranked, read
from ...base import Computed, Context
from ..guards.wins import win_metrics
from ..people_orders import VotesOrder
from .items import item_row, write_items
from .preference import preference_row

#: a row that is less likely right than wrong teaches nothing
LEAST_CONFIDENCE = 0.5
VOTES = "votes.jsonl"

#: what is said of the rest is said where it is used
_BLANK = Vote(prompt_id="", item="", model_a="", model_b="", winner=Winner.A, order=Order.AB, annotator="")

Item = dict[str, Any]
#: votes as the store wrote them
Cast = Sequence[dict[str, Any]]


def join(order: VotesOrder, context: Context) -> Computed:
    items: list[Item] = _read(context.inputs["items"] / "items.jsonl")
    on: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    votes = _read(context.inputs["votes"] / VOTES)
    for vote in votes:
        on[vote["item"]].append(vote)
    folder, rows = context.output("votes"), context.output("rows")
    _write(folder / VOTES, _rows_of(items, votes))
    write_items(folder, (_item_row(number, items[number]) for number in sorted(on)))
    metrics = {"votes": float(len(votes))}
    found: Iterable[dict[str, Any]]
    if order.kind in ("compare", "rank"):
        with (folder / VOTES).open(encoding="utf-8") as lines:
            told = list(read(lines, VOTES))
        found = _preferences(order, items, told, {number: len(cast) for number, cast in on.items()})
        metrics |= win_metrics(told)
    elif order.kind == "review":
        found = _reviewed(Rule(order.consensus), items, on)
    else:
        found = (_scored(order.scores, items[number], on[number]) for number in sorted(on))
    metrics["rows"] = float(_write(rows / "preferences.jsonl", found))
    return Computed(outputs={"votes": folder, "rows": rows}, metrics=metrics)


# ---- votes --------------------------------------------------------------------------------------------------------


def _rows_of(items: Sequence[Item], votes: Cast) -> Iterator[dict[str, Any]]:
    for vote in votes:
        number: int = vote["item"]
        yield from _votes(items[number], vote)


def _votes(item: Item, vote: dict[str, Any]) -> list[dict[str, Any]]:
    """One row, or of a ranking one for each pair."""
    models = _models(item)
    row = {
        "prompt_id": item["prompt_id"],
        "item": vote["item"],
        "model_a": models[0],
        "model_b": models[-1] if len(models) > 1 else "",
        "order": "ab" if vote["shown"] == sorted(vote["shown"]) else "ba",
        "annotator": vote["annotator"],
        "ms": vote["ms"],
        "job": vote["job"],
        "source": "people",
        **vote["answer"],
    }
    row |= {name: vote[name] for name in ("scores", "reasons", "comment") if vote.get(name)}
    ranking = vote["answer"].get("ranking")
    return [row] if ranking is None else [row | pair for pair in _ranked_pairs(models, ranking, vote["shown"])]


def _ranked_pairs(models: list[str], ranking: list[int], shown: list[int]) -> list[dict[str, Any]]:
    """What of a vote's row is each pair's own."""
    own = ("model_a", "model_b", "answer_a", "answer_b", "winner", "order")
    return [{name: getattr(one, name) for name in own} for one in ranked(_BLANK, models, ranking, shown)]


def _models(item: Item) -> list[str]:
    """Answers of which nobody said whose they are go by their place."""
    return [model or f"answer {place}" for place, model in enumerate(item["models"], 1)]


def _item_row(number: int, item: Item) -> dict[str, Any]:
    return item_row(number, item["prompt_id"], _asked(item), zip(_models(item), item["answers"], strict=True))


def _asked(item: Item) -> Any:
    return item.get("messages", item["prompt"])


# ---- rows to learn from -------------------------------------------------------------------------------------------


def _preferences(
    order: VotesOrder, items: Sequence[Item], votes: Iterable[Vote], voters: Mapping[int, int]
) -> Iterator[dict[str, Any]]:
    """A row for each item of which the rule prefers an answer; of a ranking, its best one against its worst."""
    verdicts: defaultdict[int, list[Verdict]] = defaultdict(list)
    for verdict in consensus(votes, Rule(order.consensus)):
        verdicts[int(verdict.item)].append(verdict)
    for number in sorted(verdicts):
        found = _outermost(verdicts[number])
        if found is None or not found.is_preference or found.confidence < LEAST_CONFIDENCE:
            continue
        item = items[number]
        chosen, rejected = (item["answers"][place] for place in found.positions)
        # a better answer that says nothing teaches nothing, nor do the same words
        if chosen.strip() and chosen.strip() != rejected.strip():
            named = {"prompt_id": item["prompt_id"], "votes": voters[number], "confidence": round(found.confidence, 6)}
            yield preference_row(_asked(item), chosen, rejected, **named)


def _outermost(verdicts: Sequence[Verdict]) -> Verdict | None:
    """Of the answer that wins most against the one that wins least; None where all do alike."""
    wins: defaultdict[int, float] = defaultdict(float)
    for one in verdicts:
        wins[one.answer_a] += one.share_a
        wins[one.answer_b] += 1 - one.share_a
    places = sorted(wins, key=lambda place: wins[place])
    worst, best = places[0], places[-1]
    return next(
        (one for one in verdicts if {one.answer_a, one.answer_b} == {worst, best} and wins[worst] < wins[best]), None
    )


#: what is said of a row is one of several answers, as of a pair: the rules count them, whatever they are called
_AS_WINNER = {"keep": Winner.A, "discard": Winner.B, "edit": Winner.TIE}


def _reviewed(rule: Rule, items: Sequence[Item], on: Mapping[int, Cast]) -> Iterator[dict[str, Any]]:
    """Rows that the rule keeps, mended where it says so; none where it finds no answer."""
    votes = [_review(number, vote) for number in on for vote in on[number]]
    for found in sorted(consensus(votes, rule), key=lambda one: int(one.item)):
        number = int(found.item)
        # of two equally likely answers a rule says TIE
        is_decided = found.confidence > (0.5 if found.winner is Winner.TIE else 0)
        if found.winner in (None, Winner.B) or not is_decided:
            continue
        item, cast = items[number], on[number]
        edits = [vote["answer"]["text"] for vote in cast if vote["answer"]["verdict"] == "edit"]
        text = edits[0] if found.winner is Winner.TIE else item["answers"][0]
        yield _row(item, cast) | {"completion": text, "confidence": round(found.confidence, 6)}


def _review(number: int, vote: dict[str, Any]) -> Vote:
    winner = _AS_WINNER[vote["answer"]["verdict"]]
    return replace(_BLANK, item=str(number), annotator=vote["annotator"], winner=winner)


def _scored(scales: Sequence[str], item: Item, cast: Cast) -> dict[str, Any]:
    """Whatever the rule: points have a mean."""
    means = {name: sum(vote["answer"]["scores"][name] for vote in cast) / len(cast) for name in scales}
    return _row(item, cast) | {"completion": item["answers"][0], "scores": means}


def _row(item: Item, cast: Cast) -> dict[str, Any]:
    return {"prompt": _asked(item), "prompt_id": item["prompt_id"], "votes": len(cast)}


# ---- files --------------------------------------------------------------------------------------------------------


def _read(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as sink:
        for row in rows:
            sink.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count
