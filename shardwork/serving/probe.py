# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""The process that loads a model as anybody would: plain transformers, PEFT for an adapter, on the CPU, offline.

A program of its own (`python -I -m shardwork.serving.probe`), so that who asks never loads torch and survives what a
model does to memory. Reads one JSON request on stdin, writes one JSON answer on stdout. Started by
`shardwork.serving.check`; no code of a model is ever run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: new tokens of the answer
ANSWER_TOKENS = 12
#: tokens of the fixed row whose logits are compared
PROBE_TOKENS = 16
#: of the largest logit, by what a dtype rounds away in a merge
TOLERANCE = {"float32": 1e-4, "float64": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
PROMPT = "The"
QUESTION = [{"role": "user", "content": "Hello"}]
#: keys of config.json that hold a path of this machine
DROPPED_KEYS = ("_name_or_path", "name_or_path")


class Wrong(Exception):
    """The answer to give instead."""

    def __init__(self, **answer: Any) -> None:
        self.answer = answer
        super().__init__(str(answer))


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no answer
    request = json.load(sys.stdin)
    try:
        answer = run(request)
    except Wrong as wrong:
        answer = wrong.answer
    answers.write(json.dumps(answer))
    answers.flush()


def run(request: dict[str, Any]) -> dict[str, Any]:
    """`folder`, `base` (of an adapter, else None), `template` (a file, or None), `merge` (a folder, or None)."""
    folder, base = Path(request["folder"]), request["base"]
    import transformers  # noqa: F401  seconds, which are not the model's

    began = time.monotonic()
    with phase("load"):
        model, adapter_parameters = load(folder, Path(base) if base else None)
    seconds = time.monotonic() - began
    source = Path(base) if base else folder
    with phase("tokenizer"):
        tokenizer = load_tokenizer(source, request["template"])
    with phase("generate"):
        before = probe(model)
        answer = talk(model, tokenizer)
    found = {
        "seconds": seconds,
        "parameters": sum(each.numel() for each in model.parameters()),
        "adapter_parameters": adapter_parameters,
        "dtype": dtype_of(model),
        "tokenizer": type(tokenizer).__name__,
        "tokens": len(tokenizer),
        "has_chat_template": bool(tokenizer.chat_template),
        **answer,
    }
    if request["merge"]:
        with phase("merge"):
            write_merged(model, Path(request["merge"]))
            del model
            found["merged"] = compare(before, Path(request["merge"]), found["dtype"])
    return found


@contextmanager
def phase(name: str) -> Generator[None, None, None]:
    try:
        yield
    except Wrong:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:400]
        raise Wrong(failed=name, kind=type(error).__name__, message=text) from error


def load(folder: Path, base: Path | None) -> tuple[Any, int]:
    """The model in the dtype it is stored in, and how many of its parameters are the adapter's."""
    model = load_model(base or folder)
    if base is None:
        return model.eval(), 0
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    own = sum(each.numel() for each in model.parameters())
    # "auto" would look the base up by name
    tuned: Any = PeftModel.from_pretrained(model, folder, local_files_only=True)
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        stored = set(file.keys())
    wanted = set(get_peft_model_state_dict(tuned, save_embedding_layers=False))
    if wanted - stored:
        raise Wrong(missing=sorted(wanted - stored)[0], file="adapter_model.safetensors")
    strange = sorted(name for name in stored - wanted if ".lora_" in name)
    if strange:
        raise Wrong(unexpected=strange[0], file="adapter_model.safetensors")
    return tuned.eval(), sum(each.numel() for each in tuned.parameters()) - own


def load_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    # a pair, because of output_loading_info; the annotations know of the model alone
    pair: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype="auto",
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    model, loading = pair
    if loading["missing_keys"]:  # transformers would draw them at random
        raise Wrong(missing=sorted(loading["missing_keys"])[0], file="")
    return model


def load_tokenizer(folder: Path, template: str | None) -> Any:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if template:
        tokenizer.chat_template = Path(template).read_text("utf-8")
    return tokenizer


def dtype_of(model: Any) -> str:
    return str(next(each.dtype for each in model.parameters() if each.is_floating_point())).removeprefix("torch.")


def probe(model: Any) -> Any:
    """Logits of a fixed row of tokens, fp32 [tokens, vocabulary]."""
    import torch

    vocabulary = model.config.get_text_config().vocab_size
    tokens = torch.arange(PROBE_TOKENS).mul(7919).remainder(vocabulary).unsqueeze(0)
    with torch.inference_mode():
        logits = model(input_ids=tokens, use_cache=False).logits[0].float()
    if not bool(torch.isfinite(logits).all()):
        raise Wrong(failed="generate", kind="ValueError", message="the model gives logits that are no numbers")
    return logits


def talk(model: Any, tokenizer: Any) -> dict[str, Any]:
    """A greedy answer to a greeting, through the chat template where there is one that works."""
    import torch
    from transformers import GenerationConfig

    prompt, template_error = PROMPT, ""
    if tokenizer.chat_template:
        try:
            prompt = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
        except Exception as error:
            template_error = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    ids = tokenizer(prompt, add_special_tokens=prompt == PROMPT)["input_ids"] or [tokenizer.eos_token_id or 0]
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2048
    row = torch.tensor([ids[-max(1, room - ANSWER_TOKENS) :]])
    end = tokenizer.eos_token_id
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=ANSWER_TOKENS,
        eos_token_id=end,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (end or 0),
    )
    model.generation_config = settings
    began = time.monotonic()
    with torch.inference_mode():
        out = model.generate(input_ids=row, attention_mask=torch.ones_like(row), generation_config=settings)
    new = out[0, row.shape[1] :]
    return {
        "template_error": template_error,
        "prompt": prompt[:300],
        "answer": tokenizer.decode(new, skip_special_tokens=True),
        "answer_tokens": len(new),
        "answer_seconds": time.monotonic() - began,
    }


def write_merged(model: Any, into: Path) -> None:
    """The adapter added to the weights of its base, in the base's dtype."""
    from transformers import GenerationConfig

    whole = model.merge_and_unload(safe_merge=True)
    # the base's own generation config is copied as a file: saving it would refuse harmless odd values in it
    whole.generation_config = GenerationConfig.from_model_config(whole.config)
    whole.save_pretrained(into)
    path = into / "config.json"
    config = {key: value for key, value in json.loads(path.read_text()).items() if key not in DROPPED_KEYS}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def compare(before: Any, folder: Path, dtype: str) -> dict[str, float]:
    """How far the merged folder, loaded again, is from base with adapter."""
    after = probe(load_model(folder).eval())
    return {
        "difference": float((after - before).abs().max()),
        "tolerance": TOLERANCE.get(dtype, 5e-2) * max(1.0, float(before.abs().max())),
        "agreement": float((after.argmax(-1) == before.argmax(-1)).float().mean()),
    }


if __name__ == "__main__":
    main()
