"""Tables as text: CSV and TSV with a header line, quotes as RFC 4180 has them.

Owns the delimiter (told from the header), the header's mistakes and rows of another width. Called by `source`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import BufferedReader
from typing import Any

from ...problem import Problem
from .. import line as line_rules
from ..line import Heard, Line, SourceFile, file_problem

#: in the order of preference where a header has several
DELIMITERS = (",", "\t", ";", "|")


def delimited_rows(source: SourceFile, file: BufferedReader, heard: Heard) -> Iterator[Line | Problem]:
    """Each row as an object of strings, None for an empty cell. Stops at a header that cannot be used."""
    text = _Lines(source, file, heard)
    first = next(text, "")
    if not first.strip():
        return
    delimiter = "\t" if source.path.suffix.lower() == ".tsv" else _delimiter(first)
    text.again(first)
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    begins = 1
    header: list[str] = []
    try:
        for cells in reader:
            line, begins = begins, reader.line_num + 1
            if not header:
                header = [cell.strip() for cell in cells]
                wrong = _header_problem(source, header, delimiter)
                if wrong is not None:
                    yield wrong
                    return
            elif cells and any(cells):
                yield _row(source, line, header, cells)
    except csv.Error as error:
        yield _broken(source, begins, str(error))
    except _Unreadable as error:
        yield error.problem


def _delimiter(header: str) -> str:
    """The one that the header has most of, outside of quotes."""
    plain = "".join(header.split('"')[::2])
    return max(DELIMITERS, key=lambda mark: (plain.count(mark), -DELIMITERS.index(mark)))


def _header_problem(source: SourceFile, header: list[str], delimiter: str) -> Problem | None:
    if "" in header:
        sentence = f"Column {header.index('') + 1} of the header has no name."
        return file_problem(source, "data.bad_header", sentence, "Name every column, or remove it.", line=1)
    twice = next((name for at, name in enumerate(header) if name in header[:at]), None)
    if twice is not None:
        sentence = f"The header names {twice!r} twice."
        return file_problem(source, "data.bad_header", sentence, "Name every column once.", line=1)
    if any(len(name) > 200 or "\n" in name for name in header):
        shown = "a tab" if delimiter == "\t" else repr(delimiter)
        sentence = f"The first line is no header: a name in it is a text of its own (columns are parted by {shown})."
        return file_problem(source, "data.bad_header", sentence, "Begin the file with a line of names.", line=1)
    return None


def _row(source: SourceFile, line: int, header: list[str], cells: list[str]) -> Line | Problem:
    if len(cells) != len(header):
        sentence = f"The row has {len(cells)} cells, but the header names {len(header)}."
        fix = "Put cells that hold a delimiter or a line break in double quotes."
        return file_problem(source, "data.bad_table", sentence, fix, line=line)
    # an empty cell is a missing value, not a missing column
    value: dict[str, Any] = {name: cell or None for name, cell in zip(header, cells, strict=True)}
    return Line(source, line, "", value=value)


def _broken(source: SourceFile, line: int, message: str) -> Problem:
    if "unexpected end" in message:
        sentence, fix = "A quoted cell that begins here has no end.", 'Close the quotes; write a quote inside as "".'
    elif "field larger" in message:
        sentence, fix = "A cell is longer than 16 MiB.", "Close its quotes, or split the row."
    else:
        sentence, fix = f"This is not valid CSV: {message}.", 'Write a quote inside a quoted cell as "".'
    return file_problem(source, "data.bad_table", sentence, fix, line=line)


class _Unreadable(Exception):
    def __init__(self, problem: Problem) -> None:
        self.problem = problem


class _Lines:
    """Decoded lines for the csv module, each with its end. Raises _Unreadable."""

    def __init__(self, source: SourceFile, file: BufferedReader, heard: Heard) -> None:
        csv.field_size_limit(line_rules.MAX_LINE_BYTES)
        self._source, self._file, self._heard = source, file, heard
        self._number, self._kept = 0, ""

    def again(self, line: str) -> None:
        self._kept = line

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._kept:
            kept, self._kept = self._kept, ""
            return kept
        data = self._file.readline(line_rules.MAX_LINE_BYTES + 1)
        if not data:
            raise StopIteration
        self._number += 1
        self._heard(len(data))
        if len(data) > line_rules.MAX_LINE_BYTES:
            raise _Unreadable(line_rules.too_long(self._source, self._number))
        try:
            text = data.decode("utf-8-sig" if self._number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _Unreadable(line_rules.not_utf8(self._source, self._number, data, error)) from error
        if "\0" in text:
            fix = "Save the table as UTF-8 text."
            raise _Unreadable(
                file_problem(self._source, "data.bad_table", "The line holds a zero byte.", fix, line=self._number)
            )
        return text
