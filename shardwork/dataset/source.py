"""Lines of data files with their place: JSONL one object a line, text one document a paragraph.

Owns bytes to text: encodings, size limits, empty files. Streams; a file of any size costs one line of memory. What a
line means is `shardwork.dataset.rows`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..problem import Problem

#: a row longer than this is a mistake: no model of today reads four million tokens at once
MAX_LINE_BYTES = 16 << 20
#: text documents are cut at the next line end from here on
MAX_DOCUMENT_BYTES = 1 << 20
SUFFIXES = (".jsonl", ".txt")


@dataclass(frozen=True, slots=True)
class SourceFile:
    path: Path
    #: how reports name it
    name: str


@dataclass(frozen=True, slots=True)
class Line:
    file: str
    #: counted from 1; a text document's first line
    number: int
    text: str
    #: False: a JSON object; True: plain text
    is_text: bool


def source_files(paths: Sequence[Path]) -> list[SourceFile]:
    """Files as given; a folder stands for the JSONL and text files in it, sorted by path."""
    found: list[SourceFile] = []
    for path in paths:
        if path.is_dir():
            inside = (entry for entry in path.rglob("*") if entry.is_file() and entry.suffix.lower() in SUFFIXES)
            names = sorted(inside, key=lambda entry: entry.relative_to(path).as_posix())
            found.extend(SourceFile(entry, entry.relative_to(path).as_posix()) for entry in names)
        else:
            found.append(SourceFile(path, str(path)))
    return found


def read_lines(files: Sequence[SourceFile]) -> Iterator[Line | Problem]:
    """Every line of every file in order. What cannot be read comes as a Problem in its place."""
    if not files:
        yield _problem("", None, "data.no_files", "No data file was given.", "Name a JSONL or text file.")
    for source in files:
        if source.path.suffix.lower() not in SUFFIXES:
            fix = "Convert it to JSONL, one object a line, or to .txt."
            yield _problem(source.name, None, "data.file_type", "The file is neither JSONL nor text.", fix)
            continue
        try:
            with source.path.open("rb") as file:
                yield from _read(source, file)
        except OSError as error:
            sentence = f"The file cannot be read: {error.strerror}."
            yield _problem(source.name, None, "data.missing_file", sentence, "Check the path.")


def _read(source: SourceFile, file: BinaryIO) -> Iterator[Line | Problem]:
    is_text = source.path.suffix.lower() == ".txt"
    found = False
    for item in _documents(source.name, file) if is_text else _lines(source.name, file):
        found = True
        yield item
    if not found:
        yield _problem(source.name, None, "data.empty_file", "The file holds no rows.", "Remove it or fill it.")


def _lines(name: str, file: BinaryIO) -> Iterator[Line | Problem]:
    number = 0
    while data := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(data) > MAX_LINE_BYTES:
            _skip_line(data, file)
            yield _too_long(name, number)
            continue
        item = _decode(name, number, data, is_text=False)
        if isinstance(item, Problem) or not item.text.isspace():
            yield item


def _documents(name: str, file: BinaryIO) -> Iterator[Line | Problem]:
    """Paragraphs: runs of lines between blank ones."""
    number, first, size = 0, 1, 0
    kept: list[bytes] = []
    while data := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(data) > MAX_LINE_BYTES:
            _skip_line(data, file)
            yield _too_long(name, number)
            continue
        is_blank = not data.strip()
        if kept and (is_blank or size > MAX_DOCUMENT_BYTES):
            yield _decode(name, first, b"".join(kept), is_text=True)
            kept, size = [], 0
        if not is_blank:
            first = first if kept else number
            kept.append(data)
            size += len(data)
    if kept:
        yield _decode(name, first, b"".join(kept), is_text=True)


def _decode(name: str, number: int, data: bytes, *, is_text: bool) -> Line | Problem:
    if number == 1:
        data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        sentence = f"Byte {error.start + 1} of the line is not UTF-8."
        line = number + data[: error.start].count(b"\n")
        return _problem(name, line, "data.not_utf8", sentence, "Save the file as UTF-8.")
    if is_text:
        text = text.replace("\r\n", "\n").strip("\n")
    return Line(name, number, text, is_text)


def _skip_line(data: bytes, file: BinaryIO) -> None:
    while data and not data.endswith(b"\n"):
        data = file.readline(1 << 20)


def _too_long(name: str, number: int) -> Problem:
    sentence = f"The line is longer than {MAX_LINE_BYTES >> 20} MiB."
    return _problem(name, number, "data.line_too_long", sentence, "Split it into several rows.")


def _problem(file: str, line: int | None, code: str, sentence: str, fix: str) -> Problem:
    return Problem(file=file, line=line, key="", code=code, sentence=sentence, fix=fix)
