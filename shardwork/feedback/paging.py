"""Paging: the rows of a JSONL file that are wanted, from a byte on, and where to go on; so that no file needs an index.

Takes the file's bytes in pieces, wherever they come from, and says when it has enough. The file is a stranger's: no
line and no page is read without a limit, and a line that is no row is told and passed over. Pure; the dashboard feeds
it from its store, `shardwork job samples` from the coordinator.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from ..artifact import LEAF_BYTES, FileEntry, Manifest
from ..errors import NotFound
from ..problem import Problem
from .samples import Row

#: of one line, and of what one page or search reads
MOST_LINE_BYTES, MOST_READ_BYTES = 4 << 20, 32 << 20
#: of one page, told
MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Found:
    rows: list[Row]
    #: lines that are no rows
    problems: list[Problem]
    #: where to go on; None: nothing follows
    more: int | None


@dataclass(slots=True, kw_only=True)
class Paging:
    """One page of the file `file`, which has `size` bytes.

    `start`: where a line begins. `add` the bytes from `start` to `end`; when it answers False, or there are no more,
    `found` has the page.
    """

    file: str
    size: int
    start: int
    #: at most so many rows
    count: int
    wanted: Callable[[Row], bool]
    _data: bytearray = field(default_factory=bytearray, init=False)
    _rows: list[Row] = field(default_factory=list[Row], init=False)
    _problems: list[Problem] = field(default_factory=list[Problem], init=False)
    #: where the line begins that comes next, and its number; below a line that is too long, its first byte that was
    #: not looked at
    _at: int = field(init=False)
    _line: int = field(default=1, init=False)
    _passing: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._at = self.start

    @property
    def end(self) -> int:
        """The byte before which this page stops reading."""
        return min(self.size, self.start + MOST_READ_BYTES)

    @property
    def is_full(self) -> bool:
        return len(self._rows) == self.count

    def add(self, piece: bytes) -> bool:
        """Whether it wants more."""
        self._data += piece
        begin = 0
        while not self.is_full and (stop := self._data.find(b"\n", begin)) >= 0:
            self._take(bytes(self._data[begin:stop]))
            self._at += stop + 1 - begin
            begin = stop + 1
        del self._data[:begin]
        if not self.is_full and len(self._data) > MOST_LINE_BYTES:
            self._pass_over()
        return not self.is_full

    def found(self) -> Found:
        """The last line of a file need not end."""
        if not self.is_full and self._at + len(self._data) == self.size and self._data:
            self._take(bytes(self._data))
            self._at = self.size
        return Found(self._rows, self._problems, self._at if self.start < self._at < self.size else None)

    def _take(self, line: bytes) -> None:
        if self._passing:
            self._passing = False
        elif len(line) > MOST_LINE_BYTES:
            self._tell("samples.long_line", f"A row is longer than {MOST_LINE_BYTES >> 20} MiB, and is not shown.")
        elif line.strip():
            row = row_of(line)
            if row is None:
                self._tell("samples.broken_line", f"The line at byte {self._at:,} is no JSON object, and is not shown.")
            elif self.wanted(row):
                self._rows.append(row)
        self._line += 1

    def _pass_over(self) -> None:
        """Of a line that is too long nothing is kept, and a page may end inside it."""
        if not self._passing:
            self._tell("samples.long_line", f"A row is longer than {MOST_LINE_BYTES >> 20} MiB, and is not shown.")
        self._passing = True
        self._at += len(self._data)
        self._data.clear()

    def _tell(self, code: str, sentence: str) -> None:
        if len(self._problems) < MOST_PROBLEMS:
            # of a page in the middle of a file nobody knows how many lines come before it
            line = self._line if self.start == 0 else None
            self._problems.append(Problem(file=self.file, line=line, key="", code=code, sentence=sentence, fix=FIX))


FIX = "Download the output to see the whole file."


def file_of_rows(manifest: Manifest) -> FileEntry:
    """The first JSONL file that an output has. Raises NotFound "samples.no_rows"."""
    found = next((one for one in manifest.files if one.path.endswith(".jsonl")), None)
    if found is None:
        raise NotFound(
            "samples.no_rows",
            "This output holds no rows.",
            next_step="Look at another output.",
            files=", ".join(one.path for one in manifest.files[:5]),
        )
    return found


def leaves_of_page(start: int, end: int) -> range:
    """Of the file, the leaves that hold these bytes."""
    return range(start // LEAF_BYTES, -(-end // LEAF_BYTES)) if start < end else range(0)


def row_of(line: bytes) -> Row | None:
    """None: it is no JSON object."""
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("Row", value) if isinstance(value, dict) else None
