# pyright: standard
"""Whether a model keeps the rows of one sequence apart: known of its family, and tried before it learns from them.

A model that ignores where position ids begin anew would read each row as the rest of the one before, and nothing would
fail. Which families were tried is `shardwork.models.architectures`; here the model in hand is, because which
transformers a worker has is its own. Called by `learn`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shardwork.errors import InvalidInput
from shardwork.models.architectures import check_packable

from .batches import Row, collate, places
from .model import Built

#: tokens of each of the two rows that are tried
LENGTH = 8
#: how far logits may lie apart, as a share of the largest: rounding is some 1e-6 of it, another row far more
TOLERANCE = 1e-3


def check_packed(built: Built) -> None:
    """Raises InvalidInput "packing.family", and "packing.sees_neighbours" for a model that does not keep rows apart."""
    check_packable(str(built.config.model_type))
    if built.tuning.base_bits is not None:
        return  # a base in few bits rounds by what else is in the batch, which would look the same
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(built.vocabulary, (3, LENGTH), generator=draw)
    alone, behind_one, behind_other = (_logits(built, rows) for rows in (tokens[2:], tokens[[0, 2]], tokens[[1, 2]]))
    apart = max(float((alone - behind).abs().max()) for behind in (behind_one, behind_other))
    if not apart <= TOLERANCE * float(alone.abs().max()):
        raise InvalidInput(
            "packing.sees_neighbours",
            "This worker's model does not keep the rows of one sequence apart, so it can't learn from packed rows.",
            next_step="Leave params.packing out, or update transformers on this worker.",
            model_type=built.config.model_type,
        )


def _logits(built: Built, rows: Tensor) -> Tensor:
    """Of the last of `rows`, all in one sequence: fp32 [LENGTH, vocabulary]."""
    tokens = rows.flatten()
    positions = places(torch.arange(len(rows)) * LENGTH, len(tokens))
    batch = collate([Row(tokens=tokens, labels=tokens, positions=positions)], 0, built.device)
    with torch.inference_mode():
        found: Tensor = built.model(**batch.inputs(), use_cache=False).logits
    return found[0, -LENGTH:].float()
