"""Comparison: two answers to one prompt with what was said about them, as every program's files hold it.

Owns the record, its way to preference rows and to votes, and how a foreign object's parts are read and refused. Pure.
Called by the readers and writers of `exchange`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from ...errors import InvalidInput
from ...problem import Problem
from ..line import Line
from ..row import ROLES, Part
from ..rows import bad_json
from ..source import read_lines, source_files
from .shape import EXPECTED, Shape, known


class Winner(StrEnum):
    A = "a"
    B = "b"
    TIE = "tie"
    BOTH_BAD = "both_bad"


#: what other programs' people name an outcome
_OUTCOMES = {
    **dict.fromkeys(("tie", "both", "equal", "same", "draw", "both_good"), Winner.TIE),
    **dict.fromkeys(("both_bad", "neither", "none", "bad"), Winner.BOTH_BAD),
    **dict.fromkeys(("a", "1", "left", "first", "response_1", "response_a", "answer_1", "answer_a"), Winner.A),
    **dict.fromkeys(("b", "2", "right", "second", "response_2", "response_b", "answer_2", "answer_b"), Winner.B),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    annotator: str
    winner: Winner
    #: 0: nobody measured it
    ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    prompt_id: str
    prompt: Part
    a: str
    b: str
    model_a: str = "a"
    model_b: str = "b"
    ballots: tuple[Ballot, ...] = ()
    #: what a stage made of the ballots, where they did not come along
    winner: Winner | None = None
    confidence: float = 1.0

    @property
    def item(self) -> str:
        """Equal for the same two answers to the same prompt."""
        digest = hashlib.blake2b(digest_size=12, person=b"shardwork compar")
        for part in (json.dumps(self.prompt, sort_keys=True), self.a, self.b):
            digest.update(len(part).to_bytes(8, "big") + part.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def preference(self) -> dict[str, Any] | None:
        """A row to learn from: what most ballots say, or the winner that came along; None without one."""
        counts = Counter(ballot.winner for ballot in self.ballots)
        a, b = counts[Winner.A], counts[Winner.B]
        winner, confidence = self.winner, self.confidence
        if self.ballots:
            winner = Winner.A if a > b else Winner.B if b > a else None
            confidence = max(a, b) / max(a + b, 1)
        if winner not in (Winner.A, Winner.B):
            return None
        chosen, rejected = (self.a, self.b) if winner is Winner.A else (self.b, self.a)
        row = {"prompt": self.prompt, "chosen": self._said(chosen), "rejected": self._said(rejected)}
        counted = {"votes": len(self.ballots)} if self.ballots else {}
        return {**row, "prompt_id": self.prompt_id, "confidence": confidence, **counted}

    def votes(self) -> Iterator[dict[str, Any]]:
        """Rows of votes.jsonl. Who saw which answer first is not known of other programs' votes: as the file has it."""
        for ballot in self.ballots:
            yield {
                "prompt_id": self.prompt_id,
                "item": self.item,
                "model_a": self.model_a,
                "model_b": self.model_b,
                "winner": str(ballot.winner),
                "order": "ab",
                "annotator": ballot.annotator,
                "ms": ballot.ms,
                "job": "",
                "source": "people",
            }

    def _said(self, answer: str) -> Part:
        return answer if isinstance(self.prompt, str) else [{"role": "assistant", "content": answer}]

    @property
    def shown(self) -> tuple[str, str, bool]:
        """(first, second, whether A is first): an order that says nothing about which one won."""
        is_first = int(self.item, 16) % 2 == 0
        return (self.a, self.b, True) if is_first else (self.b, self.a, False)


