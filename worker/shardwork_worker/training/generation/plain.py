# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""Models that nothing learns in: a language model as its folder lies, and a reward model.

Their parameters stay marked as learning: autocast then keeps their bf16 copies from one token to the next instead of
making them anew. Called by the trainer.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification

from shardwork.errors import InvalidInput
from shardwork.recipes.orders import Method, Tuning

from ..model import Built, build, check_config

AS_IT_LIES = Tuning(method=Method.FULL)
REWARD = Tuning(method=Method.FULL, head="score")


def plain(base: Path, tuning: Tuning, device: torch.device) -> Built:
    """Raises InvalidInput "model.*"."""
    if tuning is AS_IT_LIES:
        return build(base, tuning, from_scratch=False, seed=b"", device=device)
    check_config(base)
    model, report = AutoModelForSequenceClassification.from_pretrained(
        base,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    if report["missing_keys"] or model.config.num_labels != 1:
        raise InvalidInput("model.no_score", "no reward model")
    model.eval()
    model.to(device)
    return Built(model=model, trainable=dict(model.named_parameters()), device=device, tuning=tuning)
