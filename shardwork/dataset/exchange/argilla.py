"""Argilla 2: records as its `dataset.records.to_json` writes and `from_json` reads them.

A record holds the fields `prompt` (text or chat), `response_a` and `response_b`, and answers to the label question
`preference`: each annotator's under `responses`, a stage's verdict under `suggestions`. Other usual names of fields are
read too. Called by `exchange`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from .comparison import Ballot, Comparison, Record, Winner, listed, records
from .shape import Shape

PROMPT, FIRST, SECOND, QUESTION = "prompt", "response_a", "response_b", "preference"
#: names of the two answers that are read, the usual ones first
_ANSWERS = (
    (FIRST, SECOND),
    ("response_1", "response_2"),
    ("response1", "response2"),
    ("answer_a", "answer_b"),
    ("answer1", "answer2"),
)
_PROMPTS = tuple(f"fields.{name}" for name in (PROMPT, "instruction", "question", "chat", "input"))
AGENT = "shardwork"


def read(path: Path) -> Iterator[Comparison]:
    for record in records(path):
        yield _comparison(record)


def _comparison(record: Record) -> Comparison:
    fields = record.part("fields")
    if not isinstance(fields, dict):
        raise record.unlike(Shape.ARGILLA, "fields")
    held = set(cast("dict[str, object]", fields))
    names = next((pair for pair in _ANSWERS if set(pair) <= held), None)
    if names is None:
        told = ", ".join(sorted(held)[:6]) or "none"
        fix = f"Call the two answers {FIRST} and {SECOND}."
        raise record.refuse("fields", f"The record has no two answers; its fields are {told}", fix)
    suggested = record.part(f"suggestions.{QUESTION}.value")
    score = record.part(f"suggestions.{QUESTION}.score")
    return Comparison(
        prompt_id=record.name("metadata.prompt_id", "id"),
        prompt=record.prompt(*_PROMPTS),
        a=record.text(f"fields.{names[0]}"),
        b=record.text(f"fields.{names[1]}"),
        model_a=record.name("metadata.model_a") or names[0],
        model_b=record.name("metadata.model_b") or names[1],
        ballots=tuple(_ballots(record, names)),
        winner=None if suggested is None else _winner(record, f"suggestions.{QUESTION}", suggested, names),
        confidence=float(score) if isinstance(score, (int, float)) and 0.5 <= score <= 1 else 1.0,
    )


def _ballots(record: Record, names: tuple[str, str]) -> Iterator[Ballot]:
    given = record.part(f"responses.{QUESTION}")
    if given is None:
        return
    key = f"responses.{QUESTION}"
    if not isinstance(given, list):
        raise record.refuse(key, "The responses are no list", "Export it with dataset.records.to_json.")
    for at, one in enumerate(cast("list[object]", given)):
        response = cast("dict[str, Any]", one) if isinstance(one, dict) else {}
        if response.get("value") is None:
            raise record.refuse(f"{key}.{at}", "A response has no value", "Remove it, or export the records again.")
        winner = _winner(record, f"{key}.{at}", response["value"], names)
        who = record.whole(f"{key}.{at}.user_id", str(response.get("user_id") or f"annotator-{at + 1}"))
        yield Ballot(annotator=who, winner=winner)


def _winner(record: Record, key: str, value: object, names: tuple[str, str]) -> Winner:
    """A label, or a ranking of the two, best first: names, or as Argilla 1 wrote them {"value", "rank"}."""
    if not isinstance(value, list):
        return record.winner(key, value, *names)
    ranked = cast("list[object]", value)
    if ranked and all(isinstance(one, dict) for one in ranked):
        placed = [(str(one.get("rank")), one.get("value")) for one in cast("list[dict[str, Any]]", ranked)]
        if len(placed) > 1 and len({rank for rank, _ in placed}) == 1:
            return Winner.TIE
        ranked = [name for _, name in sorted(placed, key=lambda pair: pair[0])]
    if len(ranked) != 2 or ranked[0] == ranked[1]:
        raise record.refuse(key, "The ranking is not one of the two answers", "Rank each answer once.")
    return record.winner(key, ranked[0], *names)


def write(comparisons: Iterable[Comparison]) -> Iterator[str]:
    return listed(_record(each) for each in comparisons)


def _record(each: Comparison) -> dict[str, Any]:
    first, second, is_a_first = each.shown
    named = {
        Winner.A: FIRST if is_a_first else SECOND,
        Winner.B: SECOND if is_a_first else FIRST,
        Winner.TIE: "tie",
        Winner.BOTH_BAD: "both_bad",
    }
    models = (each.model_a, each.model_b) if is_a_first else (each.model_b, each.model_a)
    responses = [{"value": named[ballot.winner], "user_id": ballot.annotator} for ballot in each.ballots]
    suggested = (
        {QUESTION: {"value": named[each.winner], "score": each.confidence, "agent": AGENT}} if each.winner else {}
    )
    return {
        "id": each.item,
        "fields": {PROMPT: each.prompt, FIRST: first, SECOND: second},
        "metadata": {"prompt_id": each.prompt_id, "model_a": models[0], "model_b": models[1]},
        "suggestions": suggested,
        "responses": {QUESTION: responses} if responses else {},
        "vectors": {},
    }
