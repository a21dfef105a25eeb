"""Lines of data files with their place: JSONL one object a line, text one document a paragraph.

Owns bytes to text: encodings, size limits, empty files. Streams; a file of any size costs one line of memory. What a
line means is `shardwork.dataset.rows`. A file that is not UTF-8 text at all is named once, not line by line.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from ..problem import Problem, nearest

#: a row longer than this is a mistake: no model of today reads four million tokens at once
MAX_LINE_BYTES = 16 << 20
#: text documents are cut at the next line end from here on
MAX_DOCUMENT_BYTES = 1 << 20
SUFFIXES = (".jsonl", ".txt")
#: how a file begins that is no UTF-8 text -> what it is; longer marks first, since UTF-32 begins as UTF-16 does
_ENCODINGS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"{\0", "UTF-16LE"),
    (b"\0{", "UTF-16BE"),
)
_PACKED = ((b"\x1f\x8b", "gzip"), (b"PK\3\4", "zip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"PAR1", "Parquet"))
#: endings that people have instead -> how to get to JSONL
_CONVERSIONS = {
    **dict.fromkeys((".gz", ".gzip"), "Unpack it first:  gunzip -k FILE"),
    ".zst": "Unpack it first:  zstd -d FILE",
    ".zip": "Unpack it first:  unzip FILE",
    ".json": "Write one object a line:  jq -c '.[]' FILE > FILE.jsonl",
    **dict.fromkeys((".md", ".text", ".log"), "If it is plain text, give it the ending .txt."),
    ".ndjson": "It is JSONL under another name: rename it to .jsonl.",
}
_CONVERT = "Convert it to JSONL, one object a line, or to .txt."

#: told how many bytes were read
Heard = Callable[[int], None]


def _ignore(_num_bytes: int) -> None:
    """Nobody wants to know."""


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


def conversion(path: Path) -> str:
    """How to turn a file of this ending into one that is read here."""
    return _CONVERSIONS.get(path.suffix.lower(), _CONVERT).replace("FILE", shlex.quote(path.name))


def read_lines(files: Sequence[SourceFile], heard: Heard = _ignore) -> Iterator[Line | Problem]:
    """Every line of every file in order. What cannot be read comes as a Problem in its place.

    `heard` is told the bytes of each line as they are read.
    """
    if not files:
        fix = "Name a JSONL or text file, or a folder that holds some."
        yield _problem("", None, "data.no_files", "There is no JSONL or text file here.", fix)
    for source in files:
        if source.path.suffix.lower() not in SUFFIXES and source.path.exists():
            sentence = "The file is neither JSONL nor text."
            yield _problem(source.name, None, "data.file_type", sentence, conversion(source.path))
            continue
        if source.path.exists() and not source.path.is_file():
            sentence = "This is a pipe or a device, not a file; rows are read more than once."
            yield _problem(source.name, None, "data.file_type", sentence, "Write the rows to a file first.")
            continue
        try:
            with source.path.open("rb") as file:
                yield from _read(source, file, heard)
        except OSError as error:
            sentence = f"The file cannot be read: {error.strerror}."
            yield _problem(source.name, None, "data.missing_file", sentence, _path_fix(source.path))


def _path_fix(path: Path) -> str:
    try:
        near = None if path.exists() else nearest(path.name, (entry.name for entry in path.parent.iterdir()))
    except OSError:
        near = None
    return f"Did you mean {near!r}?" if near else "Check the path, and that you may read it."


def _read(source: SourceFile, file: BufferedReader, heard: Heard) -> Iterator[Line | Problem]:
    foreign = _foreign(source, file.peek(8)[:8])
    if foreign is not None:
        yield foreign
        return
    is_text = source.path.suffix.lower() == ".txt"
    found = False
    for item in _documents(source.name, file, heard) if is_text else _lines(source.name, file, heard):
        found = True
        yield item
    if not found:
        yield _problem(source.name, None, "data.empty_file", "The file holds no rows.", "Remove it or fill it.")


def _foreign(source: SourceFile, head: bytes) -> Problem | None:
    """The one problem of a file whose first bytes say that it is packed or in another encoding."""
    name = shlex.quote(source.path.name)
    for mark, encoding in _ENCODINGS:
        if head.startswith(mark):
            fix = f"Convert it:  iconv -f {encoding} -t UTF-8 {name} > utf8-{name}"
            return _problem(source.name, None, "data.not_utf8", f"The file is {encoding} text, not UTF-8.", fix)
    for mark, kind in _PACKED:
        if head.startswith(mark):
            sentence = f"The file is {kind} data under the name of a text file."
            return _problem(source.name, None, "data.file_type", sentence, "Unpack or convert it first.")
    return None


def _lines(name: str, file: BufferedReader, heard: Heard) -> Iterator[Line | Problem]:
    number = 0
    while data := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        heard(len(data))
        if len(data) > MAX_LINE_BYTES:
            _skip_line(data, file, heard)
            yield _too_long(name, number)
            continue
        item = _decode(name, number, data, is_text=False)
        if isinstance(item, Problem) or not item.text.isspace():
            yield item


def _documents(name: str, file: BufferedReader, heard: Heard) -> Iterator[Line | Problem]:
    """Paragraphs: runs of lines between blank ones."""
    number, first, size = 0, 1, 0
    kept: list[bytes] = []
    while data := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        heard(len(data))
        if len(data) > MAX_LINE_BYTES:
            _skip_line(data, file, heard)
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
        line = number + data[: error.start].count(b"\n")
        at = error.start - (data.rfind(b"\n", 0, error.start) + 1)
        sentence = f"Byte {at + 1} of the line (0x{data[error.start]:02x}) is not UTF-8."
        fix = "Save the file as UTF-8; if it is Windows or Latin-1 text:  iconv -f WINDOWS-1252 -t UTF-8"
        return _problem(name, line, "data.not_utf8", sentence, fix)
    if is_text:
        text = text.replace("\r\n", "\n").strip("\n")
    return Line(name, number, text, is_text)


def _skip_line(data: bytes, file: BufferedReader, heard: Heard) -> None:
    while data and not data.endswith(b"\n"):
        data = file.readline(1 << 20)
        heard(len(data))


def _too_long(name: str, number: int) -> Problem:
    sentence = f"The line is longer than {MAX_LINE_BYTES >> 20} MiB."
    return _problem(name, number, "data.line_too_long", sentence, "Split it into several rows.")


def _problem(file: str, line: int | None, code: str, sentence: str, fix: str) -> Problem:
    return Problem(file=file, line=line, key="", code=code, sentence=sentence, fix=fix)
