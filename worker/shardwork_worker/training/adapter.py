# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""LoRA adapters by PEFT: which layers get one, and of what kind (LoRA, DoRA, rsLoRA; A frozen or not).

Owns the PEFT config, so that what is published is what PEFT itself would have made. First values are drawn by the
caller's seed. Called by `model`.
"""

from __future__ import annotations

from typing import Any

from peft import LoraConfig, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from shardwork.errors import InvalidInput
from shardwork.models.architectures import BYPASSED, EXPERTS, may_adapt
from shardwork.models.folder import chosen_layers
from shardwork.recipes.orders import Tuning

from .blocks import blocks_of


def wrap_lora(model: Any, tuning: Tuning) -> Any:
    """The model with an adapter named "default" on the tuning's modules and layers; only the adapter learns.

    Raises InvalidInput "model.target_modules" and "model.layers" when the model has none such.
    """
    config = LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha,
        target_modules=_targets(model, tuning),
        lora_dropout=tuning.dropout,
        use_dora=tuning.dora,
        use_rslora=tuning.rslora,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        # PEFT's class for scores would keep the score head twice; here it learns as any parameter
        task_type=None if tuning.head == "score" else "CAUSAL_LM",
    )
    try:
        wrapped: Any = get_peft_model(model, config)
    except ValueError as error:
        raise _no_such_modules(str(error)) from error
    if tuning.frozen_a_seed:
        for name, parameter in wrapped.named_parameters():
            if ".lora_A." in name:
                parameter.requires_grad_(False)
    wrapped.eval()
    return wrapped


def _targets(model: Any, tuning: Tuning) -> str | list[str]:
    """Module names as PEFT takes them: whole paths where only some layers get an adapter, or not each can have one."""
    modules = tuning.target_modules
    kind, of_experts = model.config.model_type, any(f".{EXPERTS}." in name for name, _ in model.named_parameters())
    if tuning.layers == "all" and kind not in BYPASSED and not of_experts and tuning.head != "score":
        return modules if isinstance(modules, str) else list(modules)
    blocks, _ = blocks_of(model)
    chosen = [blocks[number] for number in chosen_layers(tuning.layers, len(blocks))]
    inside = {id(module) for block in chosen for module in block.modules()}
    wanted = (modules,) if isinstance(modules, str) else modules
    found = [
        name
        for name, module in model.named_modules()
        if id(module) in inside
        and isinstance(module, (nn.Linear, Conv1D))
        and _is_meant(name, wanted)
        and may_adapt(name, kind, of_experts=of_experts)
    ]
    if not found:
        raise _no_such_modules(f"{', '.join(wanted)} in layers {tuning.layers}")
    return found


def _is_meant(path: str, wanted: tuple[str, ...]) -> bool:
    return wanted == ("all-linear",) or any(path == name or path.endswith(f".{name}") for name in wanted)


def _no_such_modules(detail: str) -> InvalidInput:
    return InvalidInput(
        "model.target_modules",
        "No LoRA adapter fits the named modules of this model.",
        next_step="Use target_modules: all-linear, or the model's own module names.",
        detail=detail[:300],
    )
