"""Objectives: what a learn shard minimises where it is not the next token. Part of its order; pure data.

Owns the closed set of losses with their constants and sources. The arithmetic is the worker's (`training/objectives`);
which one a stage takes is its recipe's (`alignment`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .order import Finite, Order

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class RewardObjective(Order):
    """A reward model from pairs: -log sigmoid(r(chosen) - r(rejected)) (Bradley and Terry 1952; Ouyang et al., arXiv
    2203.02155, eq. 1), or from scores of single answers: squared error."""

    kind: Literal["reward"] = "reward"
    data: Literal["pairs", "scores"] = "pairs"
    #: times the mean of (r(chosen) + r(rejected))^2: keeps rewards near zero (Eisenstein et al., arXiv 2312.09244)
    centre: Finite = 0.0


class PreferenceObjective(Order):
    """The policy learns from pairs, or from single answers with a label (kto), without a reward model."""

    kind: Literal["preference"] = "preference"
    #: sigmoid: DPO (Rafailov et al., arXiv 2305.18290, eq. 7); ipo (Azar et al., arXiv 2310.12036, eq. 17); kto
    #: (Ethayarajh et al., arXiv 2402.01306); orpo (Hong et al., arXiv 2403.07691), which needs no reference
    loss: Literal["sigmoid", "ipo", "kto", "orpo"] = "sigmoid"
    beta: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 0.1
    #: sigmoid: share of labels that are taken to be wrong (conservative DPO, Mitchell 2023)
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    #: kto: weights of wanted and unwanted answers
    desirable: Finite = 1.0
    undesirable: Finite = 1.0


class PolicyObjective(Order):
    """The policy learns from its own scored answers: PPO, GRPO or RLOO, all with the clipped objective of Schulman et
    al. (arXiv 1707.06347, eq. 7)."""

    kind: Literal["policy"] = "policy"
    #: where advantages come from. ppo: a value head and GAE (Schulman et al., arXiv 1506.02438, eq. 16); grpo: the
    #: answers of a group, less their mean and over their deviation (Shao et al., arXiv 2402.03300, 4.1.2); rloo: less
    #: the mean of the others (Ahmadian et al., arXiv 2402.14740, eq. 9)
    advantage: Literal["ppo", "grpo", "rloo"]
    #: answers of one prompt, that stand one after the other
    group: Annotated[int, Field(ge=1, le=256)]
    #: row i answers prompt first_prompt + i // group of the input `prompts`, modulo their number
    first_prompt: Annotated[int, Field(ge=0, lt=2**53)] = 0
    #: of the ratio, below and above 1
    clip_low: Share = 0.2
    clip_high: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.2
    #: times KL(policy || reference). grpo: added to the loss by the k3 estimate (Schulman 2020); ppo and rloo: taken
    #: from each token's (rloo: each answer's) reward by the k1 estimate (Ouyang et al., arXiv 2203.02155, eq. 2)
    kl_coefficient: Finite = 0.0
    #: what logits are divided by before everything, as when the answers were drawn
    temperature: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 1.0
    #: times the mean entropy of the policy, added to the objective
    entropy_coefficient: Finite = 0.0
    #: grpo: divide by the group's deviation; without it the loss is that of Dr. GRPO (Liu et al., arXiv 2503.20783)
    scale_by_deviation: bool = True
    #: how token losses become one: per answer then over answers, over all tokens (DAPO, Yu et al., arXiv 2503.14476),
    #: or over answers times the longest allowed (Dr. GRPO). rloo: an answer is one action, and its loss is one
    average: Literal["answers", "tokens", "constant"] = "tokens"
    #: longest answer, for average: constant
    max_new_tokens: Annotated[int, Field(ge=1, le=2**20)] = 1024
    #: ppo: GAE's discount and lambda; clip range (0: none) and weight of the value loss; advantages to mean 0 and
    #: deviation 1
    gamma: Share = 1.0
    lam: Share = 0.95
    value_clip: Finite = 0.2
    value_coefficient: Finite = 0.1
    whiten: bool = True
    #: answers whose log-probabilities, computed again, differ from those that came along by more than this a token in
    #: the mean are left out: they were not drawn from this policy
    drift: Finite = 0.05
    #: rewards are cut to +- this; 0: as they are
    reward_clip: Finite = 0.0
    #: taken from the reward of an answer that did not end by itself
    unended_penalty: Finite = 0.0


LearnObjective = Annotated[RewardObjective | PreferenceObjective | PolicyObjective, Field(discriminator="kind")]
