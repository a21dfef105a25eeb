"""Votes: one judgement of two answers by a person or a judge model, and its row in `votes.jsonl`.

A ranking of k answers is k(k-1)/2 votes, one a pair, that all carry the whole ranking. Owns the record and its JSON;
what votes mean together is for the other modules. Called by whoever writes votes (coordinator, executor) or reads them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import combinations
from typing import Any, cast

from ..errors import InvalidInput


class Winner(StrEnum):
    """In the item's own order, whichever answer was shown first."""

    A = "a"
    B = "b"
    TIE = "tie"
    BOTH_BAD = "both_bad"


class Order(StrEnum):
    """Which answer was shown first, or on the left."""

    AB = "ab"
    BA = "ba"


class Origin(StrEnum):
    PEOPLE = "people"
    JUDGE = "judge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    prompt_id: str
    #: what was judged; votes of one item are about the same answers
    item: str
    #: whose answers; both may be the same model's
    model_a: str
    model_b: str
    winner: Winner
    order: Order
    annotator: str
    #: from showing to answering; 0: not measured
    ms: int = 0
    source: Origin = Origin.PEOPLE
    job: str = ""
    #: positions of the two among the item's answers; other than 0 and 1 only where there are more than two
    answer_a: int = 0
    answer_b: int = 1
    #: of an item with more than two answers: positions, best first
    ranking: tuple[int, ...] = ()
    #: name -> a score for each answer
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    reasons: tuple[str, ...] = ()
    #: that the winner is right, in [0, 1], where the judge said it; people say none
    confidence: float | None = None
    text: str = ""

    @property
    def pair(self) -> tuple[str, int, int]:
        """What votes must share to be about the same two answers."""
        return self.item, self.answer_a, self.answer_b

    @property
    def share_a(self) -> float:
        """Part of a win that goes to A; a tie is half a win for each, and so are two bad answers."""
        return {Winner.A: 1.0, Winner.B: 0.0}.get(self.winner, 0.5)

    @property
    def first_won(self) -> bool | None:
        """Whether the answer that was shown first won; None: neither."""
        if self.winner not in (Winner.A, Winner.B):
            return None
        return (self.winner is Winner.A) == (self.order is Order.AB)

    def to_json(self) -> dict[str, Any]:
        """The row; keys that say nothing are left out."""
        row: dict[str, Any] = {name: getattr(self, name) for name in _ALWAYS}
        row |= {name: getattr(self, name) for name, value in _DEFAULTS.items() if getattr(self, name) != value}
        row |= {name: list(row[name]) for name in ("ranking", "reasons") if name in row}
        return row | ({"scores": {name: list(each) for name, each in self.scores.items()}} if self.scores else {})


_ALWAYS = ("prompt_id", "item", "model_a", "model_b", "winner", "order", "annotator", "ms", "job", "source")
_DEFAULTS: Mapping[str, object] = {
    "answer_a": 0,
    "answer_b": 1,
    "ranking": (),
    "reasons": (),
    "confidence": None,
    "text": "",
}


def ranked(vote: Vote, models: Sequence[str], ranking: Sequence[int], shown: Sequence[int]) -> list[Vote]:
    """The pairs of one ranking. `ranking` and `shown` hold every position of `models` once: best first, and as the
    screen had them; `vote` says all else."""
    places = list(range(len(models)))
    if sorted(ranking) != places or sorted(shown) != places or len(places) < 2:
        raise InvalidInput(
            "votes.bad_ranking",
            "A ranking must name each of the answers once.",
            next_step="Give every position from 0, best first.",
            ranking=list(ranking),
            answers=len(models),
        )
    rank = {place: at for at, place in enumerate(ranking)}
    screen = {place: at for at, place in enumerate(shown)}
    return [
        replace(
            vote,
            model_a=models[a],
            model_b=models[b],
            answer_a=a,
            answer_b=b,
            winner=Winner.A if rank[a] < rank[b] else Winner.B,
            order=Order.AB if screen[a] < screen[b] else Order.BA,
            ranking=tuple(ranking),
        )
        for a, b in combinations(places, 2)
    ]


def one_each(votes: Iterable[Vote]) -> list[Vote]:
    """One vote of each annotator on each pair, sorted. Who judged a pair several times and contradicts themselves has
    no vote on it."""
    said: dict[tuple[str, int, int, str], dict[Winner, Vote]] = {}
    for vote in votes:
        said.setdefault((*vote.pair, vote.annotator), {}).setdefault(vote.winner, vote)
    return [next(iter(found.values())) for _, found in sorted(said.items(), key=lambda one: one[0]) if len(found) == 1]


