"""What a model really has: the parameters that prices are made of, counted from its own files.

The client measures a job's files and the coordinator quotes from that; nobody may believe it. The coordinator's
executor counts again before it prepares anything, from config and safetensors headers, and the machine fails a job that
declared less. Pure but for reading headers; no numpy, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..dataset.lengths import Layout, layout
from ..errors import InvalidInput
from ..models.architectures import check_packable, check_scorable
from ..models.folder import ModelFacts, full_params, inspect_model, lora_params, partial_params
from ..models.presets import preset_params
from ..why import Why
from .base import StageFacts
from .orders import Method, PrepareOrder, Tuning

#: what is measured may exceed what was declared by this share, in percent
TOLERANCE_PERCENT = 1
#: names of the metrics, which are names of StageFacts too
COUNTED = ("run_params", "trained_params", "input_bytes")


def counted(order: PrepareOrder, base: Path | None) -> dict[str, float]:
    """run_params and trained_params of the stage's model: `base`, or the order's preset. Empty for orders that tune
    nothing. Raises InvalidInput "model.*", without the folder's place on this machine."""
    if order.tuning is None:
        return {}
    if base is None:
        if order.preset is None or order.vocab_size is None:
            return {}
        size = preset_params(order.preset, order.vocab_size)
        return {"run_params": float(size), "trained_params": float(size)}
    try:
        model = inspect_model(base)
        if order.tuning.head == "score":
            check_scorable(model.model_type)
        _check_length(order, model)
        if layout(order.packing, order.recipe) is Layout.PACKED:
            check_packable(model.model_type)
        return {
            "run_params": float(model.run_params),
            "trained_params": float(trained_params(model, order.tuning)),
        }
    except InvalidInput as error:
        raise _without_place(error, base) from None


def _check_length(order: PrepareOrder, model: ModelFacts) -> None:
    """Every worker would refuse rows that are longer than the model's positions, and be paid for finding out."""
    limit = model.context_length
    if limit is not None and order.max_length > limit:
        raise InvalidInput(
            "model.max_length",
            f"Rows of {order.max_length} tokens do not fit the model: it has {limit} positions.",
            next_step=f"Use max_length: {limit} or less.",
            key="params.max_length",
        )


def trained_params(model: ModelFacts, tuning: Tuning) -> int:
    """Parameters that an update touches."""
    match tuning.method:
        case Method.LORA:
            return lora_params(
                model,
                tuning.rank,
                tuning.target_modules,
                tuning.layers,
                dora=tuning.dora,
                only_b=bool(tuning.frozen_a_seed),
            )
        case Method.PARTIAL:
            return partial_params(model, tuning.last_layers, final_norm=tuning.train_final_norm, head=tuning.train_head)
        case Method.FULL:
            return full_params(model)


def under_declared(declared: StageFacts, measured: Mapping[str, float]) -> Why | None:
    """Why the declared facts can't stand; None when they cover what was measured."""
    for name in COUNTED:
        said, found = int(getattr(declared, name)), int(measured.get(name, 0))
        if found * 100 > said * (100 + TOLERANCE_PERCENT):
            return Why(
                code="facts.under_declared",
                sentence=f"The job was priced for {said:,} {name.replace('_', ' ')}, but its files have {found:,}.",
                evidence={"fact": name, "declared": str(said), "measured": str(found)},
                next_step="Submit with `shardwork job submit`, which measures the files.",
            )
    return None


def _without_place(error: InvalidInput, base: Path) -> InvalidInput:
    """The same refusal, naming files as the requester knows them."""
    place, why = str(base), error.why
    evidence = {key: value.replace(f"{place}/", "").replace(place, "base_model") for key, value in why.evidence.items()}
    return InvalidInput(why.code, why.sentence.replace(place, "base_model"), next_step=why.next_step, **evidence)
