"""A model folder in Hugging Face layout: what it holds, whether it may be trained, and which files travel.

Owns reading config.json and the safetensors headers without torch or transformers, and refusing what could run code or
would fail on a worker an hour later. Called by the client before a plan and by the coordinator's executor.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import InvalidInput
from ..problem import suggest
from ..tensors.header import TensorInfo, read_header
from .architectures import CAUSAL_LM, EXPERTS, SCORABLE, may_adapt, reward_model
from .tokenizer import check_tokenizer

#: files that may travel beside the weights; nothing else ever does
COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_MAX_JSON_BYTES = 64 << 20
#: what names code or kernels to fetch and run
_CODE_KEYS = ("auto_map", "custom_pipelines", "quantization_config", "use_kernels", "kernel_config", "custom_generate")
#: of a config: no model has a side, a count or a list beyond these (rope factors and layer types have hundreds)
_MAX_NUMBER, _MAX_LIST, _MAX_DEPTH = 2**31, 10_000, 12
_SAVED_AGAIN = "Take the file from where the weights came from."
#: numbers that a model cannot be built with when they are none
_COUNTS = ("num_attention_heads", "n_head", "max_position_embeddings", "n_positions")
#: where most architectures keep their input embedding and their layers; others are left to the worker
_EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight")
_LAYERS = ("model.layers.", "transformer.h.")
#: types whose linear layers are stored with their inputs first
_TRANSPOSED = frozenset({"gpt2", "gpt-sw3", "openai-gpt"})
#: (name, (rows, columns)) of linear layers
_Linear = tuple[tuple[str, tuple[int, int]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What planning and pricing need to know of a base model."""

    folder: Path
    model_type: str
    #: the class transformers builds, e.g. "LlamaForCausalLM"
    architecture: str
    #: a reward model: it gives one score a row, and no next token
    scores: bool = False
    #: parameters a forward pass touches; a tied head counts once
    run_params: int
    #: (name, (rows, columns)) of every linear layer that an adapter may wrap; the output head is not among them
    linear_params: tuple[tuple[str, tuple[int, int]], ...]
    #: every parameter: name -> shape
    tensors: Mapping[str, tuple[int, ...]]
    hidden_size: int
    layers: int
    tied_embeddings: bool
    vocab_size: int
    #: None when the config names no limit
    context_length: int | None
    has_chat_template: bool
    #: names of the files that travel, sorted
    files: tuple[str, ...]


