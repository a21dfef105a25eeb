"""Outer steps: the ways in which the mean delta may move the weights, offered to evaluation as candidates.

g is the weighted mean of the shards' deltas (a pseudo-gradient, DiLoCo, arXiv 2311.08105, section 2). Which step is
best depends on the regime and the wrong one is ruinous (design: training), so evaluation chooses each round.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

import numpy as np

from shardwork.errors import InvalidInput
from shardwork.tensors.encoding import F32

MOMENTUM = np.float32(0.9)
NESTEROV_RATE = np.float32(0.7)

#: (g, new momentum) -> what is subtracted from the weights
Change = Callable[[F32, F32], F32]

CANDIDATES: dict[str, Change] = {
    "mean": lambda g, momentum: g,
    "nesterov": lambda g, momentum: NESTEROV_RATE * (g + MOMENTUM * momentum),
    "mean1.5": lambda g, momentum: np.float32(1.5) * g,
    "mean2": lambda g, momentum: np.float32(2) * g,
}


def new_momentum(momentum: F32, g: F32) -> F32:
    """Accumulates whichever candidate wins, so that a later round may turn to Nesterov."""
    return MOMENTUM * momentum + g


def candidate_named(name: str) -> Change:
    """Raises InvalidInput "aggregate.unknown_candidate" naming the nearest one."""
    if name in CANDIDATES:
        return CANDIDATES[name]
    nearest = difflib.get_close_matches(name, CANDIDATES, n=1)
    hint = f"Did you mean {nearest[0]!r}?" if nearest else f"Known candidates: {', '.join(sorted(CANDIDATES))}."
    raise InvalidInput("aggregate.unknown_candidate", f"There is no outer step called {name!r}.", next_step=hint)
