"""TokenRows: rows of tokens with their labels in flat arrays, and what an index says about them.

Owns the arrays that become an artifact's tensors. Filled and written by `prepare` and `alignment.phases.pairs`.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..dataset.tokenise import Encoded, RowTokenizer
from .orders import PrepareOrder

#: a file of rows; even, so that no pair lies in two
ROWS_PER_FILE = 4096


@dataclass(slots=True)
class TokenRows:
    """Rows of tokens in flat arrays: a row costs its tokens and a few bytes, however many rows there are."""

    tokens: array[int] = field(default_factory=lambda: array("i"))
    mask: bytearray = field(default_factory=bytearray)
    offsets: array[int] = field(default_factory=lambda: array("q", [0]))
    #: 16 bytes a row, equal for equal rows and for the pieces of one
    digests: list[bytes] = field(default_factory=list[bytes])
    #: how often each row is read in one pass
    times: array[int] = field(default_factory=lambda: array("H"))
    #: 1 for a row of its own and for the first piece of a split one
    heads: bytearray = field(default_factory=bytearray)
    format: str = ""
    truncated: int = 0
    split: int = 0
    #: rows without a label, rows that are too long, and rows equal to a held-out one
    dropped: int = 0

    @property
    def rows(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def loss_tokens(self) -> int:
        """Labels that count: the first token of a row is never predicted."""
        mask = np.frombuffer(self.mask, np.uint8)
        firsts = np.frombuffer(self.offsets, np.int64)[:-1]
        return int(mask.sum()) - int(mask[firsts].sum()) if self.rows else 0

    def add(self, item: Encoded, digest: bytes, times: int = 1, *, is_head: bool = True) -> None:
        self.tokens.extend(item.tokens)
        self.mask += item.mask
        self.offsets.append(len(self.tokens))
        self.digests.append(digest)
        self.times.append(times)
        self.heads.append(is_head)

    def pick(self, positions: Sequence[int]) -> dict[str, npt.NDArray[np.generic]]:
        """Tensors of these rows in this order: tokens int32 [n], mask uint8 [n], offsets int64 [rows + 1]."""
        tokens, mask = np.frombuffer(self.tokens, np.int32), np.frombuffer(self.mask, np.uint8)
        spans = [(self.offsets[position], self.offsets[position + 1]) for position in positions]
        lengths = np.array([end - begin for begin, end in spans], np.int64)
        return {
            "tokens": np.concatenate([tokens[begin:end] for begin, end in spans]),
            "mask": np.concatenate([mask[begin:end] for begin, end in spans]),
            "offsets": np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
        }

    def packed(self, sequences: Sequence[Sequence[int]]) -> dict[str, npt.NDArray[np.generic]]:
        """As `pick`, a sequence in a row's place, and `begins` int64: where each of their rows begins in `tokens`."""
        tensors = self.pick([position for sequence in sequences for position in sequence])
        firsts = np.cumsum([0, *(len(sequence) for sequence in sequences)], dtype=np.int64)
        return {**tensors, "offsets": tensors["offsets"][firsts], "begins": tensors["offsets"][:-1]}

    def select(self, positions: Sequence[int]) -> TokenRows:
        """A copy with only these rows, in this order."""
        chosen = TokenRows(format=self.format, truncated=self.truncated, split=self.split, dropped=self.dropped)
        for position in positions:
            begin, end = self.offsets[position], self.offsets[position + 1]
            chosen.tokens.extend(self.tokens[begin:end])
            chosen.mask += self.mask[begin:end]
            chosen.offsets.append(len(chosen.tokens))
            chosen.digests.append(self.digests[position])
            chosen.times.append(self.times[position])
            chosen.heads.append(self.heads[position])
        return chosen

    def documents(self) -> list[range]:
        """The rows of each document, in order: one, or the pieces of one that was split."""
        begins = [position for position, is_head in enumerate(self.heads) if is_head]
        return [range(begin, end) for begin, end in pairwise([*begins, self.rows])]

    def positions(self) -> list[int]:
        """Every row as often as it is read in one pass."""
        return [position for position in range(self.rows) for _ in range(self.times[position])]


@dataclass(frozen=True, slots=True)
class Facts:
    """What index.json says beside the counts."""

    order: PrepareOrder
    tokenizer: RowTokenizer

    def index(self, rows: TokenRows, files: Sequence[tuple[str, int]], **more: int) -> str:
        value = {
            **more,
            "rows": sum(count for _, count in files),
            "rows_per_file": ROWS_PER_FILE,
            "tokens": rows.num_tokens,
            "loss_tokens": rows.loss_tokens,
            "max_length": self.order.max_length,
            "format": str(rows.format),
            "truncated_rows": rows.truncated,
            "split_rows": rows.split,
            "files": [{"name": name, "rows": count} for name, count in files],
            "eos_token_id": self.tokenizer.eos_token_id,
            "pad_token_id": self.tokenizer.pad_token_id,
        }
        return json.dumps(value, indent=2, sort_keys=True) + "\n"