def inspect_model(folder: Path, *, reward: bool = False) -> ModelFacts:
    """Reads a model folder; `reward`: it may be a reward model as well (`ModelFacts.scores`).

    Raises InvalidInput "model.*" that names the file and the fix.
    """
    if not folder.is_dir():
        raise _refusal("model.missing", "There is no model folder here.", folder, "Check the path of base_model.")
    config, scores = _checked_config(folder, reward=reward)
    _refuse_code(folder)
    tensors = _read_weights(folder)
    if scores:
        _check_score(folder, tensors)
    tokenizer_config = _optional_json(folder / "tokenizer_config.json")
    _refuse_key(folder / "tokenizer_config.json", tokenizer_config, "auto_map")
    _check_values(folder / "generation_config.json", _optional_json(folder / "generation_config.json"))
    vocab_size = _count(config, folder, "vocab_size")
    layers = _count(config, folder, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    check_vocabulary(folder, vocab_size)
    _check_shapes(config, folder, tensors, vocab_size, layers)
    tied = _is_tied(config, tensors)
    kept = {info.name: info.shape for info in tensors if not (tied and _is_head(info.name))}
    return ModelFacts(
        folder=folder,
        model_type=str(config["model_type"]),
        architecture=(reward_model if scores else CAUSAL_LM.__getitem__)(str(config["model_type"])),
        scores=scores,
        run_params=sum(info.numel for info in tensors if info.name in kept),
        linear_params=_linear_params(kept, str(config["model_type"])),
        tensors=kept,
        hidden_size=_count(config, folder, "hidden_size", "n_embd", "d_model"),
        layers=layers,
        tied_embeddings=tied,
        vocab_size=vocab_size,
        context_length=_optional_count(config, "max_position_embeddings", "n_positions", "max_seq_len"),
        has_chat_template="chat_template" in tokenizer_config or (folder / "chat_template.jinja").is_file(),
        files=tuple(upload_files(folder)),
    )


def upload_files(folder: Path) -> list[str]:
    """Names of exactly the files that travel, sorted: weights, config, tokenizer, chat template; nothing else."""
    weights = [INDEX, *_index_files(folder)] if (folder / INDEX).is_file() else [SINGLE]
    return sorted(name for name in (*COMPANIONS, *weights) if (folder / name).is_file())


# ---- what may be asked of the facts -----------------------------------------------------------------------------


def lora_params(
    facts: ModelFacts,
    rank: int,
    target_modules: str | Sequence[str] = "all-linear",
    layers: str | Sequence[int] = "all",
    *,
    dora: bool = False,
    only_b: bool = False,
) -> int:
    """Parameters of a LoRA adapter: rank x (rows + columns) of each wrapped layer (Hu et al. 2021, section 4.1), one
    more for each output with DoRA, and rank x outputs alone when A is frozen.

    Raises InvalidInput "model.target_modules" when a name matches no linear layer, "model.layers" when the model has no
    such block.
    """
    chosen = _in_layers(facts, _named(facts.linear_params, target_modules), layers)
    total = 0
    for _, (rows, columns) in chosen:
        outputs = columns if facts.model_type in _TRANSPOSED else rows
        total += rank * (outputs if only_b else rows + columns) + (outputs if dora else 0)
    return total


def chosen_layers(layers: str | Sequence[int], count: int) -> tuple[int, ...]:
    """The blocks that "all", "top:N" or a list of numbers means in a model of `count` blocks, in rising order.

    Raises InvalidInput "model.layers" when the model has no such block.
    """
    if layers == "all":
        return tuple(range(count))
    if isinstance(layers, str):
        top = int(layers.removeprefix("top:"))
        wanted, odd = tuple(range(count - top, count)), top > count
    else:
        wanted = tuple(sorted(set(layers)))
        odd = not wanted or wanted[-1] >= count or wanted[0] < 0
    if odd:
        raise InvalidInput(
            "model.layers",
            f"The model has {count} layers, so {layers if isinstance(layers, str) else list(layers)} are none of them.",
            next_step=f"Use layers: all, top:{count} or fewer, or numbers from 0 to {count - 1}.",
            key="params.layers",
        )
    return wanted


def partial_params(facts: ModelFacts, last_layers: int, *, final_norm: bool = True, head: bool = False) -> int:
    """Parameters of the last `last_layers` blocks, and of the final norm and the output head where asked.

    Raises InvalidInput "model.too_few_layers" and "model.tied_head".
    """
    if last_layers > facts.layers:
        raise InvalidInput(
            "model.too_few_layers",
            f"The model has {facts.layers} layers, so its last {last_layers} cannot be tuned.",
            next_step=f"Set params.last_layers to at most {facts.layers}.",
            key="params.last_layers",
        )
    if head and facts.tied_embeddings:
        raise InvalidInput(
            "model.tied_head",
            "The output head is tied to the input embedding, so it cannot learn by itself.",
            next_step="Set params.train_head to false, or use method: full.",
            key="params.train_head",
        )
    first = facts.layers - last_layers
    total = 0
    for name, shape in facts.tensors.items():
        layer = _layer_of(name)
        is_norm = layer is None and len(shape) == 1 and ("norm" in name or "ln_f" in name) and "emb" not in name
        if (layer is not None and layer >= first) or (final_norm and is_norm) or (head and _is_head(name)):
            total += TensorInfo(name, "F32", shape).numel
    return total


def full_params(facts: ModelFacts) -> int:
    """Every parameter."""
    return facts.run_params


def _named(linear: _Linear, target_modules: str | Sequence[str]) -> _Linear:
    """The linear layers that the names mean."""
    if target_modules == "all-linear":
        return linear
    wanted = [target_modules] if isinstance(target_modules, str) else list(target_modules)
    for name in wanted:
        if not any(_matches(layer, name) for layer, _ in linear):
            known = {layer.removesuffix(".weight").rsplit(".", 1)[-1] for layer, _ in linear}
            raise InvalidInput(
                "model.target_modules",
                f"The model has no linear layer called {name!r}.",
                next_step=suggest(name, known, what="layers"),
                key="params.target_modules",
            )
    return tuple(item for item in linear if any(_matches(item[0], name) for name in wanted))


def _in_layers(facts: ModelFacts, linear: _Linear, layers: str | Sequence[int]) -> _Linear:
    if layers == "all":
        return linear
    numbers = chosen_layers(layers, facts.layers)
    return tuple(item for item in linear if _layer_of(item[0]) in numbers)


# ---- config, code, tokenizer --------------------------------------------------------------------------------------


def _checked_config(folder: Path, *, reward: bool) -> tuple[dict[str, Any], bool]:
    """config.json, and whether it is a reward model's."""
    path = folder / "config.json"
    if not path.is_file():
        adapter = (folder / "adapter_config.json").is_file()
        sentence = "This folder holds an adapter, not a model." if adapter else "The model folder has no config.json."
        fix = "Merge the adapter into its base and name that folder." if adapter else "Save the model whole."
        raise _refusal("model.no_config", sentence, path, fix)
    config = _read_json(path)
    _check_values(path, config)
    for key, value in config.items():
        if key.endswith(("_implementation", "_implementation_internal")) and "/" in str(value):
            raise _refusal("model.code", f"config.json names foreign code under {key!r}.", path, f"Remove {key!r}.")
    model_type = str(config.get("model_type", ""))
    if model_type not in CAUSAL_LM:
        fix = suggest(model_type, CAUSAL_LM, what="types") if model_type else "Add the model_type."
        if not fix.startswith("Did"):
            fix = "Use a causal language model that is built into transformers, such as llama, qwen3 or gpt2."
        raise _refusal("model.type", f"The model type {model_type!r} cannot be trained here.", path, fix)
    named = config.get("architectures") or [CAUSAL_LM[model_type]]
    if reward and model_type in SCORABLE and named == [reward_model(model_type)]:
        return config, True
    if not isinstance(named, list) or named[0] != CAUSAL_LM[model_type]:  # pyright: ignore[reportUnknownArgumentType]
        sentence = f"config.json names the architecture {json.dumps(named)}, which is no causal language model."
        raise _refusal("model.architecture", sentence, path, f"A {model_type} model is {CAUSAL_LM[model_type]}.")
    return config, False


def _check_score(folder: Path, tensors: Sequence[TensorInfo]) -> None:
    """A reward model has one score: a classifier of several labels is none."""
    head = next((info for info in tensors if info.name == "score.weight"), None)
    if head is None or len(head.shape) != 2 or head.shape[0] != 1:
        found = "no score head" if head is None else f"a score head of shape {list(head.shape)}"
        fix = "Use a sequence classification model with num_labels=1, as recipe reward publishes."
        raise _refusal("model.no_score", f"The weights hold {found}, and not one score.", folder / "config.json", fix)


def _check_values(path: Path, value: object, key: str = "", depth: int = 0) -> None:
    """No code, at any depth, and no number or list that only a bomb needs. Raises InvalidInput "model.*"."""
    if depth > _MAX_DEPTH or (isinstance(value, list) and len(cast("list[object]", value)) > _MAX_LIST):
        raise _refusal("model.config", f"{path.name} is larger than any model's under {key!r}.", path, _SAVED_AGAIN)
    if isinstance(value, int) and abs(value) > _MAX_NUMBER:
        sentence = f"{key!r} in {path.name} is {str(value)[:30]}, which no model has."
        raise _refusal("model.config", sentence, path, _SAVED_AGAIN)
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        for name in _CODE_KEYS:
            _refuse_key(path, fields, name)
        for name, below in fields.items():
            _check_values(path, below, name, depth + 1)
    elif isinstance(value, list):
        for below in cast("list[object]", value):
            _check_values(path, below, key, depth + 1)


def _refuse_key(path: Path, config: Mapping[str, Any], key: str) -> None:
    if not config.get(key):
        return
    if key == "quantization_config":
        raise _refusal("model.quantised", "The model is quantised.", path, "Use the model's unquantised weights.")
    fix = f"Remove {key!r} if the model is also built into transformers; else choose another model."
    raise _refusal("model.code", f"{path.name} asks for code of its own ({key!r}).", path, fix)


def _refuse_code(folder: Path) -> None:
    for path in sorted(folder.rglob("*.py")):
        raise _refusal(
            "model.code", "The model folder holds program code.", path, "Remove the file; code is never run."
        )


def check_vocabulary(folder: Path, vocab_size: int) -> None:
    """Raises InvalidInput for a tokenizer.json that is missing, hostile, or has tokens beyond `vocab_size`."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        old = [
            name for name in ("tokenizer.model", "vocab.json", "vocab.txt", "spiece.model") if (folder / name).exists()
        ]
        sentence = "The model folder has no tokenizer.json."
        fix = "Save the tokenizer with transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…)."
        raise _refusal("model.no_tokenizer", f"{sentence[:-1]}, only {old[0]}." if old else sentence, path, fix)
    tokenizer = _read_json(path)
    check_tokenizer(path, tokenizer)
    try:
        top = max((int(token.get("id", 0)) for token in tokenizer.get("added_tokens", [])), default=-1)
        model: Any = tokenizer.get("model") or {}
        vocab: object = model.get("vocab")
    except (AttributeError, TypeError, ValueError) as error:
        sentence = "tokenizer.json is JSON, but no tokenizer's."
        raise _refusal("tokenizer.bad", sentence, path, "Save the tokenizer again with save_pretrained.") from error
    top = max(top, len(cast("list[object]", vocab)) - 1 if isinstance(vocab, (dict, list)) else -1)
    if top >= vocab_size:
        sentence = f"The tokenizer has token {top}, but the model's vocabulary ends at {vocab_size - 1}."
        raise _refusal("model.vocabulary", sentence, path, "Use the tokenizer that belongs to this model.")


def _check_shapes(
    config: Mapping[str, Any], folder: Path, tensors: Sequence[TensorInfo], vocab_size: int, layers: int
) -> None:
    """What every worker would trip over when it builds the model, told before anything is paid."""
    path = folder / "config.json"
    for key in _COUNTS:
        if config.get(key) is not None and _optional_count(config, key) is None:
            sentence = f"{key!r} in config.json must be a positive whole number, but is {json.dumps(config[key])[:40]}."
            raise _refusal("model.config", sentence, path, "Take config.json from where the weights came from.")
    fix = "Take config.json and weights from the same model."
    for info in tensors:
        if info.name in _EMBEDDINGS and info.shape[0] != vocab_size:
            sentence = f"The weights embed {info.shape[0]} tokens, but config.json says {vocab_size}."
            raise _refusal("model.shape", sentence, path, fix)
    numbers = [_layer_of(info.name) for info in tensors if info.name.startswith(_LAYERS)]
    held = 1 + max((number for number in numbers if number is not None), default=layers - 1)
    if held < layers:
        raise _refusal("model.shape", f"The weights hold {held} of the {layers} layers in config.json.", path, fix)


# ---- weights --------------------------------------------------------------------------------------------------------


def _read_weights(folder: Path) -> list[TensorInfo]:
    if (folder / INDEX).is_file():
        return _read_split(folder)
    path = folder / SINGLE
    if path.is_file():
        return read_header(path)
    pickles = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in _PICKLES)
    if pickles:
        fix = "Load it where you trust it and save it again with save_pretrained(…, safe_serialization=True)."
        raise _refusal("model.pickle", "The weights are pickled; a pickle can run code.", folder / pickles[0], fix)
    others = sorted(entry.name for entry in folder.glob("*.safetensors"))
    fix = f"Rename {others[0]} to {SINGLE} if it holds the whole model." if others else "Save the model's weights."
    raise _refusal("model.no_weights", f"The model folder has no {SINGLE}.", path, fix)


def _index_files(folder: Path) -> list[str]:
    """The weight files that the index names, sorted; refuses names that leave the folder."""
    path = folder / INDEX
    weight_map = _read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _refusal("model.index", "The index has no weight_map.", path, "Save the model again.")
    names = {str(name) for name in cast("dict[str, object]", weight_map).values()}
    for name in sorted(names):
        if "/" in name or "\\" in name or not name.endswith(".safetensors") or name.startswith("."):
            raise _refusal(
                "model.index", f"The index names {name!r}, which is no weight file.", path, "Save the model again."
            )
        if not (folder / name).is_file():
            raise _refusal(
                "model.index", f"The index names {name}, which is missing.", path, "Download the missing file."
            )
    return sorted(names)


def _read_split(folder: Path) -> list[TensorInfo]:
    path = folder / INDEX
    weight_map: dict[str, str] = _read_json(path).get("weight_map") or {}
    found: dict[str, TensorInfo] = {}
    for name in _index_files(folder):
        for info in read_header(folder / name):
            if info.name in found or weight_map.get(info.name) != name:
                sentence = f"Index and files disagree about the tensor {info.name}."
                raise _refusal("model.index", sentence, folder / name, "Save the model again.")
            found[info.name] = info
    missing = sorted(set(weight_map) - set(found))
    if missing:
        raise _refusal(
            "model.index", f"No file holds the tensor {missing[0]}.", path, "Save or download the model again."
        )
    return [found[name] for name in sorted(found)]


def _is_tied(config: Mapping[str, Any], tensors: Sequence[TensorInfo]) -> bool:
    """Many configs leave the default to the code, so absence of a head in the weights decides then."""
    named = config.get("tie_word_embeddings")
    return bool(named) if named is not None else not any(_is_head(info.name) for info in tensors)


def _is_head(name: str) -> bool:
    return name.rsplit(".", 2)[-2] in {"lm_head", "embed_out", "output_projection"} if "." in name else False


def _linear_params(tensors: Mapping[str, tuple[int, ...]], model_type: str) -> _Linear:
    of_experts = any(f".{EXPERTS}." in name for name in tensors)
    return tuple(
        (name, (shape[0], shape[1]))
        for name, shape in tensors.items()
        if _is_linear(name, shape) and may_adapt(name.removesuffix(".weight"), model_type, of_experts=of_experts)
    )


def _is_linear(name: str, shape: tuple[int, ...]) -> bool:
    if len(shape) != 2 or not name.endswith(".weight") or _is_head(name):
        return False
    module = name.split(".")[-2]
    return not ("emb" in module or module in {"wte", "wpe", "shared"} or "norm" in module)


def _matches(layer: str, module: str) -> bool:
    path = layer.removesuffix(".weight")
    return path == module or path.endswith(f".{module}")


def _layer_of(name: str) -> int | None:
    parts = name.split(".")
    for before, part in itertools.pairwise(parts):
        if part.isdigit() and before in {"layers", "h", "blocks", "block", "layer"}:
            return int(part)
    return None


# ---- reading json -----------------------------------------------------------------------------------------------


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise _refusal("model.bad_json", f"{path.name} is too large.", path, "Save the model again.")
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            "model.bad_json", f"{path.name} is not valid JSON: {error}.", next_step="Save the model again.", file=path
        ) from error
    if not isinstance(value, dict):
        raise _refusal("model.bad_json", f"{path.name} is not a JSON object.", path, "Save the model again.")
    return cast("dict[str, Any]", value)


def _optional_json(path: Path) -> dict[str, Any]:
    return _read_json(path) if path.is_file() else {}


def _optional_count(config: Mapping[str, Any], *keys: str) -> int | None:
    for key in keys:
        value = config.get(key)
        if type(value) is int and value > 0:
            return value
    return None


def _count(config: Mapping[str, Any], folder: Path, *keys: str) -> int:
    value = _optional_count(config, *keys)
    if value is None:
        raise _refusal(
            "model.config", f"config.json has no valid {keys[0]!r}.", folder / "config.json", f"Add {keys[0]!r}."
        )
    return value


def _refusal(code: str, sentence: str, path: Path, fix: str) -> InvalidInput:
    return InvalidInput(code, sentence, next_step=fix, file=path)
