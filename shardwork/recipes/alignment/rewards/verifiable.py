"""Verifiable rewards: what code can say about an answer, each a number from 0 to 1.

Owns the closed set of rewards and their settings. None runs anything that a row, an answer or a job wrote: patterns are
our own, in linear time, and JSON is parsed within bounds. Pure; without numpy, because plans name them too. Called by
`rewards` (its package).
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from .pattern import Pattern
from .schema import Schema

#: of an answer; the end of a longer one is graded, where results stand
MOST_GRADED = 200_000
#: of an answer that is read as JSON
MOST_JSON = 65_536
#: values in each other
MOST_JSON_DEPTH = 64
#: no part of it can match in two ways, so finding all takes linear time
_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
Tag = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,39}$")]
Key = Annotated[str, Field(min_length=1, max_length=128)]


@dataclass(frozen=True, slots=True)
class Graded:
    """One answer with the row of its prompt."""

    row: Mapping[str, Any]
    text: str
    #: its end token aside
    tokens: int


class Reward(BaseModel):
    """One kind of reward with its settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))
    name: ClassVar[str]

    def needs(self) -> tuple[str, ...]:
        """Keys that every row must have."""
        return ()

    def grade(self, given: Graded) -> float:
        raise NotImplementedError


class Compared(Reward):
    """What compares with the row's own solution."""

    #: the row's key that holds the solution: text, a number, or a list of what is right as well
    key: Key = "answer"
    #: only what stands between the last <tag> and </tag> counts; without it the answer is wrong
    within: Tag | None = None

    def needs(self) -> tuple[str, ...]:
        return (self.key,)

    def part(self, text: str) -> str | None:
        return text if self.within is None else last_between(text, self.within)

    def solutions(self, given: Graded) -> list[object]:
        found = given.row.get(self.key)
        return cast("list[object]", found) if isinstance(found, list) else [found]


class Exact(Compared):
    """The same text, but for spaces around it and how its letters are composed."""

    name: ClassVar[str] = "exact"
    ignore_case: bool = False
    #: runs of spaces and line ends count as one space
    ignore_spaces: bool = True

    def grade(self, given: Graded) -> float:
        part = self.part(given.text)
        wanted = (one for one in self.solutions(given) if isinstance(one, (str, int, float)))
        return float(part is not None and self._plain(part) in {self._plain(_written(one)) for one in wanted})

    def _plain(self, text: str) -> str:
        text = unicodedata.normalize("NFC", text).strip()
        text = " ".join(text.split()) if self.ignore_spaces else text
        return text.casefold() if self.ignore_case else text


class Numeric(Compared):
    """The last number of the answer is the solution's, within a tolerance."""

    name: ClassVar[str] = "numeric"
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-6
    #: of the solution
    relative: Annotated[float, Field(ge=0, le=1)] = 1e-6

    def grade(self, given: Graded) -> float:
        part = self.part(given.text)
        value = None if part is None else last_number(part)
        if value is None:
            return 0.0
        wanted = (_number(one) for one in self.solutions(given))
        return float(any(one is not None and self._near(value, one) for one in wanted))

    def _near(self, value: float, wanted: float) -> bool:
        return abs(value - wanted) <= max(self.tolerance, self.relative * abs(wanted))


class Regex(Reward):
    """The answer matches a pattern (`pattern`: a subset of Python's, in linear time)."""

    name: ClassVar[str] = "regex"
    pattern: Annotated[str, Field(min_length=1, max_length=1000)]
    #: the whole answer, spaces around it aside, or a part of it
    whole: bool = False
    ignore_case: bool = False

    def model_post_init(self, _context: object) -> None:
        self.compiled  # noqa: B018  # refused when the job is planned

    @cached_property
    def compiled(self) -> Pattern:
        return Pattern(self.pattern, self.ignore_case)

    def grade(self, given: Graded) -> float:
        text = given.text.strip() if self.whole else given.text
        return float(self.compiled.matches(text, whole=self.whole))


