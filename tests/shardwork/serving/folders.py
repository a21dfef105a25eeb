# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""Tiny models and adapters in a folder, and an adapter that is only its files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.worker.training import tiny

TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


def write_adapter(folder: Path, base: Path, **changes: Any) -> Path:
    """A LoRA adapter with drawn weights, so that it changes what the base says; its base named as a path."""
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **changes}
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base)
        tuned: Any = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **settings))
        tuned.save_pretrained(folder, save_embedding_layers=False)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(path: Path, changes: Mapping[str, torch.Tensor | None]) -> None:
    """Sets tensors of a file, and drops those whose new value is None."""
    tensors = load_file(path) | {name: value for name, value in changes.items() if value is not None}
    kept = {name: value.clone() for name, value in tensors.items() if changes.get(name, value) is not None}
    save_file(kept, path, metadata={"format": "pt"})


def write_base(folder: Path, kind: str = "llama", **changes: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tiny.write_base(folder, kind, **changes)
