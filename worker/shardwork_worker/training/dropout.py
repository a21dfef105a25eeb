# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""Dropout of an adapter's inputs that is the same on every device and however a batch is cut.

A shard must give the same bytes when it is run again, on any worker, also when memory made it take smaller
micro-batches; torch's own dropout draws from the device's generator in the order of calls. Here whether a value is
dropped is a hash of the shard's seed, the step, the row's own tokens, the layer, the position and the feature, in whole
numbers, which every device computes alike. Off unless `learn` is inside `Dropping.during`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from shardwork.errors import InvalidInput

_32_BITS = 0xFFFFFFFF
#: a 32-bit finaliser whose constants lie below 2^31, so that no product leaves 63 bits (Wellons, hash-prospector)
_MIX = ((16, 0x21F0AAAD), (15, 0x735A2D97))


class Dropping:
    """Turns the dropout of one model on and off, and knows which rows are on the device."""

    def __init__(self) -> None:
        #: int64 [rows], 32 bits each; None: nothing is dropped
        self.rows: Tensor | None = None
        #: tokens of each of them
        self.positions = 0
        #: of the step that is being taken
        self.step = 0
        self._seed = b""
        self._layers: list[Any] = []

    @classmethod
    def of(cls, model: Any, share: float) -> Dropping:
        """Puts it in the place of every adapter's dropout."""
        made = cls()
        for name, module in model.named_modules():
            if isinstance(module, LoraLayer):
                for adapter in module.lora_dropout:
                    module.lora_dropout[adapter] = RowDropout(made, share, _key(b"layer", name.encode()))
                made._layers.append(module)
        return made

    @contextmanager
    def during(self, seed: bytes) -> Iterator[None]:
        """Values are dropped inside; `step` is 0 at first, and to be raised after each step."""
        self._seed, self.step = seed, 0
        for layer in self._layers:
            layer.training = True  # the layer's own flag only: PEFT's DoRA skips dropout without it
        try:
            yield
        finally:
            self._seed, self.rows = b"", None
            for layer in self._layers:
                layer.training = False

    def look_at(self, tokens: Tensor, seen: Tensor) -> None:
        """Before the model reads them: rows int64 [rows, positions], and 0 in `seen` where there is padding."""
        if not self._seed:
            return
        places = torch.arange(tokens.shape[1], device=tokens.device)
        # padding counts nothing: how long it is depends on the other rows of the micro-batch
        marks = _mixed((tokens ^ _mixed(places + 1)) & _32_BITS) * seen
        step = _key(self._seed, b"step %d" % self.step)
        self.rows, self.positions = _mixed((marks.sum(dim=1) & _32_BITS) ^ step), tokens.shape[1]

    def look_away(self) -> None:
        """Before the model reads rows that nothing is to be dropped of."""
        self.rows = None


class RowDropout(nn.Module):
    """Zeroes a share of [rows, positions, features] and scales the rest up, as nn.Dropout does.

    Some models (OPT) lay rows and positions into one before a layer: [rows x positions, features].
    """

    def __init__(self, dropping: Dropping, share: float, key: int) -> None:
        super().__init__()
        self._dropping, self._share, self._key = dropping, share, key

    def forward(self, values: Tensor) -> Tensor:
        rows = self._dropping.rows
        if rows is None:
            return values
        if values.dim() == 2 and values.shape[0] == rows.shape[0] * self._dropping.positions:
            return self.forward(values.view(rows.shape[0], self._dropping.positions, -1)).view(values.shape)
        if values.dim() != 3 or values.shape[0] != rows.shape[0]:
            sentence = "An adapted layer of this model mixes rows, so dropout cannot be repeated there."
            raise InvalidInput("model.dropout", sentence, next_step="Leave dropout at 0.")
        _, positions, features = values.shape
        places = torch.arange(positions * features, device=values.device).view(1, positions, features)
        drawn = _mixed(_mixed((places + rows.view(-1, 1, 1)) & _32_BITS) ^ self._key)
        kept = drawn >= int(self._share * 2**32)
        return values * kept / (1 - self._share)


def _mixed(values: Tensor) -> Tensor:
    """A bijection of 32-bit whole numbers in int64 that looks like chance."""
    for shift, factor in _MIX:
        values = ((values ^ (values >> shift)) * factor) & _32_BITS
    return values ^ (values >> 15)


def _key(*parts: bytes) -> int:
    """32 bits of a hash."""
    return int.from_bytes(hashlib.blake2b(b"\0".join(parts), digest_size=4).digest(), "big")
