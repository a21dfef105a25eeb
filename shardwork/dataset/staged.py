"""What is uploaded: JSONL and text as they lie, everything else written anew as JSONL under our names.

Owns the conversion. The client does it, not the coordinator: parsers of rich formats are where hostile files get in, a
coordinator then needs no pyarrow, and a mapping is applied once, where its author can see the result. Called by the
client's staging.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ..errors import InvalidInput
from ..problem import Problem
from .line import Line, SourceFile
from .rows import canonical_value
from .source import PLAIN_SUFFIXES, read_lines


def travels_as_it_is(file: SourceFile) -> bool:
    """Whether the file itself is uploaded."""
    return file.path.suffix.lower() in PLAIN_SUFFIXES and not file.mapping and file.format is None


def staged_suffix(file: SourceFile) -> str:
    """The ending of what is uploaded."""
    return file.path.suffix.lower() if travels_as_it_is(file) else ".jsonl"


def line_bytes(line: Line) -> bytes:
    """The line as it travels. Raises InvalidInput "data.*" for a row that changed since it was checked."""
    value = canonical_value(line)
    if isinstance(value, Problem):
        raise InvalidInput(value.code, value.sentence, next_step=value.fix, file=value.file, line=value.line or "")
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


def convert(file: SourceFile, target: Path) -> None:
    """Writes the file's rows as JSONL. Equal files and mappings give equal bytes."""
    with target.open("wb") as sink:
        sink.writelines(_lines(file))


def _lines(file: SourceFile) -> Iterator[bytes]:
    for line in read_lines([file]):
        if isinstance(line, Problem):
            raise InvalidInput(line.code, line.sentence, next_step=line.fix, file=line.file, line=line.line or "")
        yield line_bytes(line)
