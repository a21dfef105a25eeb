"""Journal: which calls of an outside judge were made and what they cost, on disk before they are made.

A call is written down, with the most that it can cost, and flushed before it is sent. Whoever is killed after that
finds the line: the call counts as paid, at its most, and is never made again, because nobody can know whether the
server computed it. Owns the file `calls.jsonl`, its lock, and the cap. Called by `judging`.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from ...errors import Conflict, InvalidInput

FILE = "calls.jsonl"
#: (item, order)
Call = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """What may be spent, over all runs. Money in billionths of a dollar."""

    tokens: int | None = None
    nanos: int | None = None
    #: of one token
    nanos_in: int = 0
    nanos_out: int = 0

    def nanos_of(self, tokens_in: int, tokens_out: int) -> int:
        return tokens_in * self.nanos_in + tokens_out * self.nanos_out


@dataclass(frozen=True, slots=True)
class Cost:
    tokens: int = 0
    nanos: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.tokens + other.tokens, self.nanos + other.nanos)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.tokens - other.tokens, self.nanos - other.nanos)


@dataclass(slots=True)
class Journal:
    folder: Path
    cap: Cap
    #: what the calls are about: another judge's answers don't belong in the same file
    about: str
    #: probability that the answer shown first is better, ms; first None: it named none
    done: dict[Call, tuple[float | None, int]] = field(default_factory=dict[Call, tuple[float | None, int]])
    #: made, and nobody knows what became of them: by an earlier run, or in this one
    lost: set[Call] = field(default_factory=set[Call])
    spent: Cost = Cost()
    #: about to be made, or made and not answered yet, at their most
    open: dict[Call, Cost] = field(default_factory=dict[Call, Cost])
    _file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Raises Conflict "feedback.in_use", "feedback.other_judge"."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = (self.folder / FILE).open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise Conflict(
                "feedback.in_use",
                "Another run writes to this folder.",
                next_step="Wait until it has ended, or name another folder.",
                folder=self.folder,
            ) from error
        try:
            self._load()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def may(self, most: Cost) -> bool:
        """Whether this much more stays within the cap, whatever becomes of the calls that are open."""
        total = self.spent + most
        for one in self.open.values():
            total += one
        tokens, nanos = self.cap.tokens, self.cap.nanos
        return (tokens is None or total.tokens <= tokens) and (nanos is None or total.nanos <= nanos)

    def reserve(self, call: Call, most: Cost) -> None:
        """It will be made; what it may cost is nobody else's."""
        self.open[call] = most

    def release(self, call: Call) -> None:
        """It will not be made after all."""
        del self.open[call]

    def asked(self, call: Call) -> None:
        """It is made now."""
        most = self.open[call]
        self._write({"asked": call, "tokens": most.tokens, "nanos": most.nanos})

    def answered(self, call: Call, cost: Cost, first: float | None, ms: int) -> None:
        del self.open[call]
        self.spent += cost
        self.done[call] = first, ms
        self._write({"answered": call, "tokens": cost.tokens, "nanos": cost.nanos, "first": first, "ms": ms})

    def not_made(self, call: Call) -> None:
        """It never reached the server, or was refused: it may be made again."""
        del self.open[call]
        self._write({"not_made": call})

    def lose(self, call: Call) -> None:
        self.spent += self.open.pop(call)
        self.lost.add(call)

    # ---- inside -----------------------------------------------------------------------------------------------

    def _write(self, row: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _load(self) -> None:
        assert self._file is not None
        self._file.seek(0)
        text = self._file.read()
        # a line that was not finished was not followed by a call
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            self._file.truncate(len(whole))
        lines = whole.decode("utf-8", "replace").splitlines()
        if not lines:
            self._write({"about": self.about})
            return
        rows = [self._parsed(line, number) for number, line in enumerate(lines, 1)]
        if rows[0].get("about") != self.about:
            raise Conflict(
                "feedback.other_judge",
                "The folder holds answers of another judge, or to another question.",
                next_step="Name another folder, or ask as before: same answers, endpoint, model, rubric and seed.",
                folder=self.folder,
            )
        for row in rows[1:]:
            self._take(row)
        for call in list(self.open):
            self.lose(call)

    def _parsed(self, line: str, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
            assert isinstance(row, dict)
        except (ValueError, AssertionError, RecursionError) as error:
            raise InvalidInput(
                "feedback.bad_journal",
                f"Line {number} of {FILE} is damaged.",
                next_step="Restore the file, or name another folder, where everything is asked and paid again.",
                file=self.folder / FILE,
                line=number,
            ) from error
        return cast("dict[str, Any]", row)

    def _take(self, row: dict[str, Any]) -> None:
        cost = Cost(int(row.get("tokens", 0)), int(row.get("nanos", 0)))
        if "asked" in row:
            self.open[_call(row["asked"])] = cost
        elif "not_made" in row:
            self.open.pop(_call(row["not_made"]), None)
        elif "answered" in row:
            call = _call(row["answered"])
            self.open.pop(call, None)
            self.spent += cost
            self.done[call] = row["first"], int(row["ms"])


def _call(value: list[str]) -> Call:
    return value[0], value[1]
