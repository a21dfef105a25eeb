"""Outer steps: the ways in which the mean delta may move the weights, offered to evaluation as candidates.

g is the weighted mean of the shards' deltas (a pseudo-gradient, DiLoCo, arXiv 2311.08105, section 2). Which step is
best depends on the regime and the wrong one is ruinous (design: training), so evaluation chooses each round. What they
need of the rounds before is kept in two sums of g, whichever candidate won.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

import numpy as np

from shardwork.errors import InvalidInput
from shardwork.tensors.encoding import F32

MOMENTUM = np.float32(0.9)
NESTEROV_RATE = np.float32(0.7)
#: share that a round counts of the one after it, in the average that `settled` takes
RECENT = np.float32(0.5)

#: sums of g over the rounds so far, and what each falls by a round: sum = decay * sum + g
SUMS: Mapping[str, np.float32] = {"momentum": MOMENTUM, "recent": RECENT}

#: (g, sums with this round in them) -> what is subtracted from the weights
Change = Callable[[F32, Mapping[str, F32]], F32]

CANDIDATES: dict[str, Change] = {
    "mean": lambda g, sums: g,
    "nesterov": lambda g, sums: NESTEROV_RATE * (g + MOMENTUM * sums["momentum"]),
    "mean1.5": lambda g, sums: np.float32(1.5) * g,
    "mean2": lambda g, sums: np.float32(2) * g,
    # the weights of the last rounds, averaged: 1/2 of the newest, 1/4 of those before, ... (as LAWA averages the latest
    # checkpoints, arXiv 2209.14981)
    "settled": lambda g, sums: g - RECENT * sums["recent"],
}


def candidate_named(name: str) -> Change:
    """Raises InvalidInput "aggregate.unknown_candidate" naming the nearest one."""
    if name in CANDIDATES:
        return CANDIDATES[name]
    nearest = difflib.get_close_matches(name, CANDIDATES, n=1)
    hint = f"Did you mean {nearest[0]!r}?" if nearest else f"Known candidates: {', '.join(sorted(CANDIDATES))}."
    raise InvalidInput("aggregate.unknown_candidate", f"There is no outer step called {name!r}.", next_step=hint)
