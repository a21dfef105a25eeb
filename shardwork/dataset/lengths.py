"""Rows that are longer than a model reads: split, cut, dropped or refused; and short ones that share a sequence.

Owns what `params.overlong` and `params.packing` mean and which rows share a sequence, so that `check` counts exactly
what `prepare` does. That rows of one sequence do not see each other is the worker's (`training.batches`). Pure.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from ..problem import Problem
from .row import Format, Row
from .tokenise import Encoded


class Overlong(StrEnum):
    """What happens to a row of more than max_length tokens."""

    #: text is split; a row with an answer is cut, because a piece of it would have no question
    AUTO = "auto"
    SPLIT = "split"
    TRUNCATE = "truncate"
    DROP = "drop"
    REFUSE = "refuse"

    def of(self, kind: Format | None) -> Overlong:
        """`auto` resolved for rows of this format."""
        if self is not Overlong.AUTO:
            return self
        return Overlong.SPLIT if kind is Format.TEXT else Overlong.TRUNCATE


def fitted(item: Encoded, max_length: int, how: Overlong) -> list[Encoded]:
    """The row as the rows of at most max_length tokens that training reads; none when it is dropped.

    Pieces of a split row are consecutive and share no token; REFUSE is the caller's to raise and cuts here.
    """
    if len(item.tokens) <= max_length:
        return [item]
    match how:
        case Overlong.DROP:
            return []
        case Overlong.SPLIT:
            cuts = [*range(0, len(item.tokens), max_length), len(item.tokens)]
            if cuts[-1] - cuts[-2] == 1 and max_length > 2:
                cuts[-2] -= 1  # a row's first token is never predicted, so one alone would teach nothing
            return [Encoded(item.tokens[begin:end], item.mask[begin:end]) for begin, end in pairwise(cuts)]
        case _:
            return [item.cut(max_length)]


def refused_split(row: Row, how: Overlong) -> Problem | None:
    """Rows with answers are not split: a piece of an answer has no question before it."""
    if how is not Overlong.SPLIT or row.format is Format.TEXT:
        return None
    return Problem(
        file=row.file,
        line=row.line,
        key="params.overlong",
        code="data.cannot_split",
        sentence=f"Only text is split; the rows are {row.shape}.",
        fix="Set params.overlong: truncate, drop or refuse.",
    )


class Layout(StrEnum):
    """How rows become the sequences that training reads."""

    #: each row is a sequence, padded to the longest of its batch
    PADDED = "padded"
    #: documents laid end to end and cut into full sequences; each token sees all before it in its sequence
    JOINED = "joined"
    #: whole rows laid behind each other, none of which sees another
    PACKED = "packed"


def layout(packing: bool | str, recipe: str) -> Layout:
    """What `packing` asks of a recipe; `auto`: pre-training joins documents, which are cut anyway, all others pad."""
    if packing is False or (packing == "auto" and recipe != "pretrain"):
        return Layout.PADDED
    return Layout.JOINED if recipe == "pretrain" else Layout.PACKED


def pack(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Positions of the rows of each sequence, none of more than `room` tokens: best fit, the longest rows first.

    Of many rows no more than some 11/9 of the fewest sequences possible (Johnson 1973). Equal rows stay in their order,
    so the same lengths always give the same sequences. Every length lies in [1, room].
    """
    sequences: list[list[int]] = []
    #: tokens that are left -> sequences with as much room, and those keys in rising order
    with_room: dict[int, list[int]] = {}
    rooms: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda each: -lengths[each]):
        at = bisect_left(rooms, lengths[position])
        if at == len(rooms):
            number, left = len(sequences), room
            sequences.append([])
        else:
            left = rooms[at]
            number = with_room[left].pop()
            if not with_room[left]:
                del with_room[left], rooms[at]
        sequences[number].append(position)
        left -= lengths[position]
        if left and left not in with_room:
            rooms.insert(bisect_left(rooms, left), left)
        if left:
            with_room.setdefault(left, []).append(number)
    return sequences


@dataclass(slots=True)
class RowLengths:
    """Tokens of the rows that are learnt from: four bytes for a row, or for each piece of a split one."""

    _pieces: array[int] = field(default_factory=lambda: array("i"))
    #: where each row's pieces end
    _ends: array[int] = field(default_factory=lambda: array("q"))
    #: how often a pass over the data reads each row
    _times: array[int] = field(default_factory=lambda: array("H"))

    def add(self, pieces: Iterable[int], times: int) -> None:
        self._pieces.extend(pieces)
        self._ends.append(len(self._pieces))
        self._times.append(times)

    def read(self, rows: Iterable[int]) -> list[int]:
        """Lengths of what a pass reads of these rows."""
        found: list[int] = []
        for row in rows:
            begin = self._ends[row - 1] if row else 0
            found += list(self._pieces[begin : self._ends[row]]) * self._times[row]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """A pass over the rows in numbers, padded and packed."""

    layout: Layout
    max_length: int
    #: rows side by side, padded to the longest of them
    batch_size: int
    rows: int
    tokens: int
    #: sequences of at most max_length tokens that the rows fit into
    sequences: int
    #: tokens that padded batches have, padding with them; expected, because rows are shuffled
    padded_tokens: int

    @property
    def padding(self) -> float:
        """Share of padded batches that is padding."""
        return 1 - self.tokens / self.padded_tokens

    @property
    def gap(self) -> float:
        """Share of full sequences that packed rows leave empty."""
        return 1 - self.tokens / (self.sequences * self.max_length)

    @property
    def rows_a_sequence(self) -> float:
        """How many times as many rows a step of the same price reads when they are packed."""
        return self.rows / self.sequences

    def to_json(self) -> dict[str, object]:
        """The key `packing` of `data check --json` and of a plan's stages."""
        return {
            "layout": str(self.layout),
            "batch_size": self.batch_size,
            "rows": self.rows,
            "tokens": self.tokens,
            "padded_tokens": self.padded_tokens,
            "padding": round(self.padding, 4),
            "sequences": self.sequences,
            "packed_tokens": self.sequences * self.max_length,
            "gap": round(self.gap, 4),
            "rows_a_sequence": round(self.rows_a_sequence, 2),
        }


def measured(how: Layout, lengths: Sequence[int], max_length: int, batch_size: int) -> Packing | None:
    """What padding wastes of rows of these lengths, and what packing makes of them; None where there are none."""
    if not lengths:
        return None
    return Packing(
        layout=how,
        max_length=max_length,
        batch_size=batch_size,
        rows=len(lengths),
        tokens=sum(lengths),
        sequences=len(pack(lengths, max_length)),
        padded_tokens=round(len(lengths) * longest_of(lengths, batch_size)),
    )


def longest_of(lengths: Sequence[int], batch_size: int) -> float:
    """Expected tokens of the longest among `batch_size` rows that are drawn from these."""
    counts, up_to, below, found = Counter(lengths), 0, 0.0, 0.0
    for length in sorted(counts):
        up_to += counts[length]
        within = (up_to / len(lengths)) ** batch_size
        found += length * (within - below)
        below = within
    return found
