"""A folder that is to be served: a model, or an adapter with its base, read without torch.

Owns finding the base and refusing what is wrong in an adapter folder, each naming file, key and next step. The model's
own files are judged by `shardwork.models.folder`. Called by `shardwork.serving.check`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import InvalidInput
from ..models.folder import ModelFacts, inspect_model
from ..models.pattern import can_explode
from ..tensors.header import TensorInfo, read_header

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_JSON_BYTES = 16 << 20
_SAVED_AGAIN = "Download the adapter again, or save it with PEFT's save_pretrained."


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What serving a LoRA adapter depends on."""

    rank: int
    dora: bool
    rslora: bool
    #: "none", "all" or "lora_only"
    bias: str
    #: modules that are stored whole beside the adapter
    whole_modules: tuple[str, ...]
    #: whether ranks or scales differ from module to module
    mixed: bool
    #: whether it changes the embedding or the head
    on_vocabulary: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A folder to check: `model` is the folder's own, or its base's."""

    folder: Path
    adapter: Adapter | None
    model: ModelFacts
    #: config.json of the model
    config: Mapping[str, Any]
    has_chat_template: bool

    @property
    def kind(self) -> str:
        return "adapter" if self.adapter else "model"

    @property
    def base(self) -> Path | None:
        return self.model.folder if self.adapter else None


def read_subject(folder: Path, base: Path | None = None) -> Subject:
    """Reads the folder and, for an adapter, its base: `base`, or where adapter_config.json says.

    Raises InvalidInput "serve.*" or "model.*".
    """
    if not folder.is_dir():
        what = "This is a file, not a folder." if folder.exists() else "There is no folder here."
        raise _refusal("serve.no_folder", what, folder, "Name the folder of one output: shardwork job download ID DIR.")
    if not (folder / CONFIG).is_file():
        return _model(folder, base)
    config = _read_json(folder / CONFIG)
    adapter, tensors = _adapter(folder, config)
    model = inspect_model(_base_of(folder, config, base))
    _check_belongs(folder / WEIGHTS, tensors, model)
    template = model.has_chat_template or (folder / "chat_template.jinja").is_file()
    return Subject(
        folder=folder,
        adapter=adapter,
        model=model,
        config=_read_json(model.folder / "config.json"),
        has_chat_template=template,
    )


def _model(folder: Path, base: Path | None) -> Subject:
    if not (folder / "config.json").is_file():
        _refuse_other_folder(folder)
    if base is not None:
        sentence = "--base is for adapters, and this folder holds a whole model."
        raise _refusal("serve.base_unused", sentence, folder / "config.json", "Leave --base out.")
    model = inspect_model(folder)
    return Subject(
        folder=folder,
        adapter=None,
        model=model,
        config=_read_json(folder / "config.json"),
        has_chat_template=model.has_chat_template,
    )


def _refuse_other_folder(folder: Path) -> None:
    """`job download` makes DIR/<output>: naming DIR is the likely slip."""
    inside = sorted(
        each.name
        for each in folder.iterdir()
        if each.is_dir() and any((each / name).is_file() for name in ("config.json", CONFIG))
    )
    if inside:
        fix = f"Name one of its folders: {', '.join(str(folder / name) for name in inside[:5])}."
        raise _refusal("serve.no_config", "This folder holds outputs, and is none itself.", folder, fix)
    if (folder / "state.json").is_file():
        model = folder.with_suffix(".model") if folder.suffix == ".checkpoint" else folder.parent
        fix = f"Name the model of the same job, such as {model}; `continue_from` takes this folder."
        raise _refusal("serve.no_config", "This is a checkpoint, for training to go on from.", folder, fix)
    sentence = f"The folder has neither config.json nor {CONFIG}."
    raise _refusal("serve.no_config", sentence, folder, "Name a folder that holds a model or an adapter.")


# ---- adapters -----------------------------------------------------------------------------------------------------


def _adapter(folder: Path, config: Mapping[str, Any]) -> tuple[Adapter, list[TensorInfo]]:
    path = folder / CONFIG
    kind = config.get("peft_type")
    if kind != "LORA":
        raise _refusal("serve.adapter_type", f"The adapter is of type {kind!r}; only LORA is checked here.", path, "")
    rank = config.get("r")
    if type(rank) is not int or not 0 < rank < 1 << 16:
        raise _key("serve.adapter_config", f"The rank must be a whole number above 0, not {rank!r}.", path, "r")
    if config.get("megatron_config") or config.get("auto_mapping"):
        key = "megatron_config" if config.get("megatron_config") else "auto_mapping"
        raise _key("serve.adapter_code", f"{CONFIG} names code of its own.", path, key, f"Remove {key!r}.")
    modules = config.get("target_modules")
    if not modules or not isinstance(modules, (str, list)):
        raise _key("serve.adapter_config", "The adapter names no modules.", path, "target_modules")
    if isinstance(modules, str) and can_explode(modules):
        raise _key("serve.adapter_config", "The pattern could take for ever to match.", path, "target_modules")
    tensors = _weights(folder)
    whole: object = config.get("modules_to_save") or []
    named = [modules] if isinstance(modules, str) else [str(each) for each in cast("list[object]", modules)]
    return Adapter(
        rank=rank,
        dora=bool(config.get("use_dora")),
        rslora=bool(config.get("use_rslora")),
        bias=str(config.get("bias") or "none"),
        whole_modules=tuple(str(each) for each in cast("list[object]", whole)) if isinstance(whole, list) else (),
        mixed=bool(config.get("rank_pattern") or config.get("alpha_pattern")),
        on_vocabulary=any(name.endswith(("lm_head", "embed_tokens", "wte", "embed_out")) for name in named),
    ), tensors


def _weights(folder: Path) -> list[TensorInfo]:
    path = folder / WEIGHTS
    if not path.is_file():
        if (folder / "adapter_model.bin").exists():
            sentence = "The adapter is pickled; a pickle can run code."
            fix = "Load it where you trust it and save it again with safe_serialization=True."
            raise _refusal("serve.pickle", sentence, folder / "adapter_model.bin", fix)
        raise _refusal("serve.no_weights", f"The adapter folder has no {WEIGHTS}.", path, _SAVED_AGAIN)
    tensors = read_header(path)
    if not any(".lora_" in info.name for info in tensors):
        raise _refusal("serve.no_weights", "The file holds no LoRA weights.", path, _SAVED_AGAIN)
    return tensors


def _base_of(folder: Path, config: Mapping[str, Any], base: Path | None) -> Path:
    """`base`, else the folder that the adapter names: as a path from here, or from the adapter. Never a hub's name:
    there it may be somebody else's model."""
    if base is not None:
        if not base.is_dir():
            raise _refusal("serve.no_base", "There is no folder of a base model here.", base, "Check --base.")
        if (base / CONFIG).is_file() and not (base / "config.json").is_file():
            sentence = "--base names an adapter, not the model that it was tuned on."
            raise _refusal("serve.no_base", sentence, base / CONFIG, "Name the folder of the whole model.")
        return base
    name = str(config.get("base_model_name_or_path") or "")
    for found in (Path(name), folder / name) if name else ():
        if (found / "config.json").is_file():
            return found
    said = f"The adapter's base {name!r} is no folder here." if name else "The adapter names no base."
    fix = f"Name the model that it was tuned on: shardwork job serve-check {folder} --base DIR."
    raise _key("serve.no_base", said, folder / CONFIG, "base_model_name_or_path", fix)


