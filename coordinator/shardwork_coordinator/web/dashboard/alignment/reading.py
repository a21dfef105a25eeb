"""Reading: lines of a JSONL file and small JSON files out of an artifact, a bounded piece at a time. Blocking.

What stages made holds strangers' text: no line, no file and no search is read without a limit. Called by `samples` and
`reports`, in threads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from shardwork.artifact import LEAF_BYTES
from shardwork.errors import Corrupt, NotFound

from ....artifacts import ArtifactStore

#: of one line, and of what one page or search reads
MOST_LINE_BYTES, MOST_READ_BYTES = 4 << 20, 32 << 20
#: of a file that is read whole
MOST_WHOLE_BYTES = 4 << 20

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    row: Row
    #: where the next one begins
    end: int


@dataclass(frozen=True, slots=True)
class Found:
    rows: list[Row]
    #: where to go on; None: nothing follows
    more: int | None


class Lines:
    """One JSONL file of an artifact: the first that it has."""

    def __init__(self, contents: ArtifactStore, artifact: str) -> None:
        """Raises NotFound "samples.no_rows"."""
        self._contents, self._artifact = contents, artifact
        manifest = contents.manifest(artifact)
        entry = next((one for one in manifest.files if one.path.endswith(".jsonl")), None)
        if entry is None:
            raise NotFound("samples.no_rows", "This output holds no rows.", next_step="Look at another output.")
        self.path, self.size = entry.path, entry.size
        self._leaf = manifest.leaf_span(entry.path)[0]

    def from_byte(self, start: int) -> Iterator[Line]:
        """Rows from there on, as far as one page may read. `start`: where a line begins; one that is not a row's is
        passed over."""
        data, at = bytearray(), start
        end = min(self.size, start + MOST_READ_BYTES)
        for piece in self._pieces(start, end):
            data += piece
            begin = 0
            while (stop := data.find(b"\n", begin)) >= 0:
                at += stop + 1 - begin
                row = _object(bytes(data[begin:stop]))
                begin = stop + 1
                if row is not None:
                    yield Line(row, at)
            del data[:begin]
            if len(data) > MOST_LINE_BYTES:
                raise Corrupt("samples.long_line", "A row is too long to be shown.", file=self.path)

    def page(self, start: int, count: int, wanted: Callable[[Row], bool]) -> Found:
        """Rows that are wanted, and where to go on."""
        rows: list[Row] = []
        at = start
        for line in self.from_byte(start):
            at = line.end
            if wanted(line.row):
                rows.append(line.row)
            if len(rows) == count:
                break
        return Found(rows, at if start < at < self.size else None)

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        if start >= end:
            return
        first, last = start // LEAF_BYTES, (end - 1) // LEAF_BYTES
        leaves = self._contents.read_leaves(self._artifact, self._leaf + first, last - first + 1)
        for number, leaf in enumerate(leaves, first):
            offset = number * LEAF_BYTES
            yield bytes(leaf[max(start - offset, 0) : end - offset])


def whole(contents: ArtifactStore, artifact: str, path: str) -> Row:
    """A small JSON object. Raises NotFound "artifact.no_such_file", Corrupt "samples.unreadable"."""
    manifest = contents.manifest(artifact)
    first, count = manifest.leaf_span(path)
    if count * LEAF_BYTES > MOST_WHOLE_BYTES:
        raise Corrupt("samples.unreadable", "The file is too long to be shown.", file=path)
    row = _object(b"".join(islice(contents.read_leaves(artifact, first, count), count)))
    if row is None:
        raise Corrupt("samples.unreadable", "The file holds no JSON object.", file=path)
    return row


def _object(text: bytes) -> Row | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("Row", value) if isinstance(value, dict) else None