def write(votes: Iterable[Vote]) -> Iterator[str]:
    """Lines of a JSONL file, each with its end."""
    for vote in votes:
        yield json.dumps(vote.to_json(), ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"


def read(lines: Iterable[str], file: str) -> Iterator[Vote]:
    """Votes of a JSONL file. Raises InvalidInput that names file, line and key of the first row that is none."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _Row(_parsed(line, file, number), file, number).vote()


def _parsed(line: str, file: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line.strip())
    except json.JSONDecodeError as error:
        what = "it ends inside a text" if error.msg.startswith("Unterminated") else error.msg.removesuffix(" at")
        raise _bad(file, number, "", f"The line is no JSON: {what} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise _bad(file, number, "", "The line is no JSON that can be read") from error
    if not isinstance(value, dict):
        raise _bad(file, number, "", "The row is no object")
    return cast("dict[str, Any]", value)


def _bad(file: str, line: int, key: str, what: str) -> InvalidInput:
    return InvalidInput(
        "votes.bad_row",
        f"{what}." if not key else f"{key!r}: {what}.",
        next_step="Correct the row or remove it.",
        file=file,
        line=line,
        key=key,
    )


@dataclass(frozen=True, slots=True)
class _Row:
    value: dict[str, Any]
    file: str
    line: int

    def vote(self) -> Vote:
        return Vote(
            prompt_id=self._name("prompt_id"),
            item=self._name("item"),
            model_a=self._name("model_a"),
            model_b=self._name("model_b"),
            winner=Winner(self._one_of("winner", Winner)),
            order=Order(self._one_of("order", Order)),
            annotator=self._name("annotator"),
            ms=self._whole("ms", 0),
            source=Origin(self._one_of("source", Origin, Origin.PEOPLE)),
            job=self._text("job"),
            answer_a=self._whole("answer_a", 0),
            answer_b=self._whole("answer_b", 1),
            ranking=self._ranking(),
            scores=self._scores(),
            reasons=self._reasons(),
            confidence=self._confidence(),
            text=self._text("text"),
        )

    def _bad(self, key: str, what: str) -> InvalidInput:
        return _bad(self.file, self.line, key, what)

    def _name(self, key: str) -> str:
        """A name; a whole number is one too, because other programs count their items."""
        value = self.value.get(key)
        if value is None:
            raise self._bad(key, "The key is missing")
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str) or not value:
            raise self._bad(key, "It must be text, and not empty")
        return value

    def _text(self, key: str) -> str:
        value = self.value.get(key, "")
        if not isinstance(value, str):
            raise self._bad(key, "It must be text")
        return value

    def _one_of(self, key: str, known: type[StrEnum], default: str | None = None) -> str:
        value = self.value.get(key, default)
        if value is None:
            raise self._bad(key, "The key is missing")
        if not isinstance(value, str) or value not in list(known):
            raise self._bad(key, f"It must be one of {', '.join(known)}, but is {value!r}")
        return value

    def _whole(self, key: str, default: int) -> int:
        value = self.value.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self._bad(key, "It must be a whole number from 0")
        return value

    def _list(self, key: str) -> list[object]:
        value = self.value.get(key, [])
        if not isinstance(value, list):
            raise self._bad(key, "It must be a list")
        return cast("list[object]", value)

    def _ranking(self) -> tuple[int, ...]:
        found = self._list("ranking")
        places = [one for one in found if isinstance(one, int) and not isinstance(one, bool)]
        if len(places) != len(found) or sorted(places) != list(range(len(found))):
            raise self._bad("ranking", "It must hold each position from 0 once")
        return tuple(places)

    def _reasons(self) -> tuple[str, ...]:
        found = self._list("reasons")
        if not all(isinstance(one, str) for one in found):
            raise self._bad("reasons", "It must be a list of text")
        return tuple(cast("list[str]", found))

    def _confidence(self) -> float | None:
        value = self.value.get("confidence")
        if value is None:
            return None
        number = self._number("confidence", value)
        if not 0 <= number <= 1:
            raise self._bad("confidence", "It must lie between 0 and 1")
        return number

    def _scores(self) -> dict[str, tuple[float, ...]]:
        value = self.value.get("scores", {})
        if not isinstance(value, dict):
            raise self._bad("scores", "It must be an object")
        return {name: self._numbers(f"scores.{name}", each) for name, each in cast("dict[str, object]", value).items()}

    def _numbers(self, key: str, value: object) -> tuple[float, ...]:
        """One score for each answer; a bare number is that of a single answer."""
        each = cast("list[object]", value) if isinstance(value, list) else [value]
        return tuple(self._number(key, one) for one in each)

    def _number(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._bad(key, "It must be a number")
        try:
            number = float(value)
        except OverflowError as error:
            raise self._bad(key, "It must be a finite number") from error
        if not math.isfinite(number):
            raise self._bad(key, "It must be a finite number")
        return number
