# pyright: standard
"""Items: pairs of a wanted and an unwanted answer, or single answers with a score or a label, from prepared rows.

What `shardwork.recipes.prepare` writes: item i is row i, or rows 2i (chosen) and 2i + 1 (rejected); `values` says how
likely the chosen one is the better, or the score or label. Called by `item_learning` and `measured`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from shardwork.errors import Corrupt

from ..batches import Row, RowFile, TrainRows, read_index


@dataclass(frozen=True, slots=True)
class Item:
    """One or two rows of prompt and answer, labels on the answer."""

    rows: tuple[Row, ...]
    value: float


class Referred(NamedTuple):
    """An item with what its reference says: log-probability of each of its rows, and of kto's mismatched row."""

    item: Item
    reference: tuple[float, ...] = ()
    mismatched: Row | None = None
    mismatched_reference: float = 0.0


class Shared(NamedTuple):
    """What the items of a batch share: how many they are, kto's z0, and orpo's likelihood tokens an item."""

    items: int
    z0: float = 0.0
    tokens_an_item: float | None = None


class TrainItems:
    """Items of a `train` artifact by number, counted modulo their count. Raises Corrupt "rows.other_items"."""

    def __init__(self, rows: TrainRows, per_item: int) -> None:
        check_per_item(rows.rows_per_item, per_item)
        self._rows, self._per_item = rows, per_item
        self.pad_token_id = rows.pad_token_id

    def item(self, number: int) -> Item:
        first = (number % (len(self._rows) // self._per_item)) * self._per_item
        return Item(
            tuple(self._rows.row(first + place) for place in range(self._per_item)),
            self._rows.value(first, self._per_item),
        )


def eval_items(folder: Path, part: str, max_length: int, vocabulary: int, per_item: int) -> list[Item]:
    """Items of `selection` or `test` whose every answer has a label; empty when the file is not there."""
    path = folder / f"{part}.safetensors"
    if not path.exists():
        return []
    check_per_item(int(read_index(folder).get("rows_per_item", 1)), per_item)
    file = RowFile(path, max_length, vocabulary)
    items = [
        Item(tuple(file.row(first + place) for place in range(per_item)), file.value(first // per_item))
        for first in range(0, file.rows - per_item + 1, per_item)
    ]
    return [item for item in items if all(row.label_count for row in item.rows)]


def check_per_item(there: int, wanted: int) -> None:
    if there != wanted:
        sentence = "The prepared rows are not of the kind that the order learns from: pairs, or single answers."
        raise Corrupt("rows.other_items", sentence, rows_per_item=there, wanted=wanted)


def laid(items: Sequence[Item]) -> list[Row]:
    """All first rows, then all second ones: the order that TRL's collators use."""
    places = range(len(items[0].rows)) if items else range(0)
    return [item.rows[place] for place in places for item in items]
