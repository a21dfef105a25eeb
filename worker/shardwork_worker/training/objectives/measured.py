# pyright: standard
"""Held-out items under an objective: each one's loss, and of pairs what the model thinks of them.

The reference is run once, before any candidate's weights are loaded. Called by `evaluate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from shardwork.recipes.base import Context
from shardwork.recipes.orders import EvaluateOrder

from ..batches import pad_token, read_index
from ..model import Built
from .choice import arithmetic_of, reader_of
from .items import Referred, eval_items
from .reader import pieces
from .verdicts import accuracy, calibration_error


@dataclass(frozen=True, slots=True)
class Opinions:
    """Losses of items, and log-odds of pairs with what is known of them."""

    losses: list[float]
    logits: list[float]
    values: list[float]

    def metrics(self) -> dict[str, float]:
        """accuracy and calibration_error of pairs; none for other items."""
        if not self.logits:
            return {}
        return {
            "accuracy": accuracy(self.logits, self.values),
            "calibration_error": calibration_error(self.logits, self.values),
        }


class HeldOutItems:
    """The `eval` artifact's items, ready to be measured under any weights. Where one of the two parts has no item, the
    other stands in for it."""

    def __init__(self, order: EvaluateOrder, context: Context, built: Built) -> None:
        folder = context.inputs["eval"]
        reader = reader_of(order, context.inputs["base"], built, pad_token(read_index(folder), built.vocabulary))
        self._arithmetic = arithmetic_of(order, reader)
        per_item = self._arithmetic.per_item
        self._size = max(1, order.batch_size // per_item)
        found = [
            eval_items(folder, part, order.max_length, built.vocabulary, per_item) for part in ("selection", "test")
        ]
        both = [found[0] or found[1], found[1] or found[0]]
        selection, test = self._arithmetic.referred(both, self._size) if both[1] else ([], [])
        self.parts: Mapping[str, Sequence[Referred]] = {"selection": selection, "test": test}

    def measure(self, part: str) -> Opinions:
        items = self.parts[part]
        losses: list[float] = []
        logits: list[float] = []
        with torch.no_grad():
            shared = self._arithmetic.shared(items, self._size)
            for piece in pieces(len(items), self._size):
                # an item's own loss: what items share by their lengths is no part of it
                found = self._arithmetic.verdicts(items[piece], shared._replace(tokens_an_item=None), learning=False)
                losses += found.losses.double().tolist()
                logits += found.logits.double().tolist() if found.logits is not None else []
        return Opinions(losses, logits, [one.item.value for one in items])
