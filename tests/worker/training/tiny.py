# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""Tiny models, tokenizers, prepared rows and orders for the trainer's tests; everything is made here, offline."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from shardwork.recipes.orders import (
    EvaluateOrder,
    InitOrder,
    LearnOrder,
    Method,
    Optimizer,
    PublishOrder,
    Schedule,
    Tuning,
)
from shardwork.tensors.file import write_tensors
from shardwork_worker.training.context import ShardContext
from shardwork_worker.training.trainer import TorchTrainer

TEXT = [
    "The worker takes a shard, trains it and hands it back.",
    "A checkpoint holds the weights and the averaged moments.",
    "Every round is judged before it is paid.",
]
VOCABULARY = 300
SEED = bytes(range(32))

SIZES: Mapping[str, Mapping[str, Any]] = {
    kind: {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
    }
    for kind in ("llama", "qwen2", "qwen3", "gemma", "gemma2")
} | {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "opt": {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
    },
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2, "max_seq_len": 128},
    "deepseek_v2": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "moe_intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 8,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "max_position_embeddings": 128,
    },
    "qwen3_moe": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "moe_intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 128,
    },
    "gpt_neox": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
    },
}


@dataclass(frozen=True, slots=True)
class PreparedRow:
    """One prepared row: token ids, and 1 where the token is a label."""

    tokens: list[int]
    mask: list[int] = field(default_factory=list)


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on TEXT."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<pad>", "<eos>"], initial_alphabet=sorted(alphabet), show_progress=False
    )
    core.train_from_iterator(TEXT * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")


def write_skeleton(folder: Path, kind: str, **changes: Any) -> Path:
    """Config and tokenizer, no weights."""
    folder.mkdir(parents=True)
    made = tokenizer()
    made.save_pretrained(folder)
    settings = {
        **SIZES[kind],
        "vocab_size": max(len(made), VOCABULARY),
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 1,
        **changes,
    }
    AutoConfig.for_model(kind, **settings).save_pretrained(folder)
    return folder


def write_base(folder: Path, kind: str, **changes: Any) -> Path:
    """A base model folder in Hugging Face layout with seeded weights."""
    write_skeleton(folder, kind, **changes)
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    model.save_pretrained(folder)
    return folder


def rows(count: int, *, seed: int = 3, longest: int = 24) -> list[PreparedRow]:
    """Rows of 6 to `longest` tokens whose first third is a prompt without labels."""
    draw = random.Random(seed)
    made: list[PreparedRow] = []
    for _ in range(count):
        length = draw.randint(6, longest)
        tokens = [draw.randrange(2, 60) for _ in range(length)]
        made.append(PreparedRow(tokens, [0] * (length // 3) + [1] * (length - length // 3)))
    return made


def packed(count: int, *, length: int = 16, seed: int = 4) -> list[PreparedRow]:
    """Full rows on which every token is a label, as pretrain prepares them."""
    draw = random.Random(seed)
    return [PreparedRow([draw.randrange(2, 60) for _ in range(length)], [1] * length) for _ in range(count)]


def write_rows(path: Path, these: Sequence[PreparedRow]) -> None:
    """One file of rows as `shardwork.recipes.prepare` writes it."""
    lengths = [len(row.tokens) for row in these]
    tokens = [token for row in these for token in row.tokens]
    mask = [bit for row in these for bit in row.mask]
    write_tensors(
        path,
        {
            "tokens": np.array(tokens, dtype=np.int32),
            "mask": np.array(mask, dtype=np.uint8),
            "offsets": np.cumsum([0, *lengths], dtype=np.int64),
        },
    )


def write_train(folder: Path, these: Sequence[PreparedRow], *, rows_per_file: int) -> Path:
    folder.mkdir(parents=True)
    files: list[dict[str, Any]] = []
    for start in range(0, len(these), rows_per_file):
        part = these[start : start + rows_per_file]
        name = f"rows-{start // rows_per_file:05}.safetensors"
        write_rows(folder / name, part)
        files.append({"name": name, "rows": len(part)})
    index = {"rows": len(these), "rows_per_file": rows_per_file, "files": files, "pad_token_id": 0, "eos_token_id": 1}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def write_eval(folder: Path, selection: Sequence[PreparedRow], test: Sequence[PreparedRow]) -> Path:
    folder.mkdir(parents=True)
    write_rows(folder / "selection.safetensors", selection)
    write_rows(folder / "test.safetensors", test)
    (folder / "index.json").write_text(json.dumps({"pad_token_id": 0, "eos_token_id": 1}))
    return folder


def tuning(method: str, **changes: Any) -> Tuning:
    return Tuning(method=Method(method), **changes)


def learn_order(method: str = "full", **changes: Any) -> LearnOrder:
    """Five steps of 4 rows at a constant rate, in fp32."""
    settings: dict[str, Any] = {
        "tuning": tuning(method),
        "from_scratch": False,
        "schedule": Schedule(kind="constant", learning_rate=1e-2, total_steps=100),
        "optimizer": Optimizer(),
        "start_step": 0,
        "steps": 5,
        "first_row": 0,
        "batch_size": 4,
        "micro_batch_size": 4,
        "max_length": 64,
        "encoding": "fp32",
        **changes,
    }
    return LearnOrder(**settings)


def evaluate_order(method: str = "full", candidates: tuple[str, ...] = ("mean",), **changes: Any) -> EvaluateOrder:
    return EvaluateOrder(
        tuning=tuning(method), from_scratch=False, candidates=candidates, max_length=64, batch_size=4, **changes
    )


def publish_order(method: str = "full", **changes: Any) -> PublishOrder:
    settings: dict[str, Any] = {
        "tuning": tuning(method),
        "from_scratch": False,
        "job_id": "job-1",
        "job_name": "tutor",
        "stage": "sft",
        "recipe": "sft",
        "base_id": "models/tiny",
        "card": (("rounds", "4"), ("test loss", "3.21 | nats")),
        "sample_prompts": ("", "The worker"),
        **changes,
    }
    return PublishOrder(**settings)


def context(output_dir: Path, **inputs: Path) -> ShardContext:
    """A context whose outputs land in `output_dir`; it has no trainer of its own and tells nobody."""

    def no_trainer() -> TorchTrainer:
        raise AssertionError("the trainer's phases never ask their context for a trainer")

    def tell(_fraction: float, _loss: float | None) -> None:
        pass

    # delta_0 stands for delta-0, step_mean for step-mean
    named = {
        name.replace("_", "-") if name.startswith(("step_", "delta_")) else name: folder
        for name, folder in inputs.items()
    }
    return ShardContext(inputs=named, seed=SEED, output_dir=output_dir, trainer_of=no_trainer, tell=tell)


def first_checkpoint(trainer: TorchTrainer, base: Path, into: Path, method: str = "full", **changes: Any) -> Path:
    """The checkpoint that phase init makes."""
    order = InitOrder(tuning=tuning(method, **changes), from_scratch=not any(base.glob("*.safetensors")))
    return trainer.init(order, context(into, base=base)).outputs["checkpoint"]


def same_files(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files, byte for byte."""
    names = sorted(path.name for path in one.iterdir())
    return names == sorted(path.name for path in other.iterdir()) and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names
    )
