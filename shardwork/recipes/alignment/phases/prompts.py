"""Prompts: questions as tokens, with their rows beside them: what `generate` splits, and ppo and grpo answer.

Owns the format that workers draw answers from (`prompts.safetensors`, `index.json`) and what graders, people and later
stages read (`rows.jsonl`). Runs in the operator's executor without torch. Called by `recipes.prepare` and by the recipe
generate.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from ....dataset.formats.judged import missing_key
from ....dataset.lengths import Overlong
from ....dataset.row import Row
from ....dataset.source import staged_files
from ....dataset.tokenise import RowTokenizer
from ....dataset.weights import reads
from ....errors import InvalidInput
from ....problem import Problem
from ....tensors.file import write_tensors
from ...base import Computed, Context
from ...orders import PrepareOrder
from ...reading import Progress, batches, invalid, overlong, refuse_unusable
from ..orders import PromptsOrder
from .sides import divided

#: keys of rows.jsonl that are ours; a row's own `id` is kept under another name
ID, OWN_ID = "id", "row_id"
#: of one stage: each is a shard for each model
MOST_PARTS = 4096


@dataclass(slots=True)
class Prompts:
    """Questions in flat arrays: a prompt costs its tokens, its row as JSON and a few bytes."""

    tokens: array[int] = field(default_factory=lambda: array("i"))
    offsets: array[int] = field(default_factory=lambda: array("q", [0]))
    #: the rows, a line each
    lines: bytearray = field(default_factory=bytearray)
    ends: array[int] = field(default_factory=lambda: array("q", [0]))
    #: equal for equal questions
    digests: list[bytes] = field(default_factory=list[bytes])
    times: array[int] = field(default_factory=lambda: array("H"))
    truncated: int = 0
    dropped: int = 0
    _names: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def __len__(self) -> int:
        return len(self.digests)

    def add(self, row: Row, tokens: Sequence[int], times: int) -> None:
        digest = row.digest()
        self.tokens.extend(tokens)
        self.offsets.append(len(self.tokens))
        self.lines += _line(row, self._name(row, digest))
        self.ends.append(len(self.lines))
        self.digests.append(digest)
        self.times.append(times)

    def _name(self, row: Row, digest: bytes) -> str:
        """The file's own name for the prompt, unless another prompt has it already."""
        name = row.prompt_id or digest.hex()
        return name if self._names.setdefault(name, digest) == digest else digest.hex()

    def write(self, folder: Path, positions: Sequence[int], index: str) -> int:
        """The three files, with these prompts in this order. Says how many tokens they have."""
        tokens = np.frombuffer(self.tokens, np.int32)
        spans = [(self.offsets[at], self.offsets[at + 1]) for at in positions]
        lengths = np.array([end - begin for begin, end in spans], np.int64)
        tensors = {
            "tokens": np.concatenate([tokens[begin:end] for begin, end in spans]),
            "offsets": np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
        }
        write_tensors(folder / "prompts.safetensors", tensors)
        with (folder / "rows.jsonl").open("wb") as sink:
            sink.writelines(bytes(self.lines[self.ends[at] : self.ends[at + 1]]) for at in positions)
        (folder / "index.json").write_text(index, "utf-8")
        return int(lengths.sum())


def _line(row: Row, name: str) -> bytes:
    value: dict[str, Any] = {ID: name, "prompt": row.prompt}
    if row.tools:
        value["tools"] = list(row.tools)
    for key, item in row.extra.items():
        if key not in ("prompt_id", *value):
            value[key] = item
        elif key == ID:
            value[OWN_ID] = item
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


def prepare_prompts(order: PrepareOrder, context: Context, tokenizer: RowTokenizer) -> Computed:
    """phase prepare of ppo and grpo: inputs data, eval_data?, base -> outputs train, eval?; metrics are counts."""

    found = read_prompts(order, context, tokenizer, "data", lambda fraction: context.progress(0.7 * fraction))
    others = None
    if "eval_data" in context.inputs:
        unweighted = order.model_copy(update={"weights": ()})
        others = read_prompts(unweighted, context, tokenizer, "eval_data", lambda _fraction: None)
    sides = divided(order, found.digests, found.times, others.digests if others is not None else None)
    index = _Index(tokenizer, end_tokens(context.inputs["base"], tokenizer))
    outputs = {"train": context.output("train")}
    tokens = found.write(outputs["train"], sides.train, index.text(len(sides.train)))
    if sides.held_out is not None:
        outputs["eval"] = context.output("eval")
        (found if others is None else others).write(outputs["eval"], sides.held_out, index.text(len(sides.held_out)))
    context.progress(1.0)
    metrics = {
        "rows": len(sides.train),
        "sequences": len(sides.train),
        "tokens": tokens,
        "loss_tokens": 0,
        "truncated_rows": found.truncated,
        "split_rows": 0,
        "dropped_rows": found.dropped + sides.dropped,
        "eval_rows": len(sides.held_out or ()),
        "vocab_size": tokenizer.vocab_size,
    }
    return Computed(outputs=outputs, metrics={name: float(value) for name, value in metrics.items()})


