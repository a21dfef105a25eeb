# pyright: standard
"""Prepared rows: reading them by number from their files, and laying them side by side as a padded batch.

Only the files that hold asked-for rows are opened. The format is written by `shardwork.recipes.prepare`:
`index.json` and safetensors with `tokens`, `mask` (1 = this token is a label) and `offsets`. Of packed rows there is
`begins` as well, and what is a row here is a sequence of them: position ids begin anew at each, by which the model
keeps them apart (`packed` proves it), and nothing is predicted across their borders.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shardwork.errors import Corrupt, InvalidInput, ShardworkError
from shardwork.tensors.file import open_tensors

#: labels with this value count for nothing (torch's cross entropy and transformers use the same)
IGNORE = -100


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence: `tokens` int64 [n] and `labels` int64 [n], IGNORE where nothing is to be predicted.

    `positions` int64 [n]: of packed rows, each token's place in its own row.
    """

    tokens: Tensor
    labels: Tensor
    positions: Tensor | None = None

    @property
    def label_count(self) -> int:
        return int(self.labels.ne(IGNORE).sum())


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows padded on the right to the longest of them: int64 [rows, longest] each."""

    input_ids: Tensor
    #: 0 for padding
    attention_mask: Tensor
    labels: Tensor
    #: of packed rows only
    position_ids: Tensor | None = None

    def inputs(self) -> dict[str, Tensor]:
        """What the model is given. Packed: transformers finds the rows in the position ids, if there is no mask."""
        if self.position_ids is None:
            return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return {"input_ids": self.input_ids, "position_ids": self.position_ids}


class RowFile:
    """One open file of rows; the kernel reads in the pages that are asked for.

    Raises Corrupt "rows.unreadable", and "rows.token_out_of_range" for a row whose tokens the model lacks.
    """

    def __init__(self, path: Path, max_length: int, vocabulary: int, *, packed: bool = False) -> None:
        try:
            tensors = open_tensors(path)
            self._tokens, self._mask = tensors["tokens"], tensors["mask"]
            self._offsets: list[int] = tensors["offsets"].tolist()
            self._begins: list[int] | None = tensors["begins"].tolist() if "begins" in tensors else None
            self._values: list[float] | None = tensors["values"].tolist() if "values" in tensors else None
        except (OSError, KeyError, ShardworkError) as error:
            raise Corrupt("rows.unreadable", "A file of prepared rows cannot be read.", file=path.name) from error
        ends = [0, *self._offsets, min(self._tokens.size, self._mask.size)]
        if not self._offsets or any(start > end for start, end in pairwise(ends)):
            raise Corrupt("rows.unreadable", "A file of prepared rows has offsets that do not rise.", file=path.name)
        self._name, self._max_length, self._vocabulary = path.name, max_length, vocabulary
        self.rows = len(self._offsets) - 1
        if packed is not (self._begins is not None):
            sentence = "Rows were packed and the order takes them one by one, or the other way round."
            raise Corrupt("rows.unreadable", sentence, file=path.name, packed=packed)
        if self._begins is not None and not _rise_with(self._begins, self._offsets):
            raise Corrupt("rows.unreadable", "A file of packed rows has borders that do not rise.", file=path.name)

    def row(self, number: int) -> Row:
        start = self._offsets[number]
        end = min(self._offsets[number + 1], start + self._max_length)
        tokens = torch.from_numpy(self._tokens[start:end].astype(np.int64))
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self._vocabulary:
            # a GPU would answer with an error that poisons the whole process
            sentence = "A prepared row holds a token that the model's vocabulary lacks."
            raise Corrupt("rows.token_out_of_range", sentence, file=self._name, row=number, vocabulary=self._vocabulary)
        labels = tokens.masked_fill(torch.from_numpy(self._mask[start:end] == 0), IGNORE)
        labels[:1] = IGNORE  # nothing comes before a row's first token that could predict it
        if self._begins is None:
            return Row(tokens=tokens, labels=labels)
        within = self._begins[bisect_left(self._begins, start) : bisect_left(self._begins, end)]
        firsts = torch.tensor(within, dtype=torch.int64) - start
        labels[firsts] = IGNORE
        return Row(tokens=tokens, labels=labels, positions=places(firsts, len(tokens)))

    def value(self, item: int) -> float:
        """What is known of an item of one or two rows; 1 where nothing is told. Raises Corrupt "rows.bad_value"."""
        value = 1.0 if self._values is None else self._values[item] if item < len(self._values) else math.nan
        if not math.isfinite(value):
            sentence = "A score or label among the prepared rows is missing or not a finite number."
            raise Corrupt("rows.bad_value", sentence, file=self._name, item=item)
        return value


class TrainRows:
    """The rows of a `train` artifact by number, counted modulo their count."""

    def __init__(self, folder: Path, max_length: int, vocabulary: int, *, packed: bool = False) -> None:
        self._folder, self._max_length, self._vocabulary, self._packed = folder, max_length, vocabulary, packed
        index = read_index(folder)
        try:
            self._names = [Path(file["name"]).name for file in index["files"]]  # in this folder, whatever it says
            self._ends = list(accumulate(max(0, int(file["rows"])) for file in index["files"]))
        except (KeyError, TypeError, ValueError) as error:
            raise Corrupt("rows.no_index", "The index of the prepared rows does not name their files.") from error
        self._open: tuple[int, RowFile] | None = None
        self.pad_token_id = pad_token(index, vocabulary)
        self.rows_per_item = int(index.get("rows_per_item", 1))
        if not self._ends or self._ends[-1] == 0:
            raise InvalidInput(
                "rows.none",
                "There is no row to train on.",
                next_step="Look what is learned of each row with:  shardwork data check FILE --base-model DIR",
            )

    def __len__(self) -> int:
        return self._ends[-1]

    def row(self, number: int) -> Row:
        file, within = self._file_of(number % len(self))
        return file.row(within)

    def value(self, row: int, rows_per_item: int) -> float:
        """Of the item that begins with this row."""
        file, within = self._file_of(row % len(self))
        return file.value(within // rows_per_item)

    def _file_of(self, number: int) -> tuple[RowFile, int]:
        """The file that holds row `number`, and the row's place in it."""
        which = bisect_right(self._ends, number)
        if self._open is None or self._open[0] != which:
            # one file at a time: rows are read in stored order
            path = self._folder / self._names[which]
            self._open = (which, RowFile(path, self._max_length, self._vocabulary, packed=self._packed))
        first = self._ends[which - 1] if which else 0
        if self._open[1].rows != self._ends[which] - first:
            sentence = "A file of prepared rows holds another number of rows than their index says."
            raise Corrupt("rows.unreadable", sentence, file=self._names[which])
        return self._open[1], number - first


