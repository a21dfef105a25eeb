"""Values of rows that somebody judged: labels, scores, several answers, and what a prompt is called.

Owns what each must be, and what a stage may ask of rows beyond their format. Called by `builders`, `dataset.count` and
by what prepares rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from ...problem import Problem
from ..line import Line, problem, wrong_type
from ..row import Answer, Format, Row

#: of one row: what a person ranks on one screen, and what a judge reads, is far less
MOST_ANSWERS = 256
#: of a name that a file gives to a prompt
MOST_ID_LETTERS = 128
#: a score is kept as a 32-bit float
MOST_SCORE = 1e30


#: format -> what PrepareOrder.rows_are calls it
KINDS = {Format.PREFERENCE: "pairs", Format.LABELLED: "labelled", Format.SCORED: "scored"}


def wrong_kind(row: Row, rows_are: str) -> Problem | None:
    """Rows of another kind than the stage's objective learns from. Of a pair, labelled answers can be made."""
    given = KINDS.get(row.format, "")
    if given in ("", rows_are) or rows_are not in KINDS.values() or (rows_are, given) == ("labelled", "pairs"):
        return None
    wanted = next(kind for kind, name in KINDS.items() if name == rows_are)
    sentence = f"This stage learns from {wanted} rows, but the rows are {row.shape}."
    fix = "Give rows of that kind, or set params.loss (dpo) or params.learns_from (reward) for these."
    return Problem(file=row.file, line=row.line, key="data", code="data.wrong_format", sentence=sentence, fix=fix)


def missing_key(row: Row, keys: Sequence[str]) -> Problem | None:
    """A prompt's row without what its answers are graded by."""
    missing = next((key for key in keys if key not in row.extra), None)
    if missing is None:
        return None
    sentence = f"The row has no {missing!r}, which a reward compares answers with."
    fix = f"Add {missing!r} to every row, or name another key in params.reward_settings."
    return Problem(file=row.file, line=row.line, key=missing, code="data.missing_key", sentence=sentence, fix=fix)


def truth(line: Line, key: str, value: object) -> bool | Problem:
    if isinstance(value, bool):
        return value
    told = wrong_type(line, key, "true or false", value)
    return problem(line, key, told.code, told.sentence, "Write true for a good answer and false for a bad one.")


def number(line: Line, key: str, value: object) -> float | Problem:
    """A finite number; JSON of other programs holds NaN and Infinity as well."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return wrong_type(line, key, "a number", value)
    if not abs(value) <= MOST_SCORE or not math.isfinite(value):  # an int of a thousand digits is no float
        return problem(line, key, "data.bad_value", f"{key!r} is no finite number.", "Correct the value.")
    return float(value)


def answers(line: Line, key: str, value: object, *, least: int) -> tuple[Answer, ...] | Problem:
    """{"model", "text"} each, or bare strings, which are told apart by their place.

    That some are equal or empty is a model's doing and no mistake of the file: such pairs are skipped later.
    """
    if not isinstance(value, list):
        return wrong_type(line, key, "a list of answers", value)
    items = cast("list[object]", value)
    if not least <= len(items) <= MOST_ANSWERS:
        some = f"{len(items):,} answer{'' if len(items) == 1 else 's'}"
        sentence = f"The row has {some}; {least} to {MOST_ANSWERS} can be compared."
        fix = "Generate more answers of each prompt (params.answers), or remove the row."
        return problem(line, key, "data.few_answers", sentence, fix)
    found: list[Answer] = []
    for at, item in enumerate(items):
        one = _answer(line, f"{key}.{at}", at, item)
        if isinstance(one, Problem):
            return one
        found.append(one)
    return tuple(found)


def _answer(line: Line, key: str, at: int, value: object) -> Answer | Problem:
    if isinstance(value, str):
        return Answer(f"answer-{at + 1}", value)
    if not isinstance(value, dict):
        return wrong_type(line, key, "a string, or an object with model and text", value)
    given = cast("dict[str, Any]", value)
    text, model = given.get("text"), given.get("model", f"answer-{at + 1}")
    if text is None:
        return problem(line, f"{key}.text", "data.missing_key", "An answer has no 'text'.", "Add 'text'.")
    if not isinstance(text, str):
        return wrong_type(line, f"{key}.text", "a string", text)
    if not isinstance(model, str) or not model.strip() or len(model) > MOST_ID_LETTERS:
        return wrong_type(line, f"{key}.model", f"a name of at most {MOST_ID_LETTERS} letters", model)
    return Answer(model, text)


def row_id(value: dict[str, Any]) -> str:
    """What the file calls the prompt; empty where that is nothing to tell prompts apart by."""
    given = value.get("prompt_id")
    return given if isinstance(given, str) and len(given) <= MOST_ID_LETTERS and given.isprintable() else ""
