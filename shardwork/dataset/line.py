"""Line: one row as it stands in its file, before anybody knows what it means; and what was named to be read.

Owns the records that the readers (`source`, `containers`) hand to the recogniser (`rows`), and how a problem names its
place. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..problem import Problem

#: a row longer than this is a mistake: no model of today reads four million tokens at once
MAX_LINE_BYTES = 16 << 20

#: told how many bytes were read
Heard = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One entry of a job's `data`: its files, and how they are to be read."""

    files: tuple[Path, ...]
    #: as the person named it; reports go by it
    name: str = ""
    #: our key -> the file's own name for it
    mapping: Mapping[str, str] = field(default_factory=dict[str, str])
    #: read rows as this format and no other (a `Format`); None: recognised
    format: str | None = None
    #: how often each of its rows is read in one pass over the data
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class SourceFile:
    path: Path
    #: how reports name it
    name: str
    #: position of its source among the job's
    source: int = 0
    mapping: Mapping[str, str] = field(default_factory=dict[str, str])
    format: str | None = None
    #: what will read its rows, which decides between formats whose keys a row has; empty: nobody knows yet
    recipe: str = ""
    #: uploaded by a client or made by an earlier stage, and read by the coordinator
    is_staged: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    origin: SourceFile
    #: counted from 1; a text document's first line; a table's row
    number: int
    #: JSON or plain text; empty where the file's own reader gave `value`
    text: str
    #: False: a JSON object; True: plain text
    is_text: bool = False
    #: a table's row by column
    value: dict[str, Any] | None = None
    #: its place in a list of which several rows stand on one line; 0 elsewhere
    item: int = 0

    @property
    def file(self) -> str:
        return self.origin.name


def problem(line: Line, key: str, code: str, sentence: str, fix: str) -> Problem:
    """A problem of one row."""
    if line.item:
        sentence = f"{sentence.removesuffix('.')} (row {line.item:,} of the list)."
    return Problem(file=line.file, line=line.number, key=key, code=code, sentence=sentence, fix=fix)


def file_problem(
    source: SourceFile, code: str, sentence: str, fix: str, *, line: int | None = None, key: str = ""
) -> Problem:
    """A problem of a whole file or column, or of bytes that are no row yet."""
    return Problem(file=source.name, line=line, key=key, code=code, sentence=sentence, fix=fix)


def not_utf8(source: SourceFile, number: int, data: bytes, error: UnicodeDecodeError) -> Problem:
    """`data` begins with line `number`."""
    line = number + data[: error.start].count(b"\n")
    at = error.start - (data.rfind(b"\n", 0, error.start) + 1)
    sentence = f"Byte {at + 1} of the line (0x{data[error.start]:02x}) is not UTF-8."
    fix = "Save the file as UTF-8; if it is Windows or Latin-1 text:  iconv -f WINDOWS-1252 -t UTF-8"
    return file_problem(source, "data.not_utf8", sentence, fix, line=line)


def too_long(source: SourceFile, number: int) -> Problem:
    sentence = f"The line is longer than {MAX_LINE_BYTES >> 20} MiB."
    return file_problem(source, "data.line_too_long", sentence, "Split it into several rows.", line=number)


def wrong_type(line: Line, key: str, wanted: str, value: object) -> Problem:
    sentence = f"{key!r} must be {wanted}, but is {'an' if kind(value) == 'object' else 'a'} {kind(value)}."
    return problem(line, key, "data.wrong_type", sentence, "Correct the value.")


def empty(line: Line, key: str) -> Problem:
    return problem(line, key, "data.empty_value", f"{key!r} is empty.", "Fill it or remove the row.")


def kind(value: object) -> str:
    """What JSON calls it."""
    names = {"dict": "object", "list": "list", "str": "string", "NoneType": "null", "bool": "truth value"}
    return names.get(type(value).__name__, "number")


def paths_or_sources(given: Sequence[Path | Source]) -> list[Source]:
    """A bare path is a source of its own."""
    return [item if isinstance(item, Source) else Source(files=(item,), name=str(item)) for item in given]
