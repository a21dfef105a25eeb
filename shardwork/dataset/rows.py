"""Rows: a line of JSON, a table's row or a paragraph as one of the formats that can be trained on.

Owns recognising the format from the row itself, never assuming one; naming the wrong key with its nearest valid one;
and that all rows of a stage are of one kind. What a format asks of its values is `builders`. Called by `check` and
`prepare`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, cast

from ..problem import Problem, nearest
from .formats.builders import build, text_as_prompt
from .line import Line, kind, problem
from .mapping import renamed
from .row import (
    KEEPS_KEYS,
    KEYS,
    LEARNS_FROM,
    OPTIONAL_KEYS,
    READ_KEYS,
    Format,
    Message,
    Row,
    reads,
    usual_keys,
    wanted_keys,
)

__all__ = ["KEYS", "Format", "Message", "Row", "canonical_value", "parse_row", "read_rows"]

#: no schema of a tool nests deeper; the row itself counts as one
MAX_DEPTH = 64
#: an escape that may be half of a character; the whole row is looked at only then
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_TOKEN_KEY = "input_ids"
#: keys whose values may be conversations, with those that must then be too
_CONVERSATIONS = (("messages",), ("conversations",), ("answers",), ("prompt", "completion", "chosen", "rejected"))
#: what a table without types has for a truth value
_TRUTH = {"true": True, "false": False}


def read_rows(lines: Iterable[Line | Problem]) -> Iterator[Row | Problem]:
    """Rows in order: one stage, one format. Rows of another kind than the first, and rows that several formats fit,
    are counted and told once each, at the end, with where they begin."""
    seen = _Seen()
    for line in lines:
        if isinstance(line, Problem):
            yield line
            continue
        value = _value_of(line)
        if isinstance(value, Problem):
            yield value
            continue
        formats = _formats(line, value) if isinstance(value, dict) else (Format.TEXT,)
        if len(formats) > 1:
            seen.unclear(line, formats)
            continue
        row = _row(line, formats, value)
        if isinstance(row, Problem) or seen.fits(row):
            yield row
    yield from seen.problems()


def parse_row(line: Line) -> Row | Problem:
    """The row of one line, or its first problem."""
    return next(iter(read_rows([line])))


@dataclass(slots=True)
class _Seen:
    """How many rows of each kind there were, and the first of each."""

    shapes: dict[str, tuple[Row, int]] = field(default_factory=dict[str, tuple[Row, int]])
    several: dict[tuple[Format, ...], tuple[Line, int]] = field(
        default_factory=dict[tuple[Format, ...], tuple[Line, int]]
    )
    #: of the first row of all, and of the first of each source
    family: tuple[Format, bool, bool] | None = None
    by_source: dict[int, str] = field(default_factory=dict[int, str])
    odd: Row | None = None

    def fits(self, row: Row) -> bool:
        """Whether the row is of its source's kind, and that one of a family with the first source's."""
        shape = row.shape
        first, count = self.shapes.get(shape, (row, 0))
        self.shapes[shape] = (first, count + 1)
        self.family = self.family or row.family
        if row.family == self.family and self.by_source.setdefault(row.source, shape) == shape:
            return True
        self.odd = self.odd or row
        return False

    def unclear(self, line: Line, formats: tuple[Format, ...]) -> None:
        first, count = self.several.get(formats, (line, 0))
        self.several[formats] = (first, count + 1)

    def problems(self) -> Iterator[Problem]:
        for formats, (line, count) in self.several.items():
            names = " and ".join(formats)
            rows = "The row is" if count == 1 else f"{count:,} rows are"
            fix = f"Keep the keys of one format, or name it in the job's data: `format: {formats[0]}`."
            yield problem(
                line,
                KEYS[formats[1]][0],
                "data.ambiguous",
                f"{rows} {names} at once, so what to train on is unclear.",
                fix,
            )
        if self.odd is not None:
            yield self._mixed(self.odd)

    def _mixed(self, odd: Row) -> Problem:
        told = [
            f"{count:,} {shape} (first: {row.file}:{row.line})"
            for shape, (row, count) in sorted(self.shapes.items(), key=lambda item: -item[1][1])
        ]
        return Problem(
            file=odd.file,
            line=odd.line,
            key=KEYS[odd.written or odd.format][0],
            code="data.mixed_formats",
            sentence=f"The rows are of several kinds: {'; '.join(told)}.",
            fix="Bring all rows into one format, or train on one kind a stage.",
        )


# ---- from a line to an object -------------------------------------------------------------------------------------


def canonical_value(line: Line) -> dict[str, Any] | Problem:
    """What of this line is read, under our names: how a converted file is written for the upload."""
    value = _value_of(line)
    if isinstance(value, Problem):
        return value
    if value is None:
        return {"text": line.text}
    formats = _formats(line, value)
    if len(formats) != 1 or formats[0] in KEEPS_KEYS:
        return {key: item for key, item in value.items() if item is not None} if formats else value
    known = KEYS[formats[0]] + OPTIONAL_KEYS[formats[0]]
    return {key: item for key, item in value.items() if key in known and item is not None}


def _value_of(line: Line) -> dict[str, Any] | Problem | None:
    """The row's keys under our names; None for plain text."""
    if line.is_text:
        return None
    value = line.value if line.value is not None else _parse_json(line)
    if isinstance(value, dict) and line.origin.mapping:
        value = renamed(line, value)
    return _unpacked(value) if line.value is not None and isinstance(value, dict) else value


