"""Files of data to lines with their place: JSONL one object a line, text one document a paragraph, tables row by row.

Owns which files are read and by whom, and bytes to text: encodings, size limits, empty files. Streams; a file of any
size costs one line of memory. What a line means is `rows`; other containers than lines are `containers`. A file that
is not UTF-8 text at all is named once, not line by line.
"""

from __future__ import annotations

import codecs
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path

from ..problem import Problem, nearest_file
from . import line as line_rules
from .line import Heard, Line, Source, SourceFile, file_problem, paths_or_sources

__all__ = [
    "Heard",
    "Line",
    "Source",
    "SourceFile",
    "conversion",
    "foreign",
    "read_lines",
    "source_files",
    "staged_files",
]

#: text documents are cut at the next line end from here on
MAX_DOCUMENT_BYTES = 1 << 20
#: what is read as it lies; all that a coordinator ever reads
PLAIN_SUFFIXES = (".jsonl", ".txt")
#: what the client reads too, and uploads as JSONL
CONVERTED_SUFFIXES = (".ndjson", ".json", ".csv", ".tsv", ".parquet")
SUFFIXES = PLAIN_SUFFIXES + CONVERTED_SUFFIXES
#: folder of a source among several, in what is uploaded
STAGED_SOURCE = re.compile(r"^source-(\d{3})$")
#: how a file begins that is no UTF-8 text -> what it is; longer marks first, since UTF-32 begins as UTF-16 does
_ENCODINGS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"{\0", "UTF-16LE"),
    (b"\0{", "UTF-16BE"),
)
_PACKED = (
    (b"\x1f\x8b", "gzip"),
    (b"PK\3\4", "zip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PAR1", "Parquet"),
    (b"%PDF", "PDF"),
    (b"ARROW1", "Arrow"),
    (b"SQLite format 3", "SQLite"),
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
)
_PICTURES = frozenset({"PNG", "JPEG", "GIF"})
#: of a file, to see whether it is text; a byte of zero is in no text
_HEAD_BYTES = 4096
#: endings that people have instead -> how to get to one that is read
_CONVERSIONS = {
    **dict.fromkeys((".gz", ".gzip"), "Unpack it first:  gunzip -k FILE"),
    ".zst": "Unpack it first:  zstd -d FILE",
    ".zip": "Unpack it first:  unzip FILE",
    **dict.fromkeys((".md", ".text", ".log"), "If it is plain text, give it the ending .txt."),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "Save the sheet as CSV."),
    **dict.fromkeys((".arrow", ".feather"), "Save it as Parquet."),
    **dict.fromkeys((".pdf", ".doc", ".docx", ".odt", ".html", ".epub"), "Save its text as .txt."),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".webp"), "Name the file that holds the rows."),
    "": "Give it the ending that says what it is: .jsonl, .json, .csv, .tsv, .parquet or .txt.",
}
_NAME_FILES = "Name a JSONL, JSON, CSV, Parquet or text file, or a folder that holds some."
_CONVERT = "Convert it to JSONL, one object a line, or to .txt."


def _ignore(_num_bytes: int) -> None:
    """Nobody wants to know."""


def source_files(given: Sequence[Path | Source], recipe: str = "") -> list[SourceFile]:
    """The files of each source as given, for a recipe; a folder stands for the data files in it, sorted by path."""
    found: list[SourceFile] = []
    for number, source in enumerate(paths_or_sources(given)):
        inside = list(_expanded(source.files, SUFFIXES))
        # a folder without any stands for itself, so that it is named
        for path, name in inside or [(path, str(path)) for path in source.files]:
            found.append(SourceFile(path, name, number, source.mapping, source.format, recipe))
    return found


