"""Parameters that `ppo` and `grpo` share: how answers are drawn, what they are worth, how far the policy may go."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BeforeValidator, Field

from .orders import MOST_ROWS, RewardKind
from .tuned import SAFETY, TunedParams

#: the role of the reward model among a stage's `models`
REWARD = "reward"


def as_text(value: object) -> object:
    """Settings that a job file writes as a mapping, as the JSON that orders carry."""
    return json.dumps(value, sort_keys=True, allow_nan=False) if isinstance(value, dict) else value


Weight = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]


class PolicyParams(TunedParams):
    """What both may set."""

    answers: Annotated[int, Field(ge=1, le=64, description="answers drawn for each prompt")] = 4
    prompts_per_shard: Annotated[
        int, Field(ge=1, le=MOST_ROWS, description="prompts that a shard answers in a round")
    ] = 8
    rollout_batch_size: Annotated[
        int, Field(ge=1, le=MOST_ROWS, description="answers on the device at once while they are drawn")
    ] = 32
    temperature: Annotated[float, Field(gt=0, le=100, description="of drawing and learning")] = 1.0
    top_p: Annotated[
        float, Field(gt=0, le=1, description="below 1, what is learned from is not quite what was drawn")
    ] = 1.0
    max_new_tokens: Annotated[int, Field(ge=1, le=65_536, description="tokens of an answer at most")] = 64
    rewards: Annotated[
        dict[RewardKind, Weight],
        Field(
            default_factory=dict[RewardKind, float],
            description="rewards that code can verify, with their weights, e.g. {exact: 1.0, format: 0.2}",
        ),
    ]
    reward_settings: Annotated[
        str,
        BeforeValidator(as_text),
        Field(
            max_length=20_000,
            description="what such rewards need beside the row, by their names, e.g. {regex: {pattern: yes|no}}; a "
            "mapping, or the same as JSON",
        ),
    ] = ""
    safety: Annotated[bool, Field(description=SAFETY)] = True
    kl_coefficient: Annotated[
        float, Field(ge=0, le=100, description="price of leaving the reference, a nat a token")
    ] = 0.05
    kl_target: Annotated[
        float | None,
        Field(gt=0, le=1000, description="nats an answer: the coefficient follows it (Ziegler et al. 2019)"),
    ] = None
    kl_budget: Annotated[
        float | None,
        Field(
            gt=0,
            le=10_000,
            description="nats an answer: beyond, the stage ends; the best checkpoint known to be within is published",
        ),
    ] = None
    clip_low: Annotated[float, Field(ge=0, le=1, description="of the ratio, below 1")] = 0.2
    clip_high: Annotated[float, Field(ge=0, le=10, description="of the ratio, above 1")] = 0.2
    entropy_coefficient: Annotated[float, Field(ge=0, le=10, description="price of being sure")] = 0.0
    reward_clip: Annotated[float, Field(ge=0, le=10_000, description="rewards are cut to +- this; 0: not")] = 0.0
    unended_penalty: Annotated[
        float, Field(ge=0, le=10_000, description="taken from the reward of an answer that did not end by itself")
    ] = 0.0
