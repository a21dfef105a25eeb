"""Rows whose answers were judged: a pair of answers to one prompt, or one answer with its worth.

Owns how they are encoded and cut: the prompt loses its beginning, an answer its end, and both answers of a pair are
read after the same prompt. `check` counts by it what `prepare` writes. Pure but for the tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..problem import Problem
from .lengths import Overlong
from .row import Format, Row
from .tokenise import Encoded, RowTokenizer

JUDGED = frozenset({Format.PREFERENCE, Format.LABELLED, Format.SCORED})
#: the answers of one row, each after the prompt: chosen and rejected, or the only one
Sides = tuple[Encoded, ...]


def encode_sides(tokenizer: RowTokenizer, rows: Sequence[Row]) -> list[Sides | Problem]:
    """A batch of rows of one format. A row that the template refuses comes back as a Problem."""
    if not rows:
        return []
    if rows[0].format is not Format.PREFERENCE:
        return [item if isinstance(item, Problem) else (item,) for item in tokenizer.encode(rows)]
    chosen = tokenizer.encode([row.answered(row.chosen) for row in rows])
    rejected = tokenizer.encode([row.answered(row.rejected) for row in rows])
    found: list[Sides | Problem] = []
    for one, other in zip(chosen, rejected, strict=True):
        if isinstance(one, Problem):
            found.append(one)
        else:
            found.append(other if isinstance(other, Problem) else (one, other))
    return found


def longest(sides: Sides) -> int:
    return max(len(side.tokens) for side in sides)


def fitted_sides(sides: Sides, max_length: int, how: Overlong) -> Sides:
    """At most max_length tokens each; none where the row is dropped. REFUSE is the caller's to raise and cuts here.

    The answers come first: the prompt's beginning goes, down to half of the room, and then the answers' ends.
    """
    if longest(sides) <= max_length:
        return sides
    if how is Overlong.DROP:
        return ()
    begins = [side.mask.find(1) if 1 in side.mask else len(side.tokens) for side in sides]
    answer = max(len(side.tokens) - begin for side, begin in zip(sides, begins, strict=True))
    room = min(max(begins), max(max_length - answer, max_length // 2))
    spans = [(max(begin - room, 0), begin + max_length - room) for begin in begins]
    return tuple(Encoded(side.tokens[b:e], side.mask[b:e]) for side, (b, e) in zip(sides, spans, strict=True))


def has_answers(sides: Sides) -> bool:
    """Whether every answer has a token left that is predicted."""
    return bool(sides) and all(side.loss_tokens for side in sides)


def are_equal(sides: Sides) -> bool:
    """Whether a pair's answers can't be told apart: equal texts, or equal as far as they are read."""
    return len(sides) == 2 and sides[0].tokens == sides[1].tokens