@dataclass(frozen=True, slots=True)
class Record:
    """One object of another program's file, with its place."""

    value: Mapping[str, Any]
    line: Line

    def refuse(self, key: str, sentence: str, fix: str) -> InvalidInput:
        item = f" (record {self.line.item:,})" if self.line.item else ""
        return InvalidInput(
            "exchange.bad_record",
            f"{sentence}{item}.",
            next_step=fix,
            file=self.line.file,
            line=self.line.number,
            key=key,
        )

    def unlike(self, shape: Shape, key: str) -> InvalidInput:
        """The object is none of this program's: whose it is, or what one of the program's looks like."""
        other = known(self.value)
        if other is not None and other.shape is not shape:
            return self.refuse(key, f"These are {other.what}", other.fix)
        told = ", ".join(list(self.value)[:6]) or "none"
        return self.refuse(key, f"The record has no {key!r}; its keys are: {told}", EXPECTED[shape])

    def part(self, place: str) -> Any:
        """The value at a dotted place; None where there is none."""
        found: Any = self.value
        for name in place.split("."):
            found = cast("dict[str, Any]", found).get(name) if isinstance(found, dict) else None
        return found

    def text(self, *places: str) -> str:
        """The first of these places that holds text."""
        for place in places:
            found = self.part(place)
            if isinstance(found, str):
                return self.whole(place, found)
        held = ", ".join(places)
        raise self.refuse(places[0], f"The record has no text at {held}", "Name its fields so, or export it again.")

    def name(self, *places: str) -> str:
        """The first of these places that holds something, as text; empty: none does."""
        place = next((one for one in places if self.part(one)), "")
        return self.whole(place, str(self.part(place))) if place else ""

    def whole(self, place: str, text: str) -> str:
        """The text. Raises InvalidInput for one that no file can hold."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            told = "The text holds half of a character that was cut in two"
            raise self.refuse(place, told, "Remove the escape, or restore the whole character.") from error
        return text

    def prompt(self, *places: str) -> Part:
        """Text, or a list of messages."""
        for place in places:
            found = self.part(place)
            if isinstance(found, list) and found and all(_is_message(one) for one in cast("list[object]", found)):
                said = cast("list[dict[str, Any]]", found)
                return [{"role": one["role"], "content": self.whole(place, one["content"])} for one in said]
        return self.text(*places)

    def winner(self, key: str, value: object, first: str, second: str) -> Winner:
        """What an outcome means, named by an answer's field or by a usual word."""
        if value in (first, second):
            return Winner.A if value == first else Winner.B
        plain = str(value).strip().lower().replace(" ", "_").replace("-", "_")
        if not isinstance(value, (str, int)) or plain not in _OUTCOMES:
            told = f"The outcome {str(value)[:40]!r} is no answer's name"
            raise self.refuse(key, told, f"Use {first}, {second}, tie or both_bad.")
        return _OUTCOMES[plain]


def _is_message(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    message = cast("dict[str, object]", value)
    return message.get("role") in ROLES and isinstance(message.get("content"), str)


#: what is wrong with a file -> what to do about one that another program wrote
_FIXES = {
    "data.no_files": "Name the file that the other program exported, .json or .jsonl.",
    "data.empty_file": "Export it again; nothing is in it.",
    "data.file_type": "Name the .json or .jsonl file that was exported; where this is it, unpack or rename it.",
    "data.unknown_format": EXPECTED[Shape.PREFERENCES],
}


def refused(wrong: Problem) -> InvalidInput:
    fix = _FIXES.get(wrong.code, wrong.fix)
    return InvalidInput(
        wrong.code, wrong.sentence, next_step=fix, file=wrong.file, line=wrong.line or "", key=wrong.key
    )


def records(path: Path) -> Iterator[Record]:
    """Objects of a JSON list or of JSON lines. Raises InvalidInput "data.*" and "exchange.bad_record"."""
    for line in read_lines(source_files([path])):
        if isinstance(line, Problem):
            raise refused(line)
        nothing = Record({}, line)
        if line.is_text or line.value is not None:
            raise nothing.refuse("", "The file is a table or text", "Export it as JSON.")
        try:
            value: object = json.loads(line.text)
        except json.JSONDecodeError as error:
            raise refused(bad_json(line, error)) from error
        except (ValueError, RecursionError) as error:
            raise nothing.refuse("", f"The record is no JSON ({error})", "Export it again.") from error
        if not isinstance(value, dict):
            raise nothing.refuse("", "The record is no object", "Export it as a list of objects.")
        yield Record(cast("dict[str, Any]", value), line)


def listed(objects: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A JSON list, an object a line."""
    begin = "[\n"
    for each in objects:
        yield begin + json.dumps(each, ensure_ascii=False)
        begin = ",\n"
    yield "[]\n" if begin == "[\n" else "\n]\n"
