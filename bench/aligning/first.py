# pyright: standard
"""The first model: a small llama that knows every right answer and prefers none. Made in a minute, and kept."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from shardwork.dataset.vocabulary import train_vocabulary, write_tokenizer
from shardwork.models.presets import preset_config

from . import task

VOCABULARY, CONTEXT, EOS, PAD = 400, 64, 0, 1
#: of tiny-1m, made smaller
SMALLER = {
    "hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 24,
    "intermediate_size": 256, "initializer_range": 0.07,
}  # fmt: skip
STEPS, ROWS, RATE = 700, 32, 4e-3


def first_model(folder: Path, steps: int = STEPS) -> Path:
    """A folder in Hugging Face layout; what lies there already is taken as it is."""
    if (folder / "model.safetensors").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    texts = [asked + said for asked, said in task.everything()]
    tokenizer = train_vocabulary(texts, VOCABULARY, total_bytes=sum(map(len, texts)))
    write_tokenizer(tokenizer, folder, context=CONTEXT)
    config = preset_config("tiny-1m", vocab_size=VOCABULARY, context=CONTEXT, eos_token_id=EOS, pad_token_id=PAD)
    (folder / "config.json").write_text(json.dumps(config | SMALLER))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    rows = [(tokenizer.encode(asked).ids, [*tokenizer.encode(said).ids, EOS]) for asked, said in task.everything()]
    _learn(model, rows, steps)
    model.save_pretrained(folder)
    return folder


def _learn(model: torch.nn.Module, rows: list[tuple[list[int], list[int]]], steps: int) -> None:
    chosen = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    for step in range(steps):
        batch = [asked + said for asked, said in chosen.sample(rows, ROWS)]
        longest = max(map(len, batch))
        ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in batch])
        labels = torch.where(ids == PAD, -100, ids)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 40) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))
        model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
