# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""Phase `publish`: the model as people load it, proved by loading it.

A LoRA job gives a PEFT adapter folder, or its base with the adapter merged into it; every other job a Hugging Face
model folder; all with a model card, in safetensors, with no path of this machine anywhere. A score head makes a reward
model, which is always whole; a value head stays behind. What was written is loaded again with plain transformers or
PEFT, must give the logits of the model in memory, and is sampled from (`samples`), or scores rows. `card` writes the
README; equal inputs give equal bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig

from shardwork.dataset.template import NAMED
from shardwork.errors import Internal
from shardwork.models.hub import hub_name
from shardwork.recipes.base import Computed, Context
from shardwork.recipes.orders import Method, PublishOrder

from .card import is_whole, write_card
from .checkpoints import load_weights
from .model import build
from .probing import safety
from .probing.recall import Recall, recall
from .probing.samples import asked_of, load_tokenizer, prompts_of, sample, write_entries, write_samples
from .probing.scores import scored
from .quantised import loading

#: what makes up a tokenizer; copied from the base as it is
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
#: keys that hold a path of the machine that wrote the file, or name code
DROPPED_KEYS = ("_name_or_path", "name_or_path", "auto_map")
MAX_LOGIT_DIFFERENCE = 1e-5
#: merging an adapter rounds each weight once more: as a share of the largest logit
MAX_MERGE_DIFFERENCE = 1e-3
PROBE_TOKENS = 16


def publish(order: PublishOrder, context: Context, device: torch.device) -> Computed:
    """Inputs base, checkpoint, probe? and a policy's prompts, eval or train -> outputs model and samples; metrics
    reload_difference (largest, over logits), memorised.* (`recall`) and, where the order asks for it, safety.*
    (`probing.safety`).

    Raises Internal "publish.reload_differs", "publish.merge_differs" and "publish.local_path" rather than hand out a
    wrong model.
    """
    base = context.inputs["base"]
    if is_whole(order):
        # an adapter is merged into weights, not into their few bits
        order = order.model_copy(update={"tuning": order.tuning.model_copy(update={"base_bits": None})})
    built = build(base, order.tuning, from_scratch=order.from_scratch, seed=context.seed, device=device)
    load_weights(built, context.inputs["checkpoint"])
    parameters = sum(p.numel() for p in built.trainable.values())
    model = _merged(built.model) if order.tuning.method is Method.LORA and is_whole(order) else built.model
    in_memory = probe(model)
    folder = context.output("model")
    if is_whole(order):
        write_model(model, folder, base)
    else:
        write_adapter(model, folder, order.base_id)
    if order.chat_template != "model":
        # the base has none: whoever serves the model needs the one its rows were rendered with
        (folder / "chat_template.jinja").write_text(NAMED[order.chat_template], encoding="utf-8")
    known = _recall(model, base, context) if order.tuning.head != "score" else None
    facts = known.facts() if known is not None else []
    write_card(folder / "README.md", order, parameters=parameters, found=facts)
    check_no_path(folder, [str(path) for path in (base, base.resolve(), folder)])
    context.progress(0.5)
    del built, model  # two models at a time are enough
    reloaded = reload(folder, base, order, device)
    difference = float((probe(reloaded) - in_memory).abs().max())
    if not difference <= MAX_LOGIT_DIFFERENCE:
        sentence = "The published model does not give the trained model's logits."
        raise Internal("publish.reload_differs", sentence, difference=difference)
    context.progress(0.75)
    samples, refusals = sampled(reloaded, base, order, context)
    metrics = {"reload_difference": difference} | (known.metrics() if known is not None else {}) | refusals
    return Computed(outputs={"model": folder, "samples": samples}, metrics=metrics)


def _merged(model: Any) -> Any:
    """An adapter in its base's weights. Raises Internal "publish.merge_differs"."""
    apart = probe(model)
    whole = model.merge_and_unload()
    difference = float((probe(whole) - apart).abs().max())
    if not difference <= MAX_MERGE_DIFFERENCE * max(1.0, float(apart.abs().max())):
        sentence = "The merged model does not give the logits of the base with its adapter."
        raise Internal("publish.merge_differs", sentence, difference=difference)
    return whole


def _recall(model: Any, base: Path, context: Context) -> Recall | None:
    """What was learned by heart; None where no rows to ask about came with the shard."""
    if "probe" not in context.inputs:
        return None
    tokenizer = load_tokenizer(base)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
    vocabulary = model.config.get_text_config().vocab_size
    return recall(model, context.inputs["probe"], pad_token=pad if 0 <= pad < vocabulary else 0)


