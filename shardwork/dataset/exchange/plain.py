"""Preference rows as JSONL: what reward and dpo read, and most programs write (TRL's names).

Called by `exchange`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...errors import InvalidInput
from ...problem import Problem
from ..row import Format, Part
from ..rows import read_rows
from ..source import read_lines, source_files
from .comparison import Comparison, Winner, records, refused
from .shape import EXPECTED, Shape, known


def read(path: Path) -> Iterator[Comparison]:
    """Raises InvalidInput "data.*" at the first row that is no preference."""
    for row in read_rows(read_lines(source_files([path], "dpo"))):
        if isinstance(row, Problem):
            raise _other(path, row) or refused(row)
        if row.format is not Format.PREFERENCE:
            raise InvalidInput(
                "exchange.no_preference",
                f"The rows are {row.shape}, not preferences.",
                next_step=EXPECTED[Shape.PREFERENCES],
                file=row.file,
                line=row.line,
            )
        chosen, rejected = row.answered(row.chosen), row.answered(row.rejected)
        yield Comparison(
            prompt_id=row.prompt_id or row.digest().hex(),
            prompt=chosen.prompt,
            a=_text(chosen.completion),
            b=_text(rejected.completion),
            model_a="chosen",
            model_b="rejected",
            winner=Winner.A,
            confidence=row.value,
        )


def _other(path: Path, wrong: Problem) -> InvalidInput | None:
    """Where a file's first row is none because it is another program's, or no row to learn from: whose it is."""
    if wrong.code not in ("data.unknown_format", "data.unknown_key", "data.missing_key"):
        return None
    try:
        first = next(records(path), None)
    except InvalidInput:
        return None  # a table
    if first is None or first.line.number != wrong.line or known(first.value) is None:
        return None
    return first.unlike(Shape.PREFERENCES, "chosen")


def _text(part: Part) -> str:
    return part if isinstance(part, str) else str(part[-1].get("content", ""))


def write(comparisons: Iterable[Comparison]) -> Iterator[str]:
    """Comparisons without a winner give no row."""
    for each in comparisons:
        row = each.preference()
        if row is not None:
            yield json.dumps(row, ensure_ascii=False) + "\n"
