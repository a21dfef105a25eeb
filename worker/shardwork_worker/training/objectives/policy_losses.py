# pyright: standard
"""Losses of policies, number by number, and the order in which a shard takes its answers. Sources and the whole of each
loss are named in `policy`, which calls this."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from shardwork.recipes.objectives import PolicyObjective

from .rollouts import Answer

#: nats beyond which a ratio counts as at them, with no gradient. exp leaves fp32 at 88, where a loss that the clip
#: holds has a gradient of 0 x inf. As verl bounds both log-ratios (Sheng et al., arXiv 2409.19256: its functions
#: compute_policy_loss and kl_penalty). The clip leaves a better answer no gradient there anyway; for a worse one it is
#: a dual clip (Ye et al., arXiv 1912.09729) at e^20
FARTHEST = 20.0


def pass_order(seed: bytes, number: int, count: int) -> list[int]:
    """In which order pass `number` of a shard takes its answers."""
    key = hashlib.blake2b(seed + number.to_bytes(8, "big"), digest_size=16, person=b"minibatches").digest()
    order: list[int] = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big"))).permutation(count).tolist()
    return order


def ratio(apart: Tensor) -> Tensor:
    """pi / pi_old of log pi - log pi_old. Below, exp runs out into 0, and so does its gradient."""
    return apart.clamp(max=FARTHEST).exp()


def clipped_loss(ratios: Tensor, advantages: Tensor, wanted: PolicyObjective) -> tuple[Tensor, Tensor]:
    """Schulman et al. (arXiv 1707.06347), eq. 7, as a loss; and where the clip decided."""
    free = ratios * advantages
    held = ratios.clamp(1 - wanted.clip_low, 1 + wanted.clip_high) * advantages
    return -torch.min(free, held), (held < free).detach()


def k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """KL(pi || pi_ref) a token, unbiased and never negative: Schulman, "Approximating KL Divergence" (2020)."""
    apart = (reference - log_probs).clamp(max=FARTHEST)
    return apart.exp() - apart - 1


def value_errors(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half the squared error, of the value or of one that moved by at most `clip`, whichever is worse."""
    errors = (values - returns) ** 2
    if clip:
        near = torch.clamp(values, old - clip, old + clip)
        errors = torch.max(errors, (near - returns) ** 2)
    return 0.5 * errors


def is_own(answer: Answer, old: Tensor, drift: float) -> bool:
    """Whether it was drawn from this policy, by the mean over its tokens; what is no number is not."""
    return len(old) == 0 or float((old - answer.log_probs).abs().double().mean()) <= drift


def reward_of(answer: Answer, wanted: PolicyObjective) -> float:
    bound = wanted.reward_clip
    score = min(max(answer.score, -bound), bound) if bound else answer.score
    return score if answer.ended else score - wanted.unended_penalty


def with_score(rewards: Tensor, score: float) -> Tensor:
    """The answer's score comes with its last token."""
    if len(rewards):
        rewards[-1] += score
    return rewards
