"""What the benchmark learns: a model of a preset's shape with weights drawn by chance, and rows of tokens.

Owns writing the folders that a learn shard reads, and the orders. Speed does not depend on what is in them. Needs
numpy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from shardwork.models.presets import PRESETS, Preset, preset_config, preset_params
from shardwork.recipes.orders import InitOrder, LearnOrder, Method, Optimizer, Schedule, Tuning
from shardwork.tensors.file import TensorSpec, TensorWriter, write_tensors

ROWS, LENGTH = 4, 256
#: a rank that LoRA jobs use by default
RANK = 8
#: bytes that a parameter takes that is run, and one that learns: weight, gradient, two moments
RUN_BYTES, TRAINED_BYTES = 4, 16


class Kind(StrEnum):
    """Kinds of training that differ in speed."""

    PRETRAIN = "pretrain"
    FULL = "full"
    LORA = "lora"


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure."""

    kind: Kind
    preset: str

    @property
    def recipe(self) -> str:
        return "pretrain" if self.kind is Kind.PRETRAIN else "sft"

    @property
    def parameters(self) -> int:
        return preset_params(self.preset, PRESETS[self.preset].vocab)

    @property
    def trained(self) -> int:
        """Parameters that learn. Of an adapter: two thin matrices for each linear layer."""
        return _adapter_params(PRESETS[self.preset]) if self.kind is Kind.LORA else self.parameters

    @property
    def units_per_token(self) -> int:
        """Work units: as the coordinator prices a learn shard."""
        return 2 * self.parameters + self.trained

    @property
    def memory_bytes(self) -> int:
        """At least; activations come on top."""
        return self.parameters * RUN_BYTES + self.trained * TRAINED_BYTES

    @property
    def tuning(self) -> Tuning:
        return Tuning(method=Method.LORA, rank=RANK) if self.kind is Kind.LORA else Tuning(method=Method.FULL)

    @property
    def from_scratch(self) -> bool:
        return self.kind is Kind.PRETRAIN

    def init_order(self) -> InitOrder:
        return InitOrder(tuning=self.tuning, from_scratch=self.from_scratch)

    def learn_order(self, steps: int) -> LearnOrder:
        return LearnOrder(
            tuning=self.tuning,
            from_scratch=self.from_scratch,
            schedule=Schedule(kind="constant", learning_rate=1e-4, total_steps=steps),
            optimizer=Optimizer(),
            start_step=0,
            steps=steps,
            first_row=0,
            batch_size=ROWS,
            micro_batch_size=ROWS,
            max_length=LENGTH,
            encoding="int8",
        )


def write_base(folder: Path, case: Case) -> Path:
    """The model's folder; with weights, unless it is learned from nothing."""
    preset = PRESETS[case.preset]
    folder.mkdir(parents=True)
    config = preset_config(case.preset, vocab_size=preset.vocab, context=LENGTH, eos_token_id=0, pad_token_id=0)
    (folder / "config.json").write_text(json.dumps(config))
    if not case.from_scratch:
        specs = {name: TensorSpec("F32", shape) for name, shape in shapes(preset).items()}
        _write_tokenizer(folder, preset.vocab)
        draw = np.random.default_rng(0)
        with TensorWriter(folder / "model.safetensors", specs, metadata={"format": "pt"}) as writer:
            for name, spec in specs.items():
                writer.write(name, _weights(draw, spec))
    return folder


def write_rows(folder: Path, preset: str) -> Path:
    """Full rows of tokens drawn by chance."""
    folder.mkdir(parents=True)
    count = ROWS * LENGTH
    tokens = np.random.default_rng(0).integers(1, PRESETS[preset].vocab, size=count, dtype=np.int32)
    write_tensors(
        folder / "rows-00000.safetensors",
        {
            "tokens": tokens,
            "mask": np.ones(count, dtype=np.uint8),
            "offsets": np.arange(0, count + 1, LENGTH, dtype=np.int64),
        },
    )
    index = {"files": [{"name": "rows-00000.safetensors", "rows": ROWS}], "pad_token_id": 0}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def shapes(preset: Preset) -> dict[str, tuple[int, ...]]:
    """Every weight of the preset's model by its name in the file."""
    width, inner = preset.hidden, preset.intermediate
    narrow = width // preset.heads * preset.kv_heads
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (preset.vocab, width)}
    for number in range(preset.layers):
        block = f"model.layers.{number}"
        found |= {
            f"{block}.self_attn.q_proj.weight": (width, width),
            f"{block}.self_attn.k_proj.weight": (narrow, width),
            f"{block}.self_attn.v_proj.weight": (narrow, width),
            f"{block}.self_attn.o_proj.weight": (width, width),
            f"{block}.mlp.gate_proj.weight": (inner, width),
            f"{block}.mlp.up_proj.weight": (inner, width),
            f"{block}.mlp.down_proj.weight": (width, inner),
            f"{block}.input_layernorm.weight": (width,),
            f"{block}.post_attention_layernorm.weight": (width,),
        }
    found["model.norm.weight"] = (width,)
    return found if preset.tied else found | {"lm_head.weight": (preset.vocab, width)}


def _write_tokenizer(folder: Path, size: int) -> None:
    """One of words that nobody says: a model folder without any is refused, and no row here is text."""
    words = {f"w{number}": number for number in range(size)}
    Tokenizer(WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "w0", "pad_token": "w0"})
    )


def _weights(draw: np.random.Generator, spec: TensorSpec) -> np.ndarray:
    if len(spec.shape) == 1:
        return np.ones(spec.shape, dtype=np.float32)
    return draw.standard_normal(spec.shape, dtype=np.float32) * np.float32(0.02)


def _adapter_params(preset: Preset) -> int:
    linear = [shape for name, shape in shapes(preset).items() if ".layers." in name and len(shape) == 2]
    return sum(RANK * (rows + columns) for rows, columns in linear)
