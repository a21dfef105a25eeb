# pyright: standard
"""Verdicts: what an objective makes of some items, and how good its opinions of pairs are.

Called by `reward`, `preference` and `measured`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .objective import Tally

#: of the calibration error (Guo et al., arXiv 1706.04599, eq. 3)
BINS = 10


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Of some items: each one's loss, and of pairs the log-odds that the chosen answer is the better one."""

    losses: Tensor
    logits: Tensor | None = None

    def tally(self, values: Sequence[float]) -> Tally:
        """accuracy and margin of pairs."""
        if self.logits is None:
            return {}
        logits = self.logits.detach().double().tolist()
        right = sum(agreement(logit, value) for logit, value in zip(logits, values, strict=True))
        return {"accuracy": (right, len(logits)), "margin": (sum(logits), len(logits))}


def bradley_terry(logits: Tensor, values: Tensor) -> Tensor:
    """-log sigmoid of the margin, in expectation over which answer is the better one: the chosen with probability
    `values` (Bradley and Terry 1952)."""
    return -(values * logsigmoid(logits) + (1 - values) * logsigmoid(-logits))


def agreement(logit: float, value: float) -> float:
    """The probability that the model's choice is the one of somebody who prefers the chosen with probability
    `value`; a model without an opinion agrees by half."""
    return 0.5 if logit == 0 else value if logit > 0 else 1 - value


def accuracy(logits: Sequence[float], values: Sequence[float]) -> float:
    return sum(agreement(logit, value) for logit, value in zip(logits, values, strict=True)) / len(logits)


def calibration_error(logits: Sequence[float], values: Sequence[float]) -> float:
    """Expected calibration error: how far confidence lies from accuracy, on average over bins of confidence."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for logit, value in zip(logits, values, strict=True):
        confidence = 1 / (1 + math.exp(-min(abs(logit), 700)))
        bins.setdefault(min(int(confidence * BINS), BINS - 1), []).append((confidence, agreement(logit, value)))
    apart = sum(abs(sum(sure - right for sure, right in these)) for these in bins.values())
    return apart / len(logits)


def values_of(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)
