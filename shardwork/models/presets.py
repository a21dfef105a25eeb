"""Named sizes for pre-training from scratch: Llama-style shapes whose parameters are counted from the config.

Owns the shapes and the config.json that carries them; nothing is trained here. Called by the `pretrain` recipe (names
and prices) and by `prepare` (the skeleton that workers initialise).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InvalidInput
from ..problem import suggest


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    hidden: int
    layers: int
    heads: int
    #: key/value heads; fewer than heads = grouped-query attention
    kv_heads: int
    intermediate: int
    #: one matrix for input embedding and output head; worth it while the vocabulary dominates the size
    tied: bool
    #: tokens of the tokenizer that is trained for it unless the job says otherwise; the name is its size with these
    vocab: int
    context: int = 2048


PRESETS: dict[str, Preset] = {
    "tiny-1m": Preset(hidden=128, layers=4, heads=4, kv_heads=4, intermediate=384, tied=True, vocab=1_792),
    "small-3m": Preset(hidden=192, layers=5, heads=6, kv_heads=6, intermediate=576, tied=True, vocab=2_048),
    "15m": Preset(hidden=384, layers=6, heads=6, kv_heads=6, intermediate=1024, tied=True, vocab=8_192),
    "60m": Preset(hidden=640, layers=10, heads=10, kv_heads=10, intermediate=1728, tied=True, vocab=16_384),
    "125m": Preset(hidden=768, layers=14, heads=12, kv_heads=12, intermediate=2048, tied=True, vocab=32_000),
    "350m": Preset(hidden=1024, layers=24, heads=16, kv_heads=16, intermediate=2736, tied=False, vocab=32_000),
    "1b": Preset(hidden=2048, layers=22, heads=32, kv_heads=4, intermediate=5568, tied=False, vocab=32_000),
}


def check_preset(name: str) -> Preset:
    """The preset. Raises InvalidInput "preset.unknown" that names the nearest one."""
    found = PRESETS.get(name)
    if found is None:
        raise InvalidInput(
            "preset.unknown",
            f"There is no preset {name!r}.",
            next_step=suggest(name, PRESETS, what="presets"),
            key="params.preset",
        )
    return found


def preset_params(name: str, vocab_size: int) -> int:
    """Parameters of the preset with this vocabulary: exactly what transformers will count."""
    preset = check_preset(name)
    head_dim = preset.hidden // preset.heads
    attention = 2 * preset.hidden * preset.hidden + 2 * preset.hidden * preset.kv_heads * head_dim
    layer = attention + 3 * preset.hidden * preset.intermediate + 2 * preset.hidden
    embeddings = vocab_size * preset.hidden * (1 if preset.tied else 2)
    return preset.layers * layer + embeddings + preset.hidden


def preset_config(
    name: str, *, vocab_size: int, context: int, eos_token_id: int, pad_token_id: int
) -> dict[str, object]:
    """config.json of the preset. `context`: the longest row; the preset's own limit grows to it when it is longer."""
    preset = check_preset(name)
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": eos_token_id,
        "dtype": "float32",
        "eos_token_id": eos_token_id,
        "head_dim": preset.hidden // preset.heads,
        "hidden_act": "silu",
        "hidden_size": preset.hidden,
        # narrow models with tied embeddings can't raise a logit far from weights of 0.02: measured on docstrings after
        # 100 steps of 16 x 64 tokens at rate 8e-3, tiny-1m reached 5.83 from 0.06 and 6.22 from 0.02
        "initializer_range": max(0.02, float(f"{0.7 * preset.hidden**-0.5:.3g}")),
        "intermediate_size": preset.intermediate,
        "max_position_embeddings": max(preset.context, context),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": preset.heads,
        "num_hidden_layers": preset.layers,
        "num_key_value_heads": preset.kv_heads,
        "pad_token_id": pad_token_id,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": preset.tied,
        "use_cache": True,
        "vocab_size": vocab_size,
    }
