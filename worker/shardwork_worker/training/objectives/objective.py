# pyright: standard
"""What the inner loop asks of an objective: the items of each step, and the loss of some as a part of the whole.

A batch may be cut into parts of any size and spread over devices: `part` is normalised by what `whole` found of the
whole batch, so parts add up to the batch's loss. Implemented by `loop` (the next token), `reward`, `preference` and
`policy`; called by `loop` and `learn`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

#: sums and counts by the names of what was measured; a mean is sum over count
Tally = dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a batch's loss in nats, with its graph, and what was seen on the way."""

    loss: Tensor
    tally: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])


class Objective(Protocol):
    """One shard's. Items are whatever it counts in: rows, pairs, answers."""

    #: what `part` tallies, always all of it
    measures: tuple[str, ...]

    def prepare(self, size: int) -> None:
        """Before the first step, with the checkpoint's weights in place; `size` items on the device at once. May be
        called again when memory ran out."""
        ...

    def batch(self, step: int) -> Sequence[Any]:
        """The items of the step's whole batch."""
        ...

    def whole(self, batch: Sequence[Any], size: int) -> Any:
        """What the parts of a batch share: by what they are normalised."""
        ...

    def part(self, items: Sequence[Any], whole: Any) -> Part:
        """The loss of some of the batch's items."""
        ...

    def tokens(self, items: Sequence[Any]) -> int:
        """Tokens that the items hold, padding not included."""
        ...

    def found(self) -> Mapping[str, float]:
        """What `prepare` found, by the names of metrics."""
        ...


def added(tallies: Sequence[Mapping[str, tuple[float, float]]], names: Sequence[str]) -> Tally:
    """Sums and counts over several parts or steps."""
    return {
        name: (
            sum(tally[name][0] for tally in tallies if name in tally),
            sum(tally[name][1] for tally in tallies if name in tally),
        )
        for name in names
    }


def means(tally: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    return {name: total / count for name, (total, count) in tally.items() if count}
