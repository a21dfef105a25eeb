# pyright: standard
"""How a model is asked for what comes next: rows padded on the left, a cache of what was read, and which arguments an
architecture takes.

Owns everything that differs between architectures here, so that what draws, scores and judges need not know. Padding
is masked and positions count from a row's own first token: what a row gets does not depend on its neighbours.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from shardwork.errors import InvalidInput

from ..micro import MicroBatch
from ..model import Built

#: what the argument is called for the states of what was read; its name has changed
CACHES = ("cache", "past_key_values", "cache_params")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lefts:
    """Rows side by side, their ends aligned."""

    ids: Tensor
    #: int64 as `ids`, 0 on padding; None: there is none
    mask: Tensor | None

    @classmethod
    def of(cls, rows: Sequence[np.ndarray[Any, Any]], pad_token_id: int, device: torch.device) -> Lefts:
        longest = max(len(row) for row in rows)
        ids = np.full((len(rows), longest), pad_token_id, np.int64)
        mask = np.zeros((len(rows), longest), np.int64)
        for number, row in enumerate(rows):
            ids[number, longest - len(row) :] = row
            mask[number, longest - len(row) :] = 1
        padded = None if mask.all() else torch.from_numpy(mask).to(device)
        return cls(torch.from_numpy(ids).to(device), padded)


class Asker:
    """A built model, asked for logits. Used inside `torch.inference_mode` and the order's autocast."""

    def __init__(self, built: Built) -> None:
        self._model = built.model
        inner = built.model.get_base_model() if hasattr(built.model, "get_base_model") else built.model
        self._config = inner.config
        takes = inspect.signature(inner.forward).parameters
        self._takes = frozenset(takes)
        self._cache = next((name for name in CACHES if name in takes), None)

    @property
    def reads_padded(self) -> bool:
        """Whether rows of different lengths can be read together."""
        return "attention_mask" in self._takes

    def bounded(self, micro: MicroBatch) -> MicroBatch:
        """One row at a time where padding can't be masked."""
        return micro if self.reads_padded else MicroBatch(micro.device, 1)

    def last(self, rows: Lefts, keep: int) -> Tensor:
        """Logits at the last `keep` positions: [rows, keep, vocabulary]."""
        logits: Tensor = self._ask(rows.ids, rows.mask, keep, use_cache=False).logits
        return logits[:, -keep:]

    def begin(self, rows: Lefts, repeats: Tensor) -> Decoding:
        """Reads prompts; row i goes on from prompt repeats[i]."""
        decoding = Decoding(self, rows.ids, rows.mask)
        if self._cache is None:
            decoding.select(repeats)
            decoding.logits = self.last(Lefts(decoding.ids, decoding.mask), 1)[:, -1]
            return decoding
        decoding.cache = DynamicCache(config=self._config)
        asked = self._ask(rows.ids, rows.mask, 1, use_cache=True, **{self._cache: decoding.cache})
        decoding.logits = asked.logits[:, -1]
        decoding.select(repeats)
        return decoding

    def go_on(self, decoding: Decoding, tokens: Tensor) -> Tensor:
        """Logits after one more token of each row: [rows, vocabulary]."""
        if self._cache is None:
            return self.last(Lefts(decoding.ids, decoding.mask), 1)[:, -1]
        # what a recurrent model keeps of a row is one state, in which padding has no place any more
        mask = None if all(getattr(decoding.cache, "is_linear", [False])) else decoding.mask
        more = {self._cache: decoding.cache}
        logits: Tensor = self._ask(tokens.unsqueeze(1), mask, 1, use_cache=True, **more).logits
        return logits[:, -1]

    def _ask(self, ids: Tensor, mask: Tensor | None, keep: int, **more: Any) -> Any:
        if mask is not None:
            more["attention_mask"] = mask
            if "position_ids" in self._takes:
                more["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if "logits_to_keep" in self._takes:
            more["logits_to_keep"] = keep
        return self._model(input_ids=ids, **more)


@dataclass(slots=True)
class Decoding:
    """Rows that are being written: what was read of each, and what may come next."""

    asker: Asker
    #: without a cache: all tokens so far
    ids: Tensor
    mask: Tensor | None
    cache: Any = None
    logits: Tensor = field(init=False)

    def feed(self, tokens: Tensor) -> None:
        """One more token a row: int64 [rows]."""
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        if self.cache is None:
            self.ids = torch.cat([self.ids, tokens.unsqueeze(1)], dim=1)
        self.logits = self.asker.go_on(self, tokens)

    def select(self, rows: Tensor) -> None:
        """Goes on with these rows, int64, in this order; one may come several times."""
        if self.mask is not None:
            self.mask = self.mask.index_select(0, rows)
        if self.cache is None:
            self.ids = self.ids.index_select(0, rows)
        else:
            self.logits = self.logits.index_select(0, rows)
            self.cache.reorder_cache(rows)


def in_batches(
    rows: Iterable[int],
    length: Callable[[int], int],
    micro: MicroBatch,
    take: Callable[[Sequence[int]], Sequence[T]],
    tell: Callable[[float], None],
) -> dict[int, T]:
    """What `take` gives for each row, longest first, so that memory runs out at once or never."""
    order = sorted(rows, key=lambda row: -length(row))
    found: dict[int, T] = {}

    def some(size: int) -> dict[int, T]:
        these = order[len(found) : len(found) + size]
        return dict(zip(these, take(these), strict=True))

    while len(found) < len(order):
        found |= micro.fitting(some, lambda: None, lambda failed: failed)
        tell(len(found) / len(order))
    return found


def check_finite(numbers: np.ndarray[Any, Any]) -> None:
    """Raises InvalidInput "generation.not_finite"."""
    if not np.isfinite(numbers).all():
        raise InvalidInput(
            "generation.not_finite",
            "What the model says is no finite number.",
            next_step="Look whether the model's weights are whole: it may have diverged while it learned.",
        )