def split(order: PromptsOrder, context: Context) -> Computed:
    """phase split of generate: inputs data, base -> outputs part-0 …: prompts in order, none twice.

    Raises InvalidInput "generate.no_prompts" and "generate.too_many_prompts".
    """
    folder = context.inputs["base"]
    reading = PrepareOrder(recipe="generate", max_length=order.max_length, eval_fraction=None, seed="")
    with RowTokenizer.load(folder, chat_template=order.chat_template) as tokenizer:
        found = read_prompts(reading, context, tokenizer, "data", lambda fraction: context.progress(0.8 * fraction))
        index = _Index(tokenizer, end_tokens(folder, tokenizer))
    parts = _parts(order, len(found))
    outputs = {f"part-{number}": context.output(f"part-{number}") for number in range(parts)}
    metrics = {"rows": len(found), "tokens": len(found.tokens), "parts": parts}
    metrics |= {"truncated_rows": found.truncated, "dropped_rows": found.dropped}
    for number, part in enumerate(outputs.values()):
        positions = range(*(-(-at * len(found) // parts) for at in (number, number + 1)))
        found.write(part, positions, index.text(len(positions)))
        metrics[f"prompts.{number}"] = len(positions)
    context.progress(1.0)
    return Computed(outputs=outputs, metrics={name: float(value) for name, value in metrics.items()})


def _parts(order: PromptsOrder, prompts: int) -> int:
    """As many as are asked for, more where a part would be too large for a shard; none is empty, and they differ by a
    prompt at most."""
    parts = min(max(order.parts, -(-prompts // order.most_rows)), prompts)
    if not parts:
        fix = "Give prompts of which the tokenizer makes tokens."
        raise InvalidInput("generate.no_prompts", "The data holds no prompt.", next_step=fix, key="data")
    if parts > MOST_PARTS:
        most = MOST_PARTS * order.most_rows
        raise InvalidInput(
            "generate.too_many_prompts",
            f"The data holds {prompts:,} prompts; one stage answers at most {most:,}.",
            next_step="Cut the data into several stages.",
            key="data",
        )
    return parts


# ---- reading ------------------------------------------------------------------------------------------------------


def read_prompts(
    order: PrepareOrder, context: Context, tokenizer: RowTokenizer, name: str, progress: Progress
) -> Prompts:
    """The prompts of an input, cut from the left to max_length; one without a token is dropped and counted."""
    found = Prompts()
    how = Overlong(order.overlong)
    for number, batch in enumerate(batches(staged_files(context.inputs[name], order.recipe), progress)):
        if number == 0:
            refuse_unusable(batch[0], order.recipe, order.overlong)
        for row, item in zip(batch, tokenizer.encode(batch), strict=True):
            if isinstance(item, Problem):
                raise invalid(item)
            missing = missing_key(row, order.row_keys)
            if missing is not None:
                raise invalid(missing)
            is_long = len(item.tokens) > order.max_length
            if is_long and how is Overlong.REFUSE:
                raise overlong(row, len(item.tokens), order.max_length)
            if not item.tokens or (is_long and how is Overlong.DROP):
                found.dropped += 1
                continue
            found.truncated += is_long
            weight = order.weights[row.source] if row.source < len(order.weights) else 1.0
            found.add(row, item.tail(order.max_length).tokens, reads(row.digest(), weight))
    return found


# ---- the index ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Index:
    tokenizer: RowTokenizer
    ends: tuple[int, ...]

    def text(self, prompts: int) -> str:
        pad = self.tokenizer.pad_token_id
        value = {"prompts": prompts, "pad_token_id": pad, "eos_token_ids": list(self.ends)}
        return json.dumps(value, indent=2, sort_keys=True) + "\n"


def end_tokens(folder: Path, tokenizer: RowTokenizer) -> tuple[int, ...]:
    """Tokens at which an answer ends: as generation_config.json says, else config.json, else the tokenizer's own."""
    for name in ("generation_config.json", "config.json"):
        given = _object(folder / name).get("eos_token_id")
        listed = cast("list[object]", given) if isinstance(given, list) else [given]
        ids = [one for one in listed if isinstance(one, int) and not isinstance(one, bool)]
        known = tuple(dict.fromkeys(one for one in ids if 0 <= one < tokenizer.vocab_size))
        if known:
            return known
    return (tokenizer.eos_token_id,)


def _object(path: Path) -> dict[str, object]:
    try:
        value: object = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except (ValueError, RecursionError):
        value = {}
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}