def staged_files(folder: Path, recipe: str = "") -> list[SourceFile]:
    """What a client uploaded: JSONL and text files only, in folders `source-000` … where there are several sources.

    Nothing else in it is read, so that no coordinator parses a format that its requesters choose.
    """
    found: list[SourceFile] = []
    for path, name in _expanded((folder,), PLAIN_SUFFIXES):
        match = STAGED_SOURCE.match(name.partition("/")[0])
        found.append(
            SourceFile(path, name, int(match[1]) if match and "/" in name else 0, recipe=recipe, is_staged=True)
        )
    return found


def _expanded(paths: Sequence[Path], suffixes: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    for path in paths:
        if not path.is_dir():
            yield path, str(path)
            continue
        inside = (entry for entry in path.rglob("*") if entry.is_file() and entry.suffix.lower() in suffixes)
        names = sorted(inside, key=lambda entry: entry.relative_to(path).as_posix())
        yield from ((entry, entry.relative_to(path).as_posix()) for entry in names)


def conversion(path: Path) -> str:
    """How to turn a file of this ending into one that is read here."""
    return _CONVERSIONS.get(path.suffix.lower(), _CONVERT).replace("FILE", shlex.quote(path.name))


def read_lines(files: Sequence[SourceFile], heard: Heard = _ignore) -> Iterator[Line | Problem]:
    """Every line of every file in order. What cannot be read comes as a Problem in its place.

    `heard` is told the bytes of each line as they are read.
    """
    if not files:
        nowhere = SourceFile(Path(), "")
        yield file_problem(nowhere, "data.no_files", "There is no data file here.", _NAME_FILES)
    for source in files:
        refused = _refused(source)
        if refused is not None:
            yield refused
            continue
        try:
            with source.path.open("rb") as file:
                yield from _read(source, file, heard)
        except OSError as error:
            sentence = f"The file cannot be read: {error.strerror}."
            yield file_problem(source, "data.missing_file", sentence, _path_fix(source.path))


def _refused(source: SourceFile) -> Problem | None:
    """What is no file to read rows from, whatever is in it."""
    if source.path.is_dir():
        return file_problem(source, "data.no_files", "No data file lies in this folder.", _NAME_FILES)
    if source.path.suffix.lower() not in SUFFIXES and source.path.exists():
        sentence = "The file is none of JSONL, JSON, CSV, TSV, Parquet and text."
        return file_problem(source, "data.file_type", sentence, conversion(source.path))
    if source.path.exists() and not source.path.is_file():
        sentence = "This is a pipe or a device, not a file; rows are read more than once."
        return file_problem(source, "data.file_type", sentence, "Write the rows to a file first.")
    return None


def _readable(folder: Path) -> list[str]:
    """Names in `folder` of what rows may be read from."""
    return [entry.name for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES or entry.is_dir()]


def _path_fix(path: Path) -> str:
    try:
        near = None if os.path.lexists(path) else nearest_file(path.name, _readable(path.parent))
    except OSError:
        near = None
    return f"Did you mean {str(path.with_name(near))!r}?" if near else "Check the path, and that you may read it."


def _read(source: SourceFile, file: BufferedReader, heard: Heard) -> Iterator[Line | Problem]:
    suffix = source.path.suffix.lower()
    other = _foreign(source, file.peek(_HEAD_BYTES)[:_HEAD_BYTES]) if suffix != ".parquet" else None
    if other is not None:
        yield other
        return
    found = False
    for item in _items(suffix, source, file, heard):
        found = True
        yield item
    if not found:
        yield _nothing_in(source)


def _nothing_in(source: SourceFile) -> Problem:
    """A client sends no file without rows, so that one which a coordinator meets is what an earlier stage left."""
    if source.is_staged:
        fix = "`shardwork job show` tells what that stage left out, and why."
        return file_problem(source, "data.empty_file", "The earlier stage left no rows to go on with.", fix)
    return file_problem(source, "data.empty_file", "The file holds no rows.", "Remove it or fill it.")


def _items(suffix: str, source: SourceFile, file: BufferedReader, heard: Heard) -> Iterator[Line | Problem]:
    """The lines of a file by its ending. Each container's reader is imported where a file needs it."""
    match suffix:
        case ".txt":
            return _documents(source, file, heard)
        case ".parquet":
            from .containers.parquet import parquet_rows

            return parquet_rows(source, heard)
        case ".csv" | ".tsv":
            from .containers.delimited import delimited_rows

            return delimited_rows(source, file, heard)
        case ".json":
            from .containers.jsonarray import begins_array, json_rows

            if begins_array(file):
                return json_rows(source, file, heard)
            return _lines(source, file, heard)
        case _:
            return _lines(source, file, heard)


def foreign(path: Path) -> Problem | None:
    """What is wrong with a file that is no text in UTF-8, whatever its ending; None where its beginning may be."""
    with path.open("rb") as file:
        return _foreign(SourceFile(path, str(path)), file.read(_HEAD_BYTES))


def _foreign(source: SourceFile, head: bytes) -> Problem | None:
    """The one problem of a file whose first bytes say that it is packed or in another encoding."""
    name = shlex.quote(source.path.name)
    for mark, encoding in _ENCODINGS:
        if head.startswith(mark):
            fix = f"Convert it:  iconv -f {encoding} -t UTF-8 {name} > utf8-{name}"
            return file_problem(source, "data.not_utf8", f"The file is {encoding} text, not UTF-8.", fix)
    for mark, kind in _PACKED:
        if head.startswith(mark):
            sentence = f"The file is {kind} data, not text."
            fix = "Name the file that holds the rows." if kind in _PICTURES else "Unpack or convert it first."
            fix = "Give it the ending .parquet." if kind == "Parquet" else fix
            return file_problem(source, "data.file_type", sentence, fix)
    if b"\0" in head and not _is_text(head):
        sentence = "The file is binary data, not text."
        return file_problem(source, "data.file_type", sentence, "Name the file that holds the rows.")
    return None


def _is_text(head: bytes) -> bool:
    """Whether it is UTF-8, of which the last character may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _lines(source: SourceFile, file: BufferedReader, heard: Heard) -> Iterator[Line | Problem]:
    number = 0
    while data := file.readline(line_rules.MAX_LINE_BYTES + 1):
        number += 1
        heard(len(data))
        if len(data) > line_rules.MAX_LINE_BYTES:
            _skip_line(data, file, heard)
            yield line_rules.too_long(source, number)
            continue
        item = _decode(source, number, data, is_text=False)
        if isinstance(item, Problem) or not item.text.isspace():
            yield item


def _documents(source: SourceFile, file: BufferedReader, heard: Heard) -> Iterator[Line | Problem]:
    """Paragraphs: runs of lines between blank ones."""
    number, first, size = 0, 1, 0
    kept: list[bytes] = []
    while data := file.readline(line_rules.MAX_LINE_BYTES + 1):
        number += 1
        heard(len(data))
        if len(data) > line_rules.MAX_LINE_BYTES:
            _skip_line(data, file, heard)
            yield line_rules.too_long(source, number)
            continue
        is_blank = not data.strip()
        if kept and (is_blank or size > MAX_DOCUMENT_BYTES):
            yield _decode(source, first, b"".join(kept), is_text=True)
            kept, size = [], 0
        if not is_blank:
            first = first if kept else number
            kept.append(data)
            size += len(data)
    if kept:
        yield _decode(source, first, b"".join(kept), is_text=True)


def _decode(source: SourceFile, number: int, data: bytes, *, is_text: bool) -> Line | Problem:
    if number == 1:
        data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return line_rules.not_utf8(source, number, data, error)
    if is_text:
        text = text.replace("\r\n", "\n").strip("\n")
    return Line(source, number, text, is_text)


def _skip_line(data: bytes, file: BufferedReader, heard: Heard) -> None:
    while data and not data.endswith(b"\n"):
        data = file.readline(1 << 20)
        heard(len(data))
