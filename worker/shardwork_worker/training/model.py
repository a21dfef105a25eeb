# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""Models: from a folder to a network in fp32 whose learning parameters are marked and named.

Owns what may be loaded (built-in causal-LM architectures, safetensors, no code), the weights' first values from a
seed, and which parameters learn for full, partial and LoRA tuning. The order's checkpoint is loaded by
`checkpoints`; the optimiser is `loop`'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from shardwork.errors import InvalidInput
from shardwork.models.architectures import check_scorable
from shardwork.models.folder import inspect_model
from shardwork.recipes.orders import Method, Tuning

from .adapter import wrap_lora
from .blocks import blocks_of
from .device import seed_all
from .dropout import Dropping
from .heads.score import SCORE, draw_score, settle_padding
from .heads.value import VALUE, value_head
from .quantised import loading


@dataclass(slots=True)
class Built:
    """A model on its device and the parameters that learn, in the model's own order."""

    model: Any
    trainable: dict[str, nn.Parameter]
    device: torch.device
    tuning: Tuning
    #: an adapter's dropout; None where nothing is dropped
    dropping: Dropping | None = None
    #: tuning.head "value"
    value: nn.Linear | None = None

    def zero_grad(self) -> None:
        self.model.zero_grad(set_to_none=True)
        if self.value is not None:
            self.value.zero_grad(set_to_none=True)

    @property
    def frozen(self) -> dict[str, nn.Parameter]:
        """An adapter's A where it does not learn: what checkpoints carry beside what does."""
        if not self.tuning.frozen_a_seed:
            return {}
        return {name: parameter for name, parameter in self.model.named_parameters() if ".lora_A." in name}

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding: token ids lie below it."""
        return int(self.model.get_input_embeddings().weight.shape[0])


def build(base: Path, tuning: Tuning, *, from_scratch: bool, seed: bytes, device: torch.device) -> Built:
    """The model of folder `base`, ready to take a checkpoint.

    Everything random is drawn on the CPU, so that the first weights do not depend on the device. The model stays in
    evaluation mode also while it learns: the base's own dropout would make a shard's result depend on the device's
    generator and on where a round ends. An adapter's dropout is `dropout`'s, which does neither.
    Raises InvalidInput "model.*" when the folder holds something that is not loaded here, or cannot be tuned this way.
    """
    if from_scratch and tuning.method is not Method.FULL:
        sentence = "A model without weights can only be trained in full."
        raise InvalidInput("model.scratch_needs_full", sentence, method=tuning.method.value)
    check_config(base)
    seed_all(seed)
    scored = tuning.head == "score"
    if scored:
        check_scorable(json.loads((base / "config.json").read_text())["model_type"])
    how = loading(tuning.base_bits, device)
    model = _from_config(base, scored=scored) if from_scratch else from_weights(base, how, scored=scored, seed=seed)
    if scored:
        settle_padding(model, base)
    model.eval()
    model = _mark(model, tuning, seed)
    if tuning.base_bits is None:
        model.to(device)  # in few bits it was loaded there, and cannot be moved
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    value = value_head(model).to(device) if tuning.head == "value" else None
    if value is not None:
        trainable[VALUE] = value.weight
    dropping = Dropping.of(model, tuning.dropout) if tuning.dropout else None
    return Built(model=model, trainable=trainable, device=device, tuning=tuning, dropping=dropping, value=value)


def check_config(base: Path) -> None:
    """Refuses a config that is no built-in causal language model, that names code to run, or another model."""
    if (base / "adapter_config.json").exists():
        # transformers would load the model that the adapter names, wherever that lies
        sentence = "The base model's folder holds an adapter."
        raise InvalidInput("model.is_adapter", sentence, next_step="Merge the adapter into its base first.")
    try:
        config = json.loads((base / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput("model.no_config", "The base model has no readable config.json.") from error
    kind = config.get("model_type")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise InvalidInput(
            "model.unknown_architecture",
            "The base model is not a causal language model that transformers has built in.",
            next_step="Tune a base of another architecture: GPT-2, Llama, Qwen or Gemma style models are tested.",
            model_type=kind,
        )
    for path, value in _walk(config):
        key = path.rsplit(".", 1)[-1]
        names_code = key in ("auto_map", "custom_pipelines", "quantization_config", "use_kernels") and bool(value)
        names_kernel = key.endswith("_implementation") and "/" in str(value)
        if names_code or names_kernel:
            raise InvalidInput(
                "model.code_in_config",
                "The base model's config asks for code or a format that is not loaded here.",
                next_step="Remove the key, or use a base model in plain safetensors.",
                key=path,
            )


def check_length(built: Built, max_length: int) -> None:
    """Refuses rows longer than the model's positions: some models fail on them, others learn nonsense."""
    limit = getattr(built.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and max_length > limit:
        sentence = f"max_length {max_length} is more than the model's {limit} positions."
        raise InvalidInput("model.max_length", sentence, next_step=f"Use max_length: {limit} or less.")


def _walk(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every key of nested JSON with its value; paths are dotted."""
    if isinstance(value, dict):
        pairs = [(f"{path}.{key}" if path else str(key), child) for key, child in value.items()]
    elif isinstance(value, list):
        pairs = [(f"{path}.{index}", child) for index, child in enumerate(value)]
    else:
        return []
    return [entry for name, child in pairs for entry in [(name, child), *_walk(child, name)]]


def _from_config(base: Path, *, scored: bool) -> Any:
    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    if scored:
        config.num_labels = 1
    return _kind(scored).from_config(config, dtype=torch.float32, trust_remote_code=False)


def from_weights(base: Path, how: Mapping[str, Any], *, scored: bool = False, seed: bytes = b"") -> Any:
    """The model of a folder, whole, on the CPU or where `how` says; `scored`: under a score head, which a causal
    language model does not have yet, so that the seed draws it."""
    inspect_model(base, reward=scored)
    loaded: Any = _kind(scored).from_pretrained(
        base,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
        **({"num_labels": 1} if scored else {}),
        **how,
    )
    model, report = loaded
    missing = set(report["missing_keys"])
    if scored and f"{SCORE}.weight" in missing:
        missing.discard(f"{SCORE}.weight")
        draw_score(model, seed)
    lacking = sorted(missing) + sorted(str(key) for key in report.get("mismatched_keys", ()))
    if lacking:
        # transformers would fill these with random numbers and only warn
        sentence = "The base model's weights lack parameters that its config asks for."
        step = "Save the base model whole, config and weights of the same model, and submit the job again."
        raise InvalidInput("model.missing_weights", sentence, next_step=step, count=len(lacking), first=lacking[0])
    return model


def _kind(scored: bool) -> Any:
    return AutoModelForSequenceClassification if scored else AutoModelForCausalLM


def _mark(model: Any, tuning: Tuning, seed: bytes) -> Any:
    """Sets requires_grad on exactly what learns; LoRA returns the wrapped model."""
    match tuning.method:
        case Method.FULL:
            model.requires_grad_(True)
        case Method.PARTIAL:
            _mark_last_layers(model, tuning)
        case Method.LORA:
            seed_all(bytes.fromhex(tuning.frozen_a_seed) or seed)  # A's first values, whatever loading drew
            return _with_score(wrap_lora(model, tuning), tuning)
    return _with_score(model, tuning)


def _with_score(model: Any, tuning: Tuning) -> Any:
    """The model, whose score head learns whatever else does: it is new."""
    if tuning.head == "score":
        for name, parameter in model.named_parameters():
            if name == f"{SCORE}.weight" or name.endswith(f".{SCORE}.weight"):
                parameter.requires_grad_(True)
    return model


def _mark_last_layers(model: Any, tuning: Tuning) -> None:
    blocks, norms = blocks_of(model)
    if not 1 <= tuning.last_layers <= len(blocks):
        sentence = f"last_layers must lie between 1 and the model's {len(blocks)} layers."
        step = "Set params.last_layers to a number between these."
        raise InvalidInput(
            "model.last_layers", sentence, next_step=step, last_layers=tuning.last_layers, layers=len(blocks)
        )
    model.requires_grad_(False)
    learning: list[nn.Module] = list(blocks)[-tuning.last_layers :]
    if tuning.train_final_norm:
        learning += norms
    if tuning.train_head and tuning.head != "score":
        learning.append(_own_head(model))
    for module in learning:
        module.requires_grad_(True)


def _own_head(model: Any) -> Any:
    """The output head, refused when it is the embedding under another name: training it would train the embedding."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is embedding.weight:
        raise InvalidInput(
            "model.tied_head",
            "The output head is tied to the embedding, so it cannot learn on its own.",
            next_step="Leave train_head off, or tune in full.",
            model_type=model.config.model_type,
        )
    return head