def eval_rows(folder: Path, part: str, max_length: int, vocabulary: int) -> list[Row]:
    """Rows of `selection` or `test` that have at least one label; empty when the file is not there."""
    path = folder / f"{part}.safetensors"
    if not path.exists():
        return []
    file = RowFile(path, max_length, vocabulary)
    rows = (file.row(number) for number in range(file.rows))
    return [row for row in rows if row.label_count]


def pad_token(index: Mapping[str, Any], vocabulary: int) -> int:
    """What rows are filled up with. Any token serves, and a tokenizer may name one that its model has no row for."""
    named = index.get("pad_token_id")
    return named if isinstance(named, int) and 0 <= named < vocabulary else 0


def read_index(folder: Path) -> dict[str, Any]:
    """The artifact's index.json. Raises Corrupt "rows.no_index"."""
    try:
        return dict(json.loads((folder / "index.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise Corrupt("rows.no_index", "The prepared rows have no readable index.json.") from error


def places(firsts: Tensor, length: int) -> Tensor:
    """0, 1, 2 … anew from each of `firsts`, of which the first is 0: int64 [length]."""
    begins = torch.zeros(length, dtype=torch.int64)
    begins[firsts] = firsts
    return torch.arange(length) - begins.cummax(dim=0).values


def _rise_with(begins: Sequence[int], offsets: Sequence[int]) -> bool:
    """Whether row borders rise and every sequence begins at one."""
    rising = all(one < other for one, other in pairwise(begins))
    return rising and bool(begins) and begins[-1] < offsets[-1] and set(begins) >= set(offsets[:-1])


def collate(rows: Sequence[Row], pad_token_id: int, device: torch.device) -> Batch:
    """Side by side, padded on the right. Padding is neither attended to nor predicted; after packed rows it is one more
    row."""
    longest = max(1, *(len(row.tokens) for row in rows))
    input_ids = torch.full((len(rows), longest), pad_token_id, dtype=torch.int64)
    attention_mask = torch.zeros((len(rows), longest), dtype=torch.int64)
    labels = torch.full((len(rows), longest), IGNORE, dtype=torch.int64)
    for number, row in enumerate(rows):
        length = len(row.tokens)
        input_ids[number, :length] = row.tokens
        attention_mask[number, :length] = 1
        labels[number, :length] = row.labels
    batch = Batch(input_ids.to(device), attention_mask.to(device), labels.to(device))
    if all(row.positions is None for row in rows):
        return batch
    position_ids = torch.zeros((len(rows), longest), dtype=torch.int64)
    for number, row in enumerate(rows):
        assert row.positions is not None
        position_ids[number] = torch.cat([row.positions, torch.arange(longest - len(row.positions))])
    return replace(batch, position_ids=position_ids.to(device))
