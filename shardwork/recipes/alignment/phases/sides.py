"""Sides: which items are learnt from and which are held out, of items that are told apart by a digest.

Owns the division of judged answers and of prompts; it follows `dataset.split`, so that `data check` says the same.
Pure. Called by `pairs` and `prompts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....dataset.split import MIN_EVAL_ROWS, hold_out, shuffled, without
from ....errors import InvalidInput
from ...orders import PrepareOrder


@dataclass(frozen=True, slots=True)
class Sides:
    """Positions of items in their final order."""

    train: list[int]
    #: among the items of the held-out files, where there are any; else among all
    held_out: list[int] | None
    #: items that are neither, because an equal one is held out
    dropped: int


def divided(
    order: PrepareOrder,
    digests: Sequence[bytes],
    times: Sequence[int],
    others: Sequence[bytes] | None,
    topics: Sequence[bytes] | None = None,
) -> Sides:
    """Every item of the training side as often as its source's weight says, shuffled. Items of one topic stay together
    where a fraction is held out.

    Raises InvalidInput "data.too_few", "data.too_few_held_out" and "data.too_few_to_hold_out".
    """
    seed = bytes.fromhex(order.seed)
    held_out: list[int] | None = None
    if others is not None:
        held_out = shuffled(len(others), seed, "held out")[: order.eval_rows_max]
        split = without(digests, set(others))
    elif order.eval_fraction is not None:
        split = hold_out(digests, fraction=order.eval_fraction, most=order.eval_rows_max, topics=topics)
        held_out = split.held_out
    else:
        split = without(digests, set())
    train = [position for position in split.train for _ in range(times[position])]
    if not train:
        raise InvalidInput(
            "data.too_few",
            f"No row is left to learn from within {order.max_length} tokens.",
            next_step="Give more data, or raise params.max_length.",
            key="params.max_length",
        )
    if held_out is not None and len(held_out) < MIN_EVAL_ROWS:
        raise InvalidInput(
            "data.too_few_held_out",
            f"The held-out data gives {len(held_out)} rows; at least {MIN_EVAL_ROWS} are needed.",
            next_step="Give more held-out rows, or leave eval_data and eval_fraction out.",
            key="eval_data",
        )
    return Sides([train[at] for at in shuffled(len(train), seed, "train order")], held_out, split.dropped)
