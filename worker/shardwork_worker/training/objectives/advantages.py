# pyright: standard
"""Advantages: how much better each token or answer was than expected. Plain arithmetic on the CPU, in float64.

Owns GAE, the group's and the leave-one-out measure, and whitening; knows no model. Called by `policy`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

#: keeps the advantages of a group that agrees finite, as in TRL
LEAST_DEVIATION = 1e-4
LEAST_VARIANCE = 1e-8


def generalised(rewards: Tensor, values: Tensor, gamma: float, lam: float) -> Tensor:
    """One answer's tokens: [tokens]. Schulman et al. (arXiv 1506.02438), eq. 16, as the recursion
    A_t = delta_t + gamma lambda A_(t+1) with delta_t = r_t + gamma V(s_(t+1)) - V(s_t) (eq. 10); after the last
    token nothing more is expected."""
    advantages = torch.zeros_like(rewards, dtype=torch.float64)
    later, after = 0.0, 0.0
    told, expected = rewards.double().tolist(), values.double().tolist()
    for place in range(len(told) - 1, -1, -1):
        delta = told[place] + gamma * after - expected[place]
        later = delta + gamma * lam * later
        after = expected[place]
        advantages[place] = later
    return advantages


def of_groups(rewards: Sequence[float], groups: Sequence[Hashable], *, scale: bool) -> list[float]:
    """Shao et al. (arXiv 2402.03300), 4.1.2: less the mean of the answers to the same prompt, over their deviation;
    without `scale` Liu et al. (arXiv 2503.20783), eq. 3 (Dr. GRPO). Zero for an answer that stands alone."""
    found = [0.0] * len(rewards)
    for members in _members(groups):
        if len(members) < 2:
            continue
        told = torch.tensor([rewards[member] for member in members], dtype=torch.float64)
        apart = told - told.mean()
        if scale:
            apart = apart / (told.std() + LEAST_DEVIATION)
        for member, value in zip(members, apart.tolist(), strict=True):
            found[member] = value
    return found


def leave_one_out(rewards: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """Ahmadian et al. (arXiv 2402.14740), eq. 9: less the mean of the *other* answers to the same prompt. Zero for an
    answer that stands alone."""
    found = [0.0] * len(rewards)
    for members in _members(groups):
        total = sum(rewards[member] for member in members)
        for member in members if len(members) > 1 else ():
            found[member] = rewards[member] - (total - rewards[member]) / (len(members) - 1)
    return found


def whitened(values: Sequence[Tensor]) -> list[Tensor]:
    """All tokens of all answers to mean 0 and deviation 1 (Huang et al., "The N Implementation Details of RLHF with
    PPO", 2023, detail 12). A single token becomes 0."""
    if not values:
        return []
    every = torch.cat(list(values)).double()
    if every.numel() < 2:
        return [torch.zeros_like(value, dtype=torch.float64) for value in values]
    return [(value.double() - every.mean()) * torch.rsqrt(every.var() + LEAST_VARIANCE) for value in values]


def explained_variance(returns: Tensor, values: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 where the values foresaw everything, 0 where a constant would do."""
    spread = float(returns.double().var(unbiased=False)) if returns.numel() else 0.0
    if spread == 0.0:
        return 0.0
    return 1 - float((returns.double() - values.double()).var(unbiased=False)) / spread


def _members(groups: Sequence[Hashable]) -> list[list[int]]:
    found: dict[Hashable, list[int]] = {}
    for number, group in enumerate(groups):
        found.setdefault(group, []).append(number)
    return list(found.values())
