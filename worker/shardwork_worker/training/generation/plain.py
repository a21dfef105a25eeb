# pyright: standard
"""Models that nothing learns in: a language model as its folder lies, and a reward model.

Their parameters stay marked as learning: autocast then keeps their bf16 copies from one token to the next instead of
making them anew. Called by the trainer.
"""

from __future__ import annotations

from pathlib import Path

import torch

from shardwork.errors import InvalidInput
from shardwork.models.folder import inspect_model
from shardwork.recipes.orders import Method, Tuning

from ..model import Built, build

AS_IT_LIES = Tuning(method=Method.FULL)
REWARD = Tuning(method=Method.FULL, head="score")


def plain(base: Path, tuning: Tuning, device: torch.device) -> Built:
    """Raises InvalidInput "model.*", "score.no_reward_model"."""
    if tuning is REWARD and not inspect_model(base, reward=True).scores:
        raise InvalidInput(
            "score.no_reward_model",
            "The model that is to score answers is a language model, and has no score.",
            next_step="Name the model of a reward stage: models: {reward: STAGE.model}.",
        )
    return build(base, tuning, from_scratch=False, seed=b"", device=device)
