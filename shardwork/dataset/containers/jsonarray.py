"""A JSON list of objects, read one object at a time: memory holds one row, not the file.

Owns finding where each object ends and which line it begins at; what is in it is checked by `rows`, as with JSONL.
Called by `source` for .json files that begin with a bracket; others are read as JSONL, which many are.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from io import BufferedReader

from ...problem import Problem
from .. import line as line_rules
from ..line import Heard, Line, SourceFile, file_problem

CHUNK_BYTES = 1 << 20
_BLANK = " \t\r\n"
_ON_SAME_LINE = re.compile(r",[ \t]*[^\s]")
_DECODER = json.JSONDecoder()


def begins_array(file: BufferedReader) -> bool:
    """Whether the first letter is a bracket."""
    return file.peek(CHUNK_BYTES).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def json_rows(source: SourceFile, file: BufferedReader, heard: Heard) -> Iterator[Line | Problem]:
    """Each object as a line numbered by where it begins."""
    text = _Text(source, file, heard)
    try:
        text.skip("[")
        separator = "["
        while True:
            if text.skip("]"):
                if separator == ",":
                    yield text.problem("A comma stands before the closing bracket", "Remove the comma.")
                break
            line = text.object()
            if isinstance(line, Problem):
                yield line
                return  # where the next object begins is not known any more
            yield line
            separator = "," if text.skip(",") else ""
            if not separator and not text.peek("]"):
                yield text.problem("A comma or the closing bracket is missing", "Mend the list at this line.")
                return
        if text.rest():
            yield text.problem("Something follows the closing bracket", "Keep one list in the file.")
    except UnicodeDecodeError as error:
        fix = "Save the file as UTF-8; if it is Windows or Latin-1 text:  iconv -f WINDOWS-1252 -t UTF-8"
        sentence = f"A byte (0x{error.object[error.start]:02x}) is not UTF-8."
        yield file_problem(source, "data.not_utf8", sentence, fix, line=text.line)


class _Text:
    """The file's text from where reading stands; more is read as it is needed."""

    def __init__(self, source: SourceFile, file: BufferedReader, heard: Heard) -> None:
        self._source, self._file, self._heard = source, file, heard
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._ended = "", 0, False
        #: of the letter that comes next
        self.line = 1
        #: rows so far, and the line that the last one ended on
        self._rows: int = 0
        self._last_line: int = 0

    def problem(self, what: str, fix: str) -> Problem:
        return file_problem(self._source, "data.bad_json", f"This is not valid JSON: {what}.", fix, line=self.line)

    def _more(self, size: int = CHUNK_BYTES) -> bool:
        if self._ended:
            return False
        data = self._file.read(size)
        self._heard(len(data))
        self._ended = not data
        self._text = self._text[self._at :] + self._decode.decode(data, final=self._ended)
        self._at = 0
        return not self._ended

    def _blanks(self) -> None:
        while True:
            start = self._at
            while self._at < len(self._text) and self._text[self._at] in _BLANK:
                self._at += 1
            self.line += self._text.count("\n", start, self._at)
            if self._at < len(self._text) or not self._more():
                return

    def peek(self, letter: str) -> bool:
        self._blanks()
        return self._text.startswith(letter, self._at)

    def skip(self, letter: str) -> bool:
        if not self.peek(letter):
            return False
        self._at += 1
        return True

    def rest(self) -> bool:
        self._blanks()
        return self._at < len(self._text)

    def object(self) -> Line | Problem:
        """The next value's text. Raises nothing: what cannot be read is a problem at its line."""
        self._blanks()
        size = CHUNK_BYTES
        while True:
            begin = self._at
            try:
                _, end = _DECODER.raw_decode(self._text, begin)
            except RecursionError:
                return self.problem("it nests too deep to be read", "Mend or remove the row.")
            except ValueError as error:
                if len(self._text) - begin > line_rules.MAX_LINE_BYTES:
                    return line_rules.too_long(self._source, self.line)
                if self._more(size):
                    size *= 2  # a long row is not read from its beginning for each megabyte
                    continue
                return self._cut_short(error, begin)
            if end < len(self._text) or not self._more():
                end += self._at - begin  # what was read before is let go of when more comes
                break  # a number at the end of what was read may go on
        text, begins = self._text[self._at : end], self.line
        # a line that several rows stand on names none of them
        is_shared = begins == self._last_line or ("\n" not in text and bool(_ON_SAME_LINE.match(self._text, end)))
        self._rows += 1
        self.line = self._last_line = begins + text.count("\n")
        self._at = end
        return Line(self._source, begins, text, item=self._rows if is_shared else 0)

    def _cut_short(self, error: ValueError, begin: int) -> Problem:
        """Why the value at `begin` of the text that was decoded is none; the text has been let go of up to there."""
        if isinstance(error, json.JSONDecodeError):
            at = self._at + error.pos - begin
            self.line += self._text.count("\n", self._at, at)
            if at >= len(self._text.rstrip()):
                return self.problem("the list has no end", "The file was cut off; write it again.")
            return self.problem(f"{error.msg.removesuffix(' at')} at column {error.colno}", "Mend the row.")
        return self.problem(str(error), "Mend the row.")
