# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""How torch is set up on this machine so that the same shard gives the same bytes; and which GPUs there are.

Called once per trainer and before every shard. The environment variables that must be set before torch is imported
are in `shardwork_worker.child`.
"""

from __future__ import annotations

import gc
import os
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch
import transformers

from shardwork.errors import InvalidInput
from shardwork.recipes.abilities import Ability
from shardwork.recipes.orders import Precision

from .context import MEMORY_SHARE_VARIABLE
from .quantised import readable

#: CUDA's compute capability (Ampere); ROCm's devices that PyTorch supports are all beyond
FIRST_WITH_BF16 = (8, 0)


def settle(name: str) -> torch.device:
    """Repeatable arithmetic for the whole process. Raises InvalidInput "trainer.no_device"."""
    torch.use_deterministic_algorithms(True)
    # nothing here reads memory before it is written, and filling it costs time at every step
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    with suppress(RuntimeError):  # may be set only once, before the first parallel work
        torch.set_num_interop_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    device = torch.device(name)
    there = {"cpu": 1, "mps": int(torch.backends.mps.is_available()), "cuda": torch.cuda.device_count()}
    if (device.index or 0) >= there.get(device.type, 0):
        raise InvalidInput("trainer.no_device", "This machine has no such device.", device=name)
    _bound_memory(device)
    return device


def _bound_memory(device: torch.device) -> None:
    """Holds shards to the owner's share of the GPU's memory; beyond it they run out of memory, as on a smaller GPU. A
    CPU's share is held by the sandbox."""
    share = float(os.environ.get(MEMORY_SHARE_VARIABLE, "1"))
    if share < 1 and device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(share, device)


def use_threads(count: int) -> None:
    """The number of threads is part of the arithmetic: sums are split by it."""
    torch.set_num_threads(max(1, count))


def seed_all(seed: bytes) -> None:
    """Seeds every generator that a shard could draw from."""
    torch.manual_seed(int.from_bytes(seed[:8], "big") & (2**63 - 1))


def release(device: torch.device) -> None:
    """Gives memory that nothing uses any more back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """bf16 arithmetic over fp32 weights, or nothing."""
    if precision is Precision.BF16:
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def gpus() -> list[dict[str, Any]]:
    """Name, memory and abilities of each GPU, best first; several of one kind are also offered as a team.

    A team is not first: `--device auto` takes one GPU, because nobody could try several (`deploy/gpu/check.py` can).
    """
    if torch.backends.mps.is_available():
        can = abilities(torch.device("mps"))
        memory_bytes = torch.mps.recommended_max_memory()
        return [{"device": "mps", "name": "Apple GPU", "memory_bytes": memory_bytes, "abilities": can}]
    found = _cuda_gpus()
    if len(found) > 1:
        least = min(found, key=lambda gpu: gpu["memory_bytes"])
        can = [one for one in least["abilities"] if all(one in gpu["abilities"] for gpu in found)]
        found.append({**least, "device": f"cuda*{len(found)}", "abilities": can})
    return found


def _cuda_gpus() -> list[dict[str, Any]]:
    return [
        {
            "device": f"cuda:{index}",
            "name": torch.cuda.get_device_name(index),
            "memory_bytes": torch.cuda.get_device_properties(index).total_memory,
            "abilities": abilities(torch.device("cuda", index)),
        }
        for index in range(torch.cuda.device_count())
    ]


def abilities(device: torch.device) -> list[Ability]:
    """What this device can do beside fp32. Older CUDA devices compute bf16 by emulation, which is no use to anybody;
    MPS depends on the system's version, so it is tried."""
    match device.type:
        case "cuda":
            found = [Ability.BF16] if torch.cuda.get_device_capability(device) >= FIRST_WITH_BF16 else []
        case "mps":
            found = [Ability.BF16] if _tries_bf16(device) else []
        case _:
            found = [Ability.BF16]
    return [*found, Ability.BASE_4BIT, Ability.BASE_8BIT] if readable(device) else found


def _tries_bf16(device: torch.device) -> bool:
    try:
        ones = torch.ones(4, 4, device=device)
        with autocast(device, Precision.BF16):
            product = ones @ ones
        return product.dtype is torch.bfloat16 and bool((product == 4).all())
    except (RuntimeError, TypeError):
        return False
