"""The interface of an aggregation rule, and the evidence it judges by. Implementations are stateless."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from shardwork.tensors.encoding import F32

#: share of hostile deltas that the rules with a design limit are set for (reference: reliability-security 4.3)
HOSTILE_SHARE = 0.2
#: below, no rule can tell who is the outlier: the weighted mean, after the gates
JUDGE_FROM = 4

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of the deltas that passed the gates, by delta number."""

    #: L2 norm of the whole delta
    norms: Mapping[int, float]
    #: to the coordinate median of all of them, on sampled blocks; 0 where a norm is zero
    cosines: Mapping[int, float]
    #: inner products of all pairs, over all elements, in the order of `norms`; None unless the rule asks for them
    products: Matrix | None = None


class Rule(Protocol):
    name: ClassVar[str]
    #: needs `Evidence.products`, which costs one more pass over all deltas
    needs_products: ClassVar[bool]
    #: needs all deltas' values of a piece at the same time: pieces get smaller, so that memory does not grow
    holds_all: ClassVar[bool]

    def screen(self, evidence: Evidence) -> Mapping[int, str]:
        """Delta number -> a word for why it is left out of the mean."""
        ...

    def coefficients(self, evidence: Evidence, weights: Mapping[int, float]) -> Mapping[int, float]:
        """How much of each kept delta is in the combined one. `weights` (of the kept, summing to one) count for the
        moments as they are; what is returned here may sum to less."""
        ...

    def combine(self, pieces: Iterable[F32], weights: Sequence[float], out: F32) -> None:
        """Combines the kept deltas' values of one piece into `out`.

        Each piece is scratch: it may be overwritten, and is gone when the next one is taken.
        """
        ...


def hostile(count: int, *, least_honest: int) -> int:
    """How many of `count` deltas a rule counts with: a fifth, rounded up, but so few that `least_honest` + as many
    again remain."""
    return max(0, min(-int(-count * HOSTILE_SHARE // 1), (count - least_honest) // 2))