def write_model(model: Any, folder: Path, base: Path) -> None:
    """A model folder: one safetensors file, config, generation config and the base's tokenizer."""
    # the base's own generation config follows below as a file: saving it would refuse harmless odd values in it
    model.generation_config = GenerationConfig.from_model_config(model.config)
    model.save_pretrained(folder, max_shard_size="1TB")
    # a reward model writes nothing
    names = TOKENIZER_FILES if hasattr(model, "score") else (*TOKENIZER_FILES, "generation_config.json")
    for name in names:
        if (base / name).is_file():
            (folder / name).write_bytes((base / name).read_bytes())
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        if (folder / name).is_file():
            _rewrite(folder / name, dict.fromkeys(DROPPED_KEYS))


def write_adapter(model: Any, folder: Path, base_id: str) -> None:
    """A PEFT adapter folder: adapter_config.json and adapter_model.safetensors, its base named `base_id`."""
    # "auto" would look the base up by name to see whether its vocabulary grew
    model.save_pretrained(folder, save_embedding_layers=False)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    # PEFT writes sets, in an order that differs from process to process: two keys would never agree
    ordered = {key: sorted(value) for key, value in config.items() if isinstance(value, list)}
    name, revision = hub_name(base_id)
    names = {"base_model_name_or_path": name, "revision": revision}
    _rewrite(path, {**dict.fromkeys(DROPPED_KEYS), **ordered, **names})


def reload(folder: Path, base: Path, order: PublishOrder, device: torch.device) -> Any:
    """The published model as a user loads it, on the device; an adapter on the base that it learned with."""
    if is_whole(order):
        return load(folder, order, device, scored=order.tuning.head == "score")
    model = load(base, order, device)
    model = PeftModel.from_pretrained(model, folder)
    model.eval()
    return model if order.tuning.base_bits else model.to(device)


def load(source: Path, order: PublishOrder, device: torch.device, *, scored: bool = False) -> Any:
    """The model of a folder with plain transformers, on the device."""
    model: Any = (AutoModelForSequenceClassification if scored else AutoModelForCausalLM).from_pretrained(
        source,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        **loading(order.tuning.base_bits, device),
    )
    model.eval()
    return model if order.tuning.base_bits else model.to(device)


def probe(model: Any) -> torch.Tensor:
    """Logits of a fixed row of tokens, fp32 [tokens, vocabulary] on the CPU; of a reward model its score."""
    vocabulary = model.config.get_text_config().vocab_size
    tokens = torch.arange(PROBE_TOKENS).mul(7919).remainder(vocabulary).unsqueeze(0).to(model.device)
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=tokens, use_cache=False).logits
    return logits[0].float().cpu()


def sampled(model: Any, base: Path, order: PublishOrder, context: Context) -> tuple[Path, dict[str, float]]:
    """Output "samples": what the model writes, beside what its base writes; of a reward model, scores; and numbers of
    the safety set, where it is asked. The model may be moved away."""
    tokenizer = load_tokenizer(base)
    if order.tuning.head == "score":
        told = scored(model, context.inputs.get("probe"), tokenizer, lambda share: context.progress(0.75 + share / 4))
        folder = context.output("samples")
        write_entries(folder, told)
        return folder, {}
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2048
    prompts = prompts_of(order.sample_prompts, context.inputs.get("probe"), tokenizer, room)
    prompts += asked_of(context.inputs, tokenizer, room)
    asked = safety.asked(tokenizer, order.chat_template, room) if order.safety else []

    def said(speaker: Any, start: float) -> tuple[list[str], list[str]]:
        written = sample(speaker, prompts, tokenizer, lambda share: context.progress(start + 0.12 * share))
        return written, safety.answered(speaker, asked, tokenizer) if asked else []

    tuned, after = said(model, 0.75)
    untuned: list[str] = []
    before: list[str] = []
    if not is_whole(order):
        with model.disable_adapter():
            untuned, before = said(model, 0.87)
    elif not order.from_scratch:
        device = model.device
        model.to("cpu")  # the base may need the room
        untuned, before = said(load(base, order, device), 0.87)
    folder = context.output("samples")
    write_samples(folder, prompts, tuned, untuned)
    return folder, safety.write_safety(folder, before, after) if before else {}


def check_no_path(folder: Path, paths: list[str]) -> None:
    """Raises Internal "publish.local_path" when a text file names one of this machine's folders."""
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".md", ".jinja", ".txt") and any(path in file.read_text() for path in paths):
            raise Internal("publish.local_path", "A published file names a path of this machine.", file=file.name)


def _rewrite(path: Path, changes: dict[str, Any]) -> None:
    """Sets keys of a JSON file, and drops those whose new value is None; sorted, so that the bytes are fixed."""
    values = json.loads(path.read_text())
    values = {
        key: value for key, value in {**values, **changes}.items() if key not in changes or changes[key] is not None
    }
    path.write_text(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
