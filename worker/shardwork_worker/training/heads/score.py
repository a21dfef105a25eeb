# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""The score head: one number a row, as transformers' sequence classification with one label has it.

Owns its first weights and the token that such a model takes for padding: it reads its score at the last token that is
none, so whoever pads otherwise reads it elsewhere. Called by `model`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

#: the module's name in every architecture that has one
SCORE = "score"
#: rewards of an untrained model differ by about this much from zero
FIRST_DEVIATION = 0.1


def draw_score(model: Any, seed: bytes) -> None:
    """First weights, from the seed alone: normal, as in Stiennon et al. (arXiv 2009.01325, appendix B), a tenth of
    theirs, so that a model begins without an opinion whatever its width."""
    weight = getattr(model, SCORE).weight
    number = int.from_bytes(hashlib.blake2b(seed, digest_size=8, person=b"score").digest(), "big") & (2**63 - 1)
    draw = torch.Generator().manual_seed(number)
    deviation = FIRST_DEVIATION / (weight.shape[1] + 1) ** 0.5
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=draw, dtype=torch.float32) * deviation)


def settle_padding(model: Any, base: Path) -> None:
    """The tokenizer's padding, which is what a user pads with; else the config's, the end of text, or token 0."""
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    config = model.config.get_text_config()
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    named = [tokenizer.pad_token_id, config.pad_token_id, tokenizer.eos_token_id, *ends, 0]
    chosen = next(token for token in named if token is not None and 0 <= token < vocabulary)
    config.pad_token_id = model.config.pad_token_id = chosen