def _check_belongs(path: Path, tensors: list[TensorInfo], model: ModelFacts) -> None:
    """Raises InvalidInput "serve.base_differs" where the adapter's sides are not those of the base's layers."""
    found = 0
    for info in tensors:
        side = 1 if info.name.endswith(".lora_A.weight") else 0 if info.name.endswith(".lora_B.weight") else None
        if side is None or len(info.shape) != 2:
            continue
        layer = info.name.removeprefix("base_model.model.").rsplit(".lora_", 1)[0]
        shape = model.tensors.get(f"{layer}.weight") or model.tensors.get(f"{layer.partition('.')[2]}.weight")
        if shape is None:
            continue
        found += 1
        if info.shape[side] not in shape:
            sentence = f"The adapter was tuned on another model: {info.shape[side]} is no side of {layer}."
            _refuse_base(path, sentence, info.name, model)
    if not found:
        _refuse_base(path, "The adapter was tuned on another model: the base has none of its layers.", "", model)


def _refuse_base(path: Path, sentence: str, tensor: str, model: ModelFacts) -> None:
    evidence = {"tensor": tensor} if tensor else {}
    fix = "Name the model that it was tuned on: --base DIR."
    raise InvalidInput("serve.base_differs", sentence, next_step=fix, file=path, base=model.folder, **evidence)


# ---- reading ------------------------------------------------------------------------------------------------------


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError("it is too large")
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        sentence = f"{path.name} is not valid JSON: {error}."
        raise _refusal("serve.bad_json", sentence, path, _SAVED_AGAIN) from error
    if not isinstance(value, dict):
        raise _refusal("serve.bad_json", f"{path.name} is not a JSON object.", path, _SAVED_AGAIN)
    return cast("dict[str, Any]", value)


def _refusal(code: str, sentence: str, path: Path, fix: str) -> InvalidInput:
    return InvalidInput(code, sentence, next_step=fix or _SAVED_AGAIN, file=path)


def _key(code: str, sentence: str, path: Path, key: str, fix: str = _SAVED_AGAIN) -> InvalidInput:
    return InvalidInput(code, sentence, next_step=fix, file=path, key=key)
