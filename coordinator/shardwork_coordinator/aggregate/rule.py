"""The interface of an aggregation rule, and the evidence it judges by. Implementations are stateless."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from shardwork.tensors.encoding import F32


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of the deltas that passed the gates, by delta number."""

    #: L2 norm of the whole delta
    norms: Mapping[int, float]
    #: to the coordinate median of all of them, on sampled blocks; 0 where a norm is zero
    cosines: Mapping[int, float]


class Rule(Protocol):
    name: ClassVar[str]

    def screen(self, evidence: Evidence) -> Mapping[int, str]:
        """Delta number -> a word for why it is left out of the mean."""
        ...

    def combine(self, pieces: Iterable[F32], weights: Sequence[float], out: F32) -> None:
        """Combines the kept deltas' values of one piece into `out`. Weights sum to one.

        Each piece is scratch: it may be overwritten, and is gone when the next one is taken.
        """
        ...
