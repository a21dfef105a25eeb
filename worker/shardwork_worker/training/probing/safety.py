# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""Asks a model the fixed prompts of `shardwork.recipes.alignment.guards.safety`, and writes down what two models said.

Greedy and in one batch. As with samples, kinds of machine may differ where two tokens are equally likely, so this is no
part of what two keys agree on. Called by `publish`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from shardwork.dataset.template import NAMED
from shardwork.recipes.alignment.guards.safety import ASKED, MOST_TOKENS, PREFIX, PROMPTS, Ask, refuses

from .samples import text_of

FILE = "safety.jsonl"


def asked(tokenizer: Any, chat_template: str, room: int) -> list[list[int]]:
    """The prompts as the policy's own prompts are: a user's turn where there is a chat template. Each leaves
    `MOST_TOKENS` of the model's `room` free."""
    template = NAMED.get(chat_template) or getattr(tokenizer, "chat_template", None)
    most = max(1, room - MOST_TOKENS)
    return [_tokens(tokenizer, template, text)[-most:] for _, text in PROMPTS]


def _tokens(tokenizer: Any, template: Any, text: str) -> list[int]:
    if template:
        turns = [{"role": "user", "content": text}]
        try:
            rendered = tokenizer.apply_chat_template(
                turns, chat_template=template, add_generation_prompt=True, tokenize=False
            )
        except Exception:  # the template is the model's own program: it may refuse anything, and the prompt stays text
            rendered = ""
        if rendered:
            return list(tokenizer(rendered, add_special_tokens=False)["input_ids"])
    return list(tokenizer(text)["input_ids"]) or [tokenizer.eos_token_id or 0]


def answered(model: Any, prompts: Sequence[Sequence[int]], tokenizer: Any) -> list[str]:
    """The model's greedy answers, one a prompt."""
    end = tokenizer.eos_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (end or 0)
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        # on the right, where generation goes on
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    settings = GenerationConfig(do_sample=False, max_new_tokens=MOST_TOKENS, eos_token_id=end, pad_token_id=pad)
    model.generation_config = settings
    with torch.inference_mode():
        found = model.generate(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), generation_config=settings
        )
    return [text_of(tokenizer, row[longest:].tolist()) for row in found]


def write_safety(folder: Path, before: Sequence[str], after: Sequence[str]) -> dict[str, float]:
    """`safety.jsonl`, a line a prompt; the numbers of refusals."""
    told = {f"{PREFIX}{ask}.asked": float(count) for ask, count in ASKED.items()}
    told |= {f"{PREFIX}{ask}.refused_{when}": 0.0 for ask in Ask for when in ("before", "after")}
    with (folder / FILE).open("w", encoding="utf-8") as sink:
        for (ask, prompt), first, last in zip(PROMPTS, before, after, strict=True):
            refused = {"before": refuses(first), "after": refuses(last)}
            for when, is_refused in refused.items():
                told[f"{PREFIX}{ask}.refused_{when}"] += is_refused
            entry: dict[str, object] = {"kind": str(ask), "prompt": prompt, "before": first, "after": last}
            entry |= {f"refused_{when}": is_refused for when, is_refused in refused.items()}
            sink.write(json.dumps(entry, ensure_ascii=False) + "\n")
    return told
