# pyright: standard
"""Gradient checkpointing: each transformer block's inner values are computed again on the way back, not kept.

Costs about a third more arithmetic and keeps one hidden state a block instead of all that is inside (Chen et al., arXiv
1604.06174). transformers' own switch works in training mode alone, and a shard learns in evaluation mode, so blocks are
wrapped here. The numbers are the same bit by bit. Called by `learn`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from .blocks import blocks_of


@contextmanager
def recomputing(model: Any, wanted: bool) -> Iterator[None]:
    """Inside, blocks are computed twice if `wanted`. Raises InvalidInput "model.no_blocks" when none are found."""
    blocks = list(blocks_of(model)[0]) if wanted else []
    for block in blocks:
        # nothing is drawn from torch's generators, so their state need not be kept
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the class's own is seen again
