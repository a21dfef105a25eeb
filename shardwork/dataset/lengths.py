"""Rows that are longer than a model reads: split, cut, dropped or refused; and rows laid end to end.

Owns what `params.overlong` and `params.packing` mean for one row and for many, so that `check` counts exactly what
`prepare` does. Pure.
"""

from __future__ import annotations

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


def packs(packing: bool | str, recipe: str) -> bool:
    """Whether rows are laid end to end; `auto`: for pre-training, whose documents are cut anyway."""
    return recipe == "pretrain" if packing == "auto" else bool(packing)