class JsonSchema(Reward):
    """The answer is JSON that fits a schema (`schema`: our own subset of JSON Schema)."""

    name: ClassVar[str] = "json_schema"
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    #: as of `Compared`; a fence of three backticks is taken off either way
    within: Tag | None = None

    def model_post_init(self, _context: object) -> None:
        self.compiled  # noqa: B018

    @cached_property
    def compiled(self) -> Schema:
        return Schema.of(self.schema_)

    def grade(self, given: Graded) -> float:
        part = given.text if self.within is None else last_between(given.text, self.within)
        if part is None or len(part) > MOST_JSON or part.count("[") + part.count("{") > MOST_JSON:
            return 0.0
        try:
            value: object = json.loads(_unfenced(part), parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return 0.0
        return float(not _deeper(value, MOST_JSON_DEPTH) and self.compiled.fits(value))


class Length(Reward):
    """1 at the target, falling in a line to 0 at none and at twice as much; or 1 up to `most`, 0 from twice that on."""

    name: ClassVar[str] = "length"
    unit: Literal["tokens", "words", "letters"] = "tokens"
    target: Annotated[int | None, Field(ge=1, le=10**6)] = None
    most: Annotated[int | None, Field(ge=1, le=10**6)] = None

    def model_post_init(self, _context: object) -> None:
        if (self.target is None) == (self.most is None):
            raise ValueError("name either target or most")

    def grade(self, given: Graded) -> float:
        match self.unit:
            case "tokens":
                size = given.tokens
            case "words":
                size = len(given.text.split())
            case "letters":
                size = len(given.text)
        if self.target is not None:
            return max(0.0, 1 - abs(size - self.target) / self.target)
        most = self.most or 1
        return min(1.0, max(0.0, 2 - size / most))


class Format(Reward):
    """The answer is fenced by these tags, each once, in this order: the share that are; half with text outside."""

    name: ClassVar[str] = "format"
    tags: Annotated[tuple[Tag, ...], Field(min_length=1, max_length=10)] = ("think", "answer")

    def grade(self, given: Graded) -> float:
        text, at, good, outside = given.text, 0, 0, ""
        for tag in self.tags:
            opened, closed = f"<{tag}>", f"</{tag}>"
            begin = text.find(opened, at)
            end = text.find(closed, begin + len(opened)) if begin >= 0 else -1
            if end < 0 or text.count(opened) != 1 or text.count(closed) != 1:
                continue
            good += bool(text[begin + len(opened) : end].strip())
            outside += text[at:begin]
            at = end + len(closed)
        share = good / len(self.tags)
        return share / 2 if (outside + text[at:]).strip() else share


#: every reward by its name in params.rewards
REWARDS: Mapping[str, type[Reward]] = {kind.name: kind for kind in (Exact, Numeric, Regex, JsonSchema, Length, Format)}


# ---- parts of answers -----------------------------------------------------------------------------------------------


def last_between(text: str, tag: str) -> str | None:
    """What stands between the last complete <tag> and </tag>."""
    end = text.rfind(f"</{tag}>")
    begin = text.rfind(f"<{tag}>", 0, end) if end >= 0 else -1
    return text[begin + len(tag) + 2 : end] if begin >= 0 else None


def last_number(text: str) -> float | None:
    """The last number as people write it: 1,000 is a thousand."""
    last = None
    for found in _NUMBER.finditer(text):
        last = found[0]
    return None if last is None else _finite(last.replace(",", ""))


def _number(value: object) -> float | None:
    if isinstance(value, str):
        return last_number(value[-MOST_GRADED:])
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) else _finite(value)


def _finite(value: str | float) -> float | None:
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _written(value: object) -> str:
    """A solution that is a number as an answer would write it."""
    return value if isinstance(value, str) else json.dumps(value)


def _unfenced(text: str) -> str:
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and len(text) > 6:
        return text[3:-3].removeprefix("json").removeprefix("JSON")
    return text


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _deeper(value: object, most: int) -> bool:
    level: list[object] = [value]
    for _ in range(most):
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return False
    return True


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(cast("dict[str, object]", value).values())
    return cast("list[object]", value) if isinstance(value, list) else []
