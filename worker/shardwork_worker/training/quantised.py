# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""A frozen base in 4 or 8 bits a weight, under an adapter, through transformers and bitsandbytes.

Owns whether this device can, and the settings (NF4, Dettmers et al., arXiv 2305.14314; LLM.int8, Dettmers et al.,
arXiv 2208.07339). Needs CUDA and the package bitsandbytes; on other machines the shard is refused with its reason. No
such machine was at hand: tests replace the loader, so that real arithmetic in few bits is unproven.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch
from transformers import BitsAndBytesConfig
from transformers.utils.import_utils import is_accelerate_available, is_bitsandbytes_available

from shardwork.errors import InvalidInput


def readable(device: torch.device) -> bool:
    """Whether a base in few bits can be read on this device."""
    return device.type == "cuda" and _imports()


@cache
def _imports() -> bool:
    """Whether everything that it takes is there and loads: a build for another CUDA does not."""
    if not (is_bitsandbytes_available() and is_accelerate_available()):
        return False
    try:
        import_module("bitsandbytes")
    except Exception:  # whatever its native part raises, it is of no use here
        return False
    return True


def loading(bits: int | None, device: torch.device) -> dict[str, Any]:
    """Arguments for `from_pretrained`; none for a base as it is. Raises InvalidInput "model.base_bits"."""
    if bits is None:
        return {}
    if not readable(device):
        raise InvalidInput(
            "model.base_bits",
            f"This worker can't read a base in {bits} bits: that takes CUDA and the package bitsandbytes.",
            next_step="Leave base_bits out, or wait for a worker that can.",
            device=str(device),
        )
    if bits == 8:
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
    return {"quantization_config": config, "device_map": {"": device}}
