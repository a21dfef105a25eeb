"""Answers: what somebody may answer to an item, from the order in which they saw it to the item's own, and back.

Pure. Everything that a browser sends is bounded here; nothing else of it is kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from shardwork.errors import InvalidInput
from shardwork.recipes.alignment.people import PeopleParams

WINNERS = ("a", "b", "tie", "both_bad")
VERDICTS = ("keep", "discard", "edit")
MOST_COMMENT, MOST_EDIT = 2_000, 40_000
MOST_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """In the item's own order."""

    #: {"winner"} | {"ranking"} | {"scores"} | {"verdict", "text"?}
    value: dict[str, Any]
    scores: dict[str, Any]
    reasons: list[str]
    comment: str

    def to_json(self) -> str:
        beside = {"scores": self.scores, "reasons": self.reasons, "comment": self.comment}
        kept = {name: value for name, value in beside.items() if value}
        return json.dumps({"answer": self.value, **kept}, sort_keys=True)


def read(body: dict[str, Any], params: PeopleParams, shown: Sequence[int]) -> Answer:
    """What the call says, checked. Raises InvalidInput "people.bad_answer"."""
    given = body.get("answer")
    if not isinstance(given, dict):
        raise _bad("answer", "an object")
    answer = cast("dict[str, Any]", given)
    value: dict[str, Any]
    match params.kind:
        case "compare":
            value = {"winner": _winner(_only(answer, "winner"), shown)}
        case "rank":
            value = {"ranking": _ranking(_only(answer, "ranking"), shown)}
        case "score":
            value = {"scores": _scores(_only(answer, "scores"), params, shown, whole=True)}
        case "review":
            value = _review(answer)
    scores = {} if params.kind == "score" else _scores(body.get("scores") or {}, params, shown, whole=False)
    reasons: object = body.get("reasons") or []
    tags = cast("list[object]", reasons) if isinstance(reasons, list) else [None]
    if not set(map(str, tags)) <= set(params.reasons):
        raise _bad("reasons", f"a list of {', '.join(params.reasons) or 'nothing: this task has none'}")
    comment = body.get("comment") or ""
    if not isinstance(comment, str) or len(comment) > MOST_COMMENT:
        raise _bad("comment", f"a text of at most {MOST_COMMENT:,} letters")
    return Answer(value=value, scores=scores, reasons=sorted(set(map(str, tags))), comment=comment)


def milliseconds(body: dict[str, Any]) -> int:
    """As the browser measured; nothing rests on it."""
    ms = body.get("ms", 0)
    return int(min(max(ms, 0), MOST_MS)) if isinstance(ms, int | float) and ms == ms else 0


def as_shown(answer_json: str, shown: Sequence[int]) -> dict[str, Any]:
    """The answer in the order in which its person saw the item."""
    value: dict[str, Any] = json.loads(answer_json)["answer"]
    place = {position: at for at, position in enumerate(shown)}
    if value.get("winner") in ("a", "b"):
        return {"winner": "ab"[place["ab".index(value["winner"])]]}
    if "ranking" in value:
        return {"ranking": [place[one] for one in value["ranking"]]}
    return value


def _only(answer: dict[str, Any], name: str) -> Any:
    if set(answer) != {name}:
        raise _bad("answer", f"an object with {name!r} and nothing else")
    return answer[name]


def _winner(winner: object, shown: Sequence[int]) -> str:
    if winner not in WINNERS:
        raise _bad("answer.winner", ", ".join(WINNERS))
    return "ab"[shown["ab".index(str(winner))]] if winner in ("a", "b") else str(winner)


def _ranking(ranking: object, shown: Sequence[int]) -> list[int]:
    places = cast("list[object]", ranking) if isinstance(ranking, list) else []
    if not all(type(one) is int for one in places) or sorted(cast("list[int]", places)) != list(range(len(shown))):
        raise _bad("answer.ranking", f"each of the positions 0 to {len(shown) - 1} once, the best first")
    return [shown[one] for one in cast("list[int]", places)]


def _scores(scores: object, params: PeopleParams, shown: Sequence[int], *, whole: bool) -> dict[str, Any]:
    """A number from 1 to 5 for each name, or a list of them, one for each answer as shown."""
    given = cast("dict[str, Any]", scores) if isinstance(scores, dict) else {"": None}
    names = set(params.scores)
    if not set(given) <= names or (whole and set(given) != names):
        raise _bad("scores", f"an object with {', '.join(params.scores) or 'nothing'}")
    return {name: _score(value, shown) for name, value in given.items()}


def _score(value: object, shown: Sequence[int]) -> int | list[int]:
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    if not all(type(one) is int and 1 <= one <= 5 for one in values):
        raise _bad("scores", "whole numbers from 1 to 5")
    whole = cast("list[int]", values)
    if not isinstance(value, list):
        return whole[0]
    if len(whole) != len(shown):
        raise _bad("scores", "one number for each answer")
    return [whole[shown.index(position)] for position in range(len(shown))]


def _review(answer: dict[str, Any]) -> dict[str, Any]:
    verdict, text = answer.get("verdict"), answer.get("text", "")
    if verdict not in VERDICTS or not set(answer) <= {"verdict", "text"}:
        raise _bad("answer.verdict", ", ".join(VERDICTS))
    if verdict != "edit":
        return {"verdict": verdict}
    if not isinstance(text, str) or not text.strip() or len(text) > MOST_EDIT:
        raise _bad("answer.text", f"the whole edited text, at most {MOST_EDIT:,} letters")
    return {"verdict": "edit", "text": text}


def _bad(field: str, wanted: str) -> InvalidInput:
    return InvalidInput(
        "people.bad_answer",
        f"The answer can't be read: {field} is {wanted}.",
        next_step="Answer again; reload the page when this stays.",
        field=field,
    )
