"""Reading: an uploaded folder's rows, a batch at a time, stopping at the first mistake.

Owns how a problem of a row becomes the error of a phase. Called by `prepare` and `alignment`; `data check` reads the
same rows and goes on to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..dataset.count import wrong_format
from ..dataset.lengths import Overlong, refused_split
from ..dataset.row import LEARNS_FROM, Format, Row
from ..dataset.rows import read_rows
from ..dataset.source import SourceFile, read_lines
from ..dataset.tokenise import BATCH_ROWS
from ..errors import InvalidInput
from ..problem import Problem

Progress = Callable[[float], None]


def rows_of(files: Sequence[SourceFile]) -> Iterator[Row]:
    """Raises InvalidInput "data.*" at the first row that is none."""
    for row in read_rows(read_lines(files)):
        if isinstance(row, Problem):
            raise invalid(row)
        yield row


def invalid(problem: Problem) -> InvalidInput:
    return InvalidInput(
        problem.code,
        problem.sentence,
        next_step=problem.fix,
        file=problem.file,
        line=problem.line or "",
        key=problem.key,
    )


def batches(files: Sequence[SourceFile], progress: Progress) -> Iterator[list[Row]]:
    total = sum(source.path.stat().st_size for source in files) or 1
    batch: list[Row] = []
    seen = 0
    for row in rows_of(files):
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            yield batch
            seen += sum(len(item.text) + len(str(item.prompt)) for item in batch)
            progress(min(seen / total, 1.0))
            batch = []
    if batch:
        yield batch


def refuse_unusable(row: Row, recipe: str, how: str) -> None:
    """Raises InvalidInput where the recipe reads no rows of this kind, or `params.overlong` can't be done to them."""
    if row.format not in LEARNS_FROM.get(recipe, frozenset(Format)):
        raise invalid(wrong_format(row, recipe))
    refused = refused_split(row, Overlong(how))
    if refused is not None:
        raise invalid(refused)


def overlong(row: Row, tokens: int, most: int) -> InvalidInput:
    """A row that the job refuses for its length."""
    return InvalidInput(
        "data.overlong",
        f"The row has {tokens:,} tokens, and the job refuses rows of more than {most:,}.",
        next_step="Shorten it, raise params.max_length, or set params.overlong: truncate, split or drop.",
        file=row.file,
        line=row.line,
        key="params.overlong",
    )
