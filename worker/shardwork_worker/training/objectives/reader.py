# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""What a model, or its base, says of given rows: log-probabilities of their labels, entropies, values, scores.

The one place where objectives touch the model. Labelled tokens lie flat, row after row, so that padding appears nowhere
in their arithmetic. Called by the objectives and `measured`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from shardwork.errors import InvalidInput
from shardwork.recipes.orders import Method, Precision

from ..batches import IGNORE, Batch, Row, collate
from ..device import autocast
from ..heads.value import last_hidden, values_of
from ..model import Built, from_weights


@dataclass(frozen=True, slots=True)
class Said:
    """Of the labelled tokens of some rows, flat: fp32 [tokens] each."""

    log_probs: Tensor
    #: labelled tokens of each row
    lengths: list[int]
    entropies: Tensor
    #: what the value head expects before each token; None without one
    values: Tensor | None

    def sums(self) -> Tensor:
        """Log-probability of each row's labels: [rows]."""
        return row_sums(self.log_probs, self.lengths)


def row_sums(flat: Tensor, lengths: Sequence[int]) -> Tensor:
    """[tokens] -> [rows]"""
    return torch.stack([part.sum() for part in flat.split(list(lengths))])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A model with the base that it came from."""

    built: Built
    base: Path
    from_scratch: bool
    precision: Precision
    pad_token_id: int

    def lay(self, rows: Sequence[Row], *, learning: bool) -> Batch:
        """Rows on the device. An adapter drops inputs only of rows that are learned from."""
        batch = collate(rows, self.pad_token_id, self.built.device)
        if self.built.dropping and learning:
            self.built.dropping.look_at(batch.input_ids, batch.attention_mask)
        elif self.built.dropping:
            self.built.dropping.look_away()
        return batch

    def say(self, rows: Sequence[Row], *, learning: bool, temperature: float = 1.0, entropy: bool = False) -> Said:
        """Log-probabilities under softmax(logits / temperature). Entropies have a gradient only if `entropy`."""
        batch = self.lay(rows, learning=learning)
        head = self.built.value
        nothing: AbstractContextManager[list[Tensor]] = nullcontext([])
        watching = last_hidden(self.built.model) if head is not None else nothing
        with watching as caught, autocast(self.built.device, self.precision):
            logits = self.built.model(**batch.inputs(), use_cache=False).logits
        labels = batch.labels[:, 1:]
        learned = labels.ne(IGNORE)
        spread = torch.log_softmax(logits[:, :-1][learned].float() / temperature, dim=-1)
        with nullcontext() if entropy else torch.no_grad():
            entropies = -(spread.exp() * spread).sum(dim=-1)
        return Said(
            log_probs=spread.gather(1, labels[learned].unsqueeze(1)).squeeze(1),
            lengths=learned.sum(dim=1).tolist(),
            entropies=entropies,
            values=values_of(head, caught[0][:, :-1][learned]) if head is not None else None,
        )

    def scores(self, rows: Sequence[Row], *, learning: bool) -> Tensor:
        """The score head's number for each row, fp32 [rows]."""
        batch = self.lay(rows, learning=learning)
        with autocast(self.built.device, self.precision):
            logits: Tensor = self.built.model(**batch.inputs(), use_cache=False).logits
        return logits.float().squeeze(-1)

    @contextmanager
    def as_the_base(self) -> Iterator[None]:
        """Inside, the model is its base as it lies: the reference of an objective. Learning weights come back after.

        Raises InvalidInput "objective.no_reference" for a model that began from random weights.
        """
        if self.from_scratch:
            raise InvalidInput(
                "objective.no_reference",
                "A model that was trained from scratch has no base to be compared with.",
                next_step="Use a base with weights.",
            )
        inside = self._without_adapter() if self.built.tuning.method is Method.LORA else self._with_base_weights()
        with inside:
            yield

    @contextmanager
    def _without_adapter(self) -> Iterator[None]:
        # PEFT marks every adapter weight as learning when it comes back, also a frozen A
        learning = {parameter: parameter.requires_grad for parameter in self.built.model.parameters()}
        try:
            with self.built.model.disable_adapter():
                yield
        finally:
            for parameter, wanted in learning.items():
                parameter.requires_grad_(wanted)

    @contextmanager
    def _with_base_weights(self) -> Iterator[None]:
        learning = self.built.trainable
        kept = {name: parameter.detach().to("cpu", copy=True) for name, parameter in learning.items()}
        theirs = dict(from_weights(self.base, {}).named_parameters())
        _copy({name: theirs[name] for name in learning if name in theirs}, learning)
        del theirs
        try:
            yield
        finally:
            _copy(kept, learning)


def _copy(weights: dict[str, Tensor], into: dict[str, torch.nn.Parameter]) -> None:
    with torch.no_grad():
        for name, values in weights.items():
            into[name].copy_(values)


def pieces(count: int, size: int) -> Iterator[slice]:
    """0 … count in runs of `size`."""
    return (slice(start, start + size) for start in range(0, count, size))
