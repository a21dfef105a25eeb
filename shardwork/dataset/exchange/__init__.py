"""Exchange: judged pairs from and to other programs: preference rows, Argilla's records, Label Studio's tasks.

    comparison   what all of them hold        plain        preference rows as JSONL
    argilla      records of Argilla 2         labelstudio  tasks with Pairwise annotations
    shape        whose file an object is of

A file that comes in is read a row at a time within the bounds of `source`; what can't be read names file and row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from . import argilla, labelstudio, plain
from .comparison import Ballot, Comparison, Winner, records
from .shape import Shape, known

__all__ = ["Ballot", "Comparison", "Shape", "Winner", "known", "read", "records", "write"]


def read(path: Path, shape: Shape) -> Iterator[Comparison]:
    """Raises InvalidInput "data.*" and "exchange.*" at the first row that is none."""
    match shape:
        case Shape.PREFERENCES:
            return plain.read(path)
        case Shape.ARGILLA:
            return argilla.read(path)
        case Shape.LABEL_STUDIO:
            return labelstudio.read(path)


def write(comparisons: Iterable[Comparison], shape: Shape) -> Iterator[str]:
    """Pieces of a file that the other program imports."""
    match shape:
        case Shape.PREFERENCES:
            return plain.write(comparisons)
        case Shape.ARGILLA:
            return argilla.write(comparisons)
        case Shape.LABEL_STUDIO:
            return labelstudio.write(comparisons)