def _unpacked(value: dict[str, Any]) -> dict[str, Any]:
    """A table's row, whose cells may hold conversations as JSON; parts that belong together only where all do."""
    found = value
    for keys in _CONVERSATIONS:
        cells = [value.get(key) for key in keys]
        cells = [cell for cell in cells if cell is not None]
        if cells and all(isinstance(cell, str) and cell.lstrip().startswith("[{") for cell in cells):
            try:
                found = {**found, **{key: json.loads(value[key]) for key in keys if value.get(key) is not None}}
            except (ValueError, RecursionError):
                continue  # refused as the text that it is
    label, score = value.get("label"), value.get("score")
    if isinstance(label, str) and label.lower() in _TRUTH:
        found = {**found, "label": _TRUTH[label.lower()]}
    if isinstance(score, str):
        try:
            found = {**found, "score": float(score)}
        except ValueError:
            pass  # the same
    return found


def _row(line: Line, formats: tuple[Format, ...], value: dict[str, Any] | None) -> Row | Problem:
    if value is None:
        plain = Row(line.file, line.number, Format.TEXT, text=line.text, source=line.origin.source)
        asked = reads(line.origin.recipe, Format.PROMPT)
        return replace(text_as_prompt(plain, {}), source=plain.source) if asked else plain
    if not formats:
        return _unrecognised(line, value)
    row = build(line, formats[0], value)
    if isinstance(row, Row) and line.origin.source:
        object.__setattr__(row, "source", line.origin.source)  # made just now; a copy would double the cost of a row
    return row


def _formats(line: Line, value: dict[str, Any]) -> tuple[Format, ...]:
    """The formats that the row has the keys of and that its recipe reads; the one that the job names, if it does."""
    named, recipe = line.origin.format, line.origin.recipe
    found = _by_keys(tuple(value), tuple(line.origin.mapping), recipe) if named is None else (Format(named),)
    found = tuple(each for each in found if all(value.get(key) is not None for key in KEYS[each]))
    if len(found) < 2:
        return found
    if recipe not in LEARNS_FROM and not isinstance(value.get("label"), bool):
        found = tuple(each for each in found if each is not Format.LABELLED)  # many files label something else
    if Format.PROMPT in found:
        return (Format.PROMPT,)
    return tuple(each for each in found if not any(set(KEYS[each]) < set(KEYS[other]) for other in found))


@lru_cache(maxsize=1024)
def _by_keys(keys: tuple[str, ...], mapped: tuple[str, ...], recipe: str) -> tuple[Format, ...]:
    """Formats whose keys are all there. A mapping that names all keys of a format says which one is meant.

    A prompt alone is a row only to a recipe that asks for prompts, or where no key of another format stands beside it.
    """
    found: list[Format] = [each for each, own in KEYS.items() if set(own) <= set(keys) and own != ("prompt",)]
    alone = recipe not in LEARNS_FROM and set(keys) & set(READ_KEYS) <= {"prompt", *OPTIONAL_KEYS[Format.PROMPT]}
    if "prompt" in keys and (reads(recipe, Format.PROMPT) or alone):
        found.append(Format.PROMPT)
    known = tuple(each for each in found if reads(recipe, each)) or tuple(found)
    meant = tuple(each for each in known if set(KEYS[each]) <= set(mapped))
    return meant or known


def _parse_json(line: Line) -> dict[str, Any] | Problem:
    try:
        value: object = json.loads(line.text, object_pairs_hook=_pairs)
    except _Repeated as error:
        return problem(line, error.key, "data.duplicate_key", f"The key {error.key!r} is given twice.", "Keep one.")
    except json.JSONDecodeError as error:
        return bad_json(line, error)
    except RecursionError:
        return problem(line, "", "data.bad_json", "This JSON nests too deep to be read.", "Mend or remove the row.")
    except ValueError as error:
        return problem(line, "", "data.bad_json", f"This JSON cannot be read: {error}.", "Mend the row.")
    if not isinstance(value, dict):
        sentence = f"A row is a JSON object, but this is a {kind(value)}."
        fix = _json_fix(line.text) if isinstance(value, list) else "Write one JSON object a line."
        return problem(line, "", "data.not_an_object", sentence, fix)
    row = cast("dict[str, Any]", value)
    if line.text.count("[") + line.text.count("{") > MAX_DEPTH and _nests(row, MAX_DEPTH):
        return problem(line, "", "data.bad_json", "This JSON nests too deep to be read.", "Mend or remove the row.")
    return (_broken_text(line, row) if _SURROGATE.search(line.text) else None) or row


