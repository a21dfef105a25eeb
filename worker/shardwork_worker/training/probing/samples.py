# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""What a published model writes, beside what its base would have written: a few short greedy samples for its owner.

Prompts are those of the order, the beginnings of some rows of the `probe` artifact: held-out ones where there are any,
and some of a policy's own. Greedy, so the same machine writes the same again; two kinds of machine may differ where two
tokens are equally likely, which is why samples are no part of what two keys agree on. Called by `publish`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig

from shardwork.recipes.alignment.answers import ANY_TOKEN, read_prompts

from ..batches import IGNORE, RowFile, read_index
from .recall import Row, read_rows

SAMPLE_TOKENS = 48
#: rows whose beginnings are prompts, and the most tokens of one
SAMPLED_ROWS = 3
PROMPT_TOKENS = 128
#: an order allows none that is longer; of a longer one the end is asked
LONGEST_PROMPT = 1 << 20
#: of held-out pairs
PAIRS = "selection.safetensors"
FILE = "samples.json"


@dataclass(frozen=True, slots=True)
class Prompt:
    """Where a sample begins, and how its row really goes on; `side` is "order", "train" or "held_out"."""

    tokens: list[int]
    text: str
    side: str
    expected: str = ""


def load_tokenizer(base: Path) -> Any:
    return AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)


def prompts_of(given: tuple[str, ...], rows: Path | None, tokenizer: Any, room: int) -> list[Prompt]:
    """Prompts of the order, then some of rows; each leaves `SAMPLE_TOKENS` of the model's `room` free."""
    end = tokenizer.eos_token_id
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else end
    most = max(1, room - SAMPLE_TOKENS)
    found = [Prompt((tokenizer(text)["input_ids"] or [start or 0])[-most:], text, "order") for text in given]
    if rows is None:
        return found
    known = read_rows(rows)
    side = [row for row in known if not row.is_learnt] or known
    return found + [_begun(row, tokenizer, min(most, PROMPT_TOKENS)) for row in side[:SAMPLED_ROWS]]


def asked_of(inputs: Mapping[str, Path], tokenizer: Any, room: int) -> list[Prompt]:
    """Prompts of a policy, from an input `eval` or `train`; those of held-out pairs with the answer that was liked.

    Raises Corrupt "answers.unreadable" and "rows.*".
    """
    found: list[Prompt] = []
    most = max(1, min(room - SAMPLE_TOKENS, PROMPT_TOKENS))
    if "eval" in inputs and (inputs["eval"] / PAIRS).exists():
        return [_begun(row, tokenizer, most) for row in _judged(inputs["eval"])]
    for name, side in (("eval", "held_out"), ("train", "train")):
        if name in inputs:
            prompts = read_prompts(inputs[name], max_length=LONGEST_PROMPT)
            for number in range(min(SAMPLED_ROWS, len(prompts))):
                tokens = [int(token) for token in prompts.prompt(number)[-most:]]
                found.append(Prompt(tokens, text_of(tokenizer, tokens), side))
    return found


def _judged(folder: Path) -> list[Row]:
    """The first row of each of some items: of a pair the answer that was liked, and no answer that was not."""
    each = int(read_index(folder).get("rows_per_item", 1))
    file = RowFile(folder / PAIRS, LONGEST_PROMPT, ANY_TOKEN)
    liked = (number for number in range(0, file.rows, each) if file.value(number // each) >= 0.5)
    found = [file.row(number) for number in islice(liked, SAMPLED_ROWS)]
    return [Row(row.tokens.tolist(), row.labels.ne(IGNORE).long().tolist(), is_learnt=False) for row in found]


def _begun(row: Row, tokenizer: Any, most: int) -> Prompt:
    """A row up to its first label, which is where an answer begins; up to its middle where all of it is learned."""
    first = row.labels.index(1) if 1 in row.labels else len(row.tokens)
    cut = max(first if 1 < first < len(row.tokens) else len(row.tokens) // 2, 1)
    prompt, rest = row.tokens[max(0, cut - most) : cut], row.tokens[cut : cut + SAMPLE_TOKENS]
    return Prompt(
        prompt, text_of(tokenizer, prompt), "train" if row.is_learnt else "held_out", text_of(tokenizer, rest)
    )


def sample(model: Any, prompts: list[Prompt], tokenizer: Any, done: Callable[[float], None]) -> list[str]:
    """Greedy continuations, one a prompt; `done` hears the share of them that is written."""
    end = tokenizer.eos_token_id
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=SAMPLE_TOKENS,
        eos_token_id=end,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (end or 0),
    )
    model.generation_config = settings
    written: list[str] = []
    for prompt in prompts:
        ids = torch.tensor([prompt.tokens], device=model.device)
        with torch.inference_mode():
            found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        written.append(text_of(tokenizer, found[0, len(prompt.tokens) :].tolist()))
        done(len(written) / len(prompts))
    return written


def write_samples(folder: Path, prompts: list[Prompt], tuned: list[str], base: list[str]) -> None:
    """`samples.json`; `base` is empty where there was no model before this one."""
    entries: list[dict[str, str]] = []
    for number, (prompt, completion) in enumerate(zip(prompts, tuned, strict=True)):
        entry = {"prompt": prompt.text, "completion": completion, "side": prompt.side}
        if base:
            entry["base"] = base[number]
        if prompt.expected:
            entry["expected"] = prompt.expected
        entries.append(entry)
    write_entries(folder, entries)


def write_entries(folder: Path, entries: list[dict[str, str]]) -> None:
    text = json.dumps({"samples": entries}, indent=2, ensure_ascii=False) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8")


def text_of(tokenizer: Any, tokens: list[int]) -> str:
    # bytes that are no text alone, in the middle of a letter, must not stop the file from being written
    return str(tokenizer.decode(tokens, skip_special_tokens=True)).encode("utf-8", "replace").decode("utf-8")
