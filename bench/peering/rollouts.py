# pyright: standard
"""Rollouts that both sides are given: prompts of several lengths, answers that end or are cut off, scores.

Every prompt is another one, so that a row is found again by its prompt whatever order it is shown in. Called by
`formulas`, `theirs` and `ours`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

#: as `tests.worker.training.tiny` has them
PAD, EOS = 0, 1
#: longest answer and prompt
MOST_NEW, MOST_PROMPT = 12, 8


@dataclass(frozen=True, slots=True)
class Row:
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    score: float


def rows(count: int, *, cut_off: bool, seed: int = 11) -> list[Row]:
    """`cut_off`: every answer is as long as it may be; else one in five, and the others end by themselves."""
    draw = random.Random(seed)
    found: dict[tuple[int, ...], Row] = {}
    while len(found) < count:
        prompt = tuple(draw.randrange(2, 60) for _ in range(draw.randint(2, MOST_PROMPT)))
        length = MOST_NEW if cut_off or len(found) % 5 == 0 else draw.randint(0, MOST_NEW - 1)
        answer = tuple(draw.randrange(2, 60) for _ in range(length))
        found[prompt] = Row(prompt, answer if length == MOST_NEW else (*answer, EOS), round(draw.gauss(0, 1), 2))
    return list(found.values())


def longest_prompt(these: Sequence[Row]) -> int:
    return max(len(row.prompt) for row in these)
