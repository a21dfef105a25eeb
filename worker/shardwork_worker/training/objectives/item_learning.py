# pyright: standard
"""Learning from items: pairs or single answers, by a reward's or a preference's arithmetic.

The order's items are taken in stored order, as rows of text are; their references are computed once, before the first
step. Called by `choice`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from shardwork.recipes.orders import LearnOrder

from .items import Item, Referred, Shared, TrainItems
from .objective import Part
from .verdicts import Verdicts


class Arithmetic(Protocol):
    """One of `reward` and `preference`, for learning and measuring alike."""

    @property
    def measures(self) -> tuple[str, ...]: ...

    @property
    def per_item(self) -> int:
        """Rows of an item."""
        ...

    def referred(self, batches: Sequence[Sequence[Item]], size: int) -> list[list[Referred]]:
        """The items of each batch with what the reference says of them, `size` items at a time."""
        ...

    def shared(self, batch: Sequence[Referred], size: int) -> Shared:
        """Of a whole batch under the present weights."""
        ...

    def verdicts(self, these: Sequence[Referred], shared: Shared, *, learning: bool) -> Verdicts: ...


class ItemLearning:
    """The objective of a shard."""

    def __init__(self, arithmetic: Arithmetic, order: LearnOrder, items: TrainItems) -> None:
        self._arithmetic, self._order, self._items = arithmetic, order, items
        self._batches: list[list[Referred]] = []
        self.measures = arithmetic.measures

    def prepare(self, size: int) -> None:
        """What the reference says of every item that the steps take."""
        self._batches = self._arithmetic.referred([self._stored(step) for step in range(self._order.steps)], size)

    def _stored(self, step: int) -> list[Item]:
        first = self._order.first_row + step * self._order.batch_size
        return [self._items.item(number) for number in range(first, first + self._order.batch_size)]

    def batch(self, step: int) -> Sequence[Referred]:
        return self._batches[step]

    def whole(self, batch: Sequence[Referred], size: int) -> Shared:
        return self._arithmetic.shared(batch, size)

    def part(self, items: Sequence[Referred], whole: Shared) -> Part:
        found = self._arithmetic.verdicts(items, whole, learning=True)
        tally = found.tally([one.item.value for one in items])
        if "kl" in self.measures:
            tally["kl"] = (whole.z0 * len(items), len(items))
        return Part(found.losses.sum() / whole.items, tally)

    def tokens(self, items: Sequence[Referred]) -> int:
        return sum(len(row.tokens) for one in items for row in one.item.rows)

    def found(self) -> Mapping[str, float]:
        return {}
