# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""The value head: one number a token, what the policy may still expect from there.

It reads what the output layer reads and stands beside the model, not in it, so that what is published has no trace of
it. Begins at zero, as in Huang et al., "The N Implementation Details of RLHF with PPO" (2023). Called by `model` and
`objectives.reader`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from shardwork.errors import InvalidInput

#: its parameter's name in checkpoints
VALUE = "value_head.weight"


def value_head(model: Any) -> nn.Linear:
    """Raises InvalidInput "model.no_output_layer"."""
    output = model.get_output_embeddings()
    if output is None:
        raise InvalidInput(
            "model.no_output_layer",
            "This architecture's output layer was not found, so it cannot have a value head.",
            next_step="Use grpo, which needs none, or a base of another architecture.",
            model_type=model.config.model_type,
        )
    head = nn.Linear(output.weight.shape[1], 1, bias=False, dtype=torch.float32)
    nn.init.zeros_(head.weight)
    return head


@contextmanager
def last_hidden(model: Any) -> Iterator[list[Tensor]]:
    """Collects, pass by pass, what the output layer reads: [rows, positions, width]."""
    caught: list[Tensor] = []

    def catch(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        caught.append(given[0])

    handle = model.get_output_embeddings().register_forward_pre_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()


def values_of(head: nn.Linear, hidden: Tensor) -> Tensor:
    """[..., width] -> [...], in fp32 also under autocast: returns are sums of many small rewards."""
    return (hidden.float() * head.weight[0]).sum(dim=-1)
