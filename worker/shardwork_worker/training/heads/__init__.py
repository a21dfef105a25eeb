"""Heads: what stands on a causal language model's last hidden state beside or in place of its output layer."""

from __future__ import annotations


def is_head(parameter: str) -> bool:
    """Whether it belongs to a head: what a stage that continues from another may have, and the other not."""
    return parameter == "value_head.weight" or parameter == "score.weight" or parameter.endswith(".score.weight")
