"""Presets: their counted sizes are what transformers builds, and their names mean what they say."""

# pyright: standard

from __future__ import annotations

from typing import Any

import pytest

from shardwork.errors import InvalidInput
from shardwork.models.presets import PRESETS, check_preset, preset_config, preset_params


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_counted_as_transformers_counts_them(name: str) -> None:
    import torch
    import transformers

    library: Any = transformers
    config = preset_config(name, vocab_size=1000, context=128, eos_token_id=0, pad_token_id=1)
    with torch.device("meta"):
        model = library.AutoModelForCausalLM.from_config(library.AutoConfig.for_model(**config))
    assert preset_params(name, 1000) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "vocab", "size"),
    [("tiny-1m", 2048, 1.1e6), ("small-3m", 2048, 2.8e6), ("15m", 8192, 13.8e6), ("60m", 16384, 60e6),
     ("125m", 32768, 124e6), ("350m", 32768, 369e6), ("1b", 32768, 1.1e9)],
)  # fmt: skip
def test_names_tell_the_size_with_a_fitting_vocabulary(name: str, vocab: int, size: float) -> None:
    assert preset_params(name, vocab) == pytest.approx(size, rel=0.03)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="'tiny-1m'"):
        check_preset("tiny1m")


def test_the_context_grows_with_longer_rows() -> None:
    config = preset_config("tiny-1m", vocab_size=300, context=4096, eos_token_id=0, pad_token_id=1)
    assert config["max_position_embeddings"] == 4096