def bad_json(line: Line, error: json.JSONDecodeError) -> Problem:
    """A line that is no JSON; also one that ends inside a text, of which Python says that the line end is in it."""
    what, fix = error.msg.removesuffix(" at"), _json_fix(line.text)
    ends_inside = "control character" in what and error.pos >= len(line.text.rstrip("\r\n"))
    if ends_inside or what.startswith("Unterminated"):
        what, fix = "the line ends inside a text", "The row was cut off; write it again, or remove it."
    elif "control character" in what:
        fix = "Write it as an escape, e.g. \\n or \\t."
    return problem(line, "", "data.bad_json", f"This is not valid JSON: {what} at column {error.colno}.", fix)


def _nests(value: object, deeper_than: int) -> bool:
    """Whether lists and objects lie deeper in each other; a bound of our own, as Python's depends on who is calling."""
    level: list[object] = [value]
    for _ in range(deeper_than):
        inner: list[object] = []
        for item in level:
            inner += cast("dict[str, object]", item).values() if isinstance(item, dict) else cast("list[object]", item)
        level = [item for item in inner if isinstance(item, (dict, list))]
        if not level:
            return False
    return True


def _json_fix(text: str) -> str:
    """Whole files in another shape than one object a line are common; their first line gives them away."""
    stripped = text.strip()
    if "\r" in stripped:
        return "The lines end in a carriage return alone; save the file with Unix line ends."
    if stripped == "[" or stripped.startswith("[{"):
        return "The file looks like one JSON list: give it the ending .json, or write one object a line."
    if stripped == "{":
        return "The file looks like indented JSON; write one object a line:  jq -c . FILE > NEW.jsonl"
    return "Write one JSON object a line."


def _broken_text(line: Line, value: dict[str, Any]) -> Problem | None:
    """Half a surrogate pair is no character: no tokenizer reads it and no file holds it."""
    for key, item in value.items():
        try:
            json.dumps([key, item], ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            sentence = f"The text holds {half}, half of a character that was cut in two."
            return problem(line, key, "data.bad_text", sentence, "Remove the escape, or restore the whole character.")
    return None


class _Repeated(Exception):
    def __init__(self, key: str) -> None:
        self.key = key


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) != len(items):
        seen: set[str] = set()
        raise _Repeated(next(key for key, _ in items if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return found


# ---- why no format fits -------------------------------------------------------------------------------------------


def _unrecognised(line: Line, value: dict[str, Any]) -> Problem:
    """Half a format, a mistyped key, tokens instead of text, or nothing we know."""
    named = line.origin.format
    wanted = KEYS[Format(named)] if named is not None else ()
    usual = usual_keys(line.origin.recipe)
    for key in wanted or READ_KEYS:
        if key in value and value[key] is None:
            return problem(line, key, "data.null_value", f"{key!r} is null.", "Fill it or remove the row.")
    if wanted:
        missing = next(key for key in wanted if key not in value)
        return problem(line, missing, "data.missing_key", f"A {named} row has no {missing!r}.", _near(missing, value))
    if _TOKEN_KEY in value:
        fix = "Give the text itself; it is tokenised with the model's own tokenizer."
        return problem(line, _TOKEN_KEY, "data.format_not_built", "This is a row of token ids.", fix)
    for key in value:
        near = nearest(key, usual)
        if near is not None and near not in value:
            return problem(line, key, "data.unknown_key", f"There is no key {key!r}.", f"Did you mean {near!r}?")
    return _half_a_format(line, value) or _nothing_known(line, value)


def _near(missing: str, value: dict[str, Any]) -> str:
    near = nearest(missing, value)
    return (
        f"Rename {near!r} to {missing!r}, or map it." if near else f"Add {missing!r}, or map it to a key of the file."
    )


def _half_a_format(line: Line, value: dict[str, Any]) -> Problem | None:
    halves = (Format.PREFERENCE, Format.LABELLED, Format.SCORED, Format.ANSWERS)
    asked = [each for each in halves if reads(line.origin.recipe, each)]
    for each in (*asked, Format.PREFERENCE, Format.PROMPT_COMPLETION, Format.ALPACA):
        own = KEYS[each] if each not in asked else dict.fromkeys((*KEYS[each], "prompt"))
        have = [key for key in own if key in value]
        if have:
            missing = next(key for key in KEYS[each] if key not in value)
            sentence = f"The row has {have[0]!r} but no {missing!r}."
            return problem(line, missing, "data.missing_key", sentence, f"Add {missing!r}.")
    return None


#: what records of other programs have, that hold judgements
_EXPORTS = {"argilla": {"fields", "responses"}, "label-studio": {"annotations", "data"}}


def _nothing_known(line: Line, value: dict[str, Any]) -> Problem:
    have = ", ".join(sorted(value)[:6]) or "none"
    fix = f"{wanted_keys(line.origin.recipe)}; or map your keys to these."
    if line.value is not None:
        fix = f"A table's first line names its columns. {fix}"
    program = next((name for name, keys in _EXPORTS.items() if keys <= set(value)), None)
    if program is not None:
        fix = f"Make rows of what that program exported:  shardwork feedback import FILE OUT --from {program}"
    key = next(iter(value), "")
    return problem(line, key, "data.unknown_format", f"The row fits no format; its keys are: {have}.", fix)
