"""Label Studio: tasks of its template for human preferences, exported and imported as JSON.

A task's data are `prompt`, `answer1` and `answer2`; each annotation has one result of the tag Pairwise, whose value is
{"selected": "left" | "right"}, or of a tag Choices beside it for ties. A stage's verdict is a prediction. Called by
`exchange`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from .comparison import Ballot, Comparison, Record, Winner, listed, records
from .shape import Shape

PROMPT, FIRST, SECOND, QUESTION = "prompt", "answer1", "answer2", "comparison"
#: a conversation as it was, beside its text, which is what the template shows
MESSAGES = "messages"
_PROMPTS = tuple(f"data.{name}" for name in (MESSAGES, PROMPT, "instruction", "question", "text"))
_ANSWERS = ((FIRST, SECOND), ("answer_1", "answer_2"), ("response1", "response2"), ("text1", "text2"))
_SIDES = {"left": Winner.A, "right": Winner.B}


def read(path: Path) -> Iterator[Comparison]:
    for record in records(path):
        yield _comparison(record)


def _comparison(record: Record) -> Comparison:
    data = record.part("data")
    if not isinstance(data, dict):
        raise record.unlike(Shape.LABEL_STUDIO, "data")
    held = set(cast("dict[str, object]", data))
    names = next((pair for pair in _ANSWERS if set(pair) <= held), None)
    if names is None:
        told = ", ".join(sorted(held)[:6]) or "none"
        fix = f"Call the two answers {FIRST} and {SECOND} in the task's data."
        raise record.refuse("data", f"The task has no two answers; its data are {told}", fix)
    said = list(_said(record, "predictions", names))
    return Comparison(
        prompt_id=record.name("data.prompt_id", "id"),
        prompt=record.prompt(*_PROMPTS),
        a=record.text(f"data.{names[0]}"),
        b=record.text(f"data.{names[1]}"),
        model_a=record.name("data.model_a") or names[0],
        model_b=record.name("data.model_b") or names[1],
        ballots=tuple(ballot for ballot, _ in _said(record, "annotations", names)),
        winner=said[0][0].winner if said else None,
        confidence=said[0][1] if said else 1.0,
    )


def _said(record: Record, key: str, names: tuple[str, str]) -> Iterator[tuple[Ballot, float]]:
    """(what somebody said, how sure a prediction is) of each that was not cancelled and says something."""
    given = record.part(key)
    if given is None:
        return
    if not isinstance(given, list):
        raise record.refuse(key, f"The task's {key} are no list", "Export the project as JSON.")
    for at, one in enumerate(cast("list[object]", given)):
        if not isinstance(one, dict):
            raise record.refuse(f"{key}.{at}", "An annotation is no object", "Export the project as JSON.")
        said = cast("dict[str, Any]", one)
        if said.get("was_cancelled") or not said.get("result"):
            continue
        winner = _winner(record, f"{key}.{at}.result", said["result"], names)
        taken, score = said.get("lead_time"), said.get("score")
        ms = round(taken * 1000) if isinstance(taken, (int, float)) and 0 <= taken < 10**7 else 0
        sure = float(score) if isinstance(score, (int, float)) and 0.5 <= score <= 1 else 1.0
        who = record.whole(f"{key}.{at}.completed_by", _name(said.get("completed_by"), at))
        yield Ballot(annotator=who, winner=winner, ms=ms), sure


def _name(who: object, at: int) -> str:
    """A number, or an object with an address or a number, as projects are set up."""
    if isinstance(who, dict):
        person = cast("dict[str, object]", who)
        who = person.get("email") or person.get("id")
    return str(who) if isinstance(who, (str, int)) and who != "" else f"annotator-{at + 1}"


def _winner(record: Record, key: str, value: object, names: tuple[str, str]) -> Winner:
    """The side that was chosen; a choice such as "tie" wins over it."""
    results = cast("list[object]", value) if isinstance(value, list) else []
    found: Winner | None = None
    for one in results:
        result = cast("dict[str, Any]", one) if isinstance(one, dict) else {}
        held = result.get("value")
        chosen = cast("dict[str, Any]", held) if isinstance(held, dict) else {}
        choices = chosen.get("choices")
        if result.get("type") == "choices" and isinstance(choices, list) and choices:
            return record.winner(key, cast("list[object]", choices)[0], *names)
        if result.get("type") == "pairwise":
            selected = chosen.get("selected")
            found = _SIDES.get(selected) if isinstance(selected, str) else None
            if found is None:
                raise record.refuse(key, "A Pairwise result selects neither left nor right", "Export it again.")
    if found is None:
        fix = "Use the template for human preferences, with a Pairwise tag."
        raise record.refuse(key, "An annotation has no Pairwise result", fix)
    return found


def write(comparisons: Iterable[Comparison]) -> Iterator[str]:
    return listed(_task(each) for each in comparisons)


def _task(each: Comparison) -> dict[str, Any]:
    first, second, is_a_first = each.shown
    models = (each.model_a, each.model_b) if is_a_first else (each.model_b, each.model_a)
    data: dict[str, Any] = {"prompt_id": each.prompt_id, "model_a": models[0], "model_b": models[1]}
    if isinstance(each.prompt, str):
        data[PROMPT] = each.prompt
    else:
        data[PROMPT] = "\n\n".join(f"{message['role']}: {message['content']}" for message in each.prompt)
        data[MESSAGES] = each.prompt
    annotations = [
        {
            "completed_by": ballot.annotator,
            "was_cancelled": False,
            "lead_time": ballot.ms / 1000,
            "result": [_result(ballot.winner, is_a_first)],
        }
        for ballot in each.ballots
    ]
    predicted = (
        [{"model_version": "shardwork", "score": each.confidence, "result": [_result(each.winner, is_a_first)]}]
        if each.winner
        else []
    )
    return {"data": {**data, FIRST: first, SECOND: second}, "annotations": annotations, "predictions": predicted}


def _result(winner: Winner, is_a_first: bool) -> dict[str, Any]:
    if winner not in (Winner.A, Winner.B):
        outcome = {"choices": [str(winner)]}
        return {"from_name": "outcome", "to_name": PROMPT, "type": "choices", "value": outcome}
    side = "left" if (winner is Winner.A) == is_a_first else "right"
    chosen = {"selected": side}
    return {"from_name": QUESTION, "to_name": f"{FIRST},{SECOND}", "type": "pairwise", "value": chosen}
