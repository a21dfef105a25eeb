# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""What a model learned by heart: it goes on from the middle of rows, and what it writes is compared with them.

A row counts as reproduced when greedy decoding gives its next tokens exactly, as Carlini et al. define extractable
memorisation (2022, arXiv 2202.07646, section 3). Held-out rows are the measure of what can be guessed without having
seen them. Owns the measuring; which rows is `prepare`'s choice (`probe`), what it means is for people to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from shardwork.errors import Corrupt, ShardworkError
from shardwork.tensors.file import read_tensors

#: tokens that are given, at most, and that are compared
PREFIX, SUFFIX = 64, 32
#: fewer tokens are guessed by chance
LEAST_SUFFIX = 8
#: rows side by side
BATCH = 8
FILE = "probe.safetensors"


@dataclass(frozen=True, slots=True)
class Row:
    """Its tokens, 1 for each that is learned from, and whether it was learned from at all."""

    tokens: list[int]
    labels: list[int]
    is_learnt: bool


@dataclass(frozen=True, slots=True)
class Probe:
    """The beginning that is given, and how the row goes on."""

    prefix: list[int]
    suffix: list[int]
    is_learnt: bool


@dataclass(frozen=True, slots=True)
class Side:
    """What was found in the learnt rows, or in the held-out ones."""

    rows: int
    #: rows whose next tokens came out exactly
    reproduced: int
    #: the most tokens in a row that came out verbatim, and the mean over rows
    longest_run: int
    mean_run: float

    def metrics(self, name: str) -> dict[str, float]:
        return {
            f"memorised.{name}.rows": float(self.rows),
            f"memorised.{name}.reproduced": float(self.reproduced),
            f"memorised.{name}.longest_run": float(self.longest_run),
            f"memorised.{name}.mean_run": self.mean_run,
        }


@dataclass(frozen=True, slots=True)
class Recall:
    learnt: Side
    held_out: Side

    def metrics(self) -> dict[str, float]:
        found = self.learnt.metrics("train") if self.learnt.rows else {}
        return found | (self.held_out.metrics("held_out") if self.held_out.rows else {})

    def facts(self) -> list[tuple[str, str]]:
        """For the model card: counts only, which two machines agree on."""
        sides = (("training rows known by heart", self.learnt), ("held-out rows guessed", self.held_out))
        return [(name, f"{side.reproduced} of {side.rows} tried") for name, side in sides if side.rows]


def recall(model: Any, folder: Path, *, pad_token: int) -> Recall:
    """Measures on the rows of the `probe` artifact. Raises Corrupt "probe.unreadable"."""
    config = model.config.get_text_config()
    room = getattr(config, "max_position_embeddings", None) or PREFIX + SUFFIX
    probes = read_probes(folder, prefix=max(1, min(PREFIX, room - SUFFIX)), vocabulary=config.vocab_size)
    was_training = model.training
    model.eval()
    written: list[list[int]] = []
    for begin in range(0, len(probes), BATCH):
        written += _go_on(model, [probe.prefix for probe in probes[begin : begin + BATCH]], pad_token)
    model.train(was_training)
    sides = [
        _side([(probe, tokens) for probe, tokens in zip(probes, written, strict=True) if probe.is_learnt is learnt])
        for learnt in (True, False)
    ]
    return Recall(*sides)


def read_rows(folder: Path) -> list[Row]:
    """The rows of the `probe` artifact. Raises Corrupt "probe.unreadable"."""
    try:
        tensors = read_tensors(folder / FILE)
        tokens, mask = tensors["tokens"].tolist(), tensors["mask"].tolist()
        offsets, learnt = tensors["offsets"].tolist(), tensors["sides"].tolist()
        spans = list(zip(offsets, offsets[1:], learnt, strict=False))
    except (OSError, KeyError, ShardworkError) as error:
        raise Corrupt("probe.unreadable", "The rows to go on from cannot be read.", file=FILE) from error
    return [Row(tokens[begin:end], mask[begin:end], bool(is_learnt)) for begin, end, is_learnt in spans]


def read_probes(folder: Path, *, prefix: int, vocabulary: int) -> list[Probe]:
    """Where each row is cut: in its middle, but not before its first label; rows with too little after it are left
    out."""
    found: list[Probe] = []
    for each in read_rows(folder):
        row, labels = each.tokens, each.labels
        first = labels.index(1) if 1 in labels else len(row)
        cut = max(first, len(row) // 2, 1)
        cut = min(cut, max(first, len(row) - LEAST_SUFFIX, 1))
        suffix = row[cut : cut + SUFFIX]
        if len(suffix) >= LEAST_SUFFIX and all(0 <= token < vocabulary for token in row):
            found.append(Probe(row[max(0, cut - prefix) : cut], suffix, each.is_learnt))
    return found


def _go_on(model: Any, prefixes: Sequence[list[int]], pad_token: int) -> list[list[int]]:
    """Greedy continuations; beginnings are padded on the left, which attention leaves out."""
    longest = max(len(prefix) for prefix in prefixes)
    rows = [[pad_token] * (longest - len(prefix)) + prefix for prefix in prefixes]
    seen = [[0] * (longest - len(prefix)) + [1] * len(prefix) for prefix in prefixes]
    settings = GenerationConfig(do_sample=False, max_new_tokens=SUFFIX, eos_token_id=None, pad_token_id=pad_token)
    with torch.inference_mode():
        found = model.generate(
            input_ids=torch.tensor(rows, device=model.device),
            attention_mask=torch.tensor(seen, device=model.device),
            generation_config=settings,
        )
    return [row[longest:] for row in found.tolist()]


def _side(pairs: Sequence[tuple[Probe, list[int]]]) -> Side:
    runs = [common_run(probe.suffix, tokens[: len(probe.suffix)]) for probe, tokens in pairs]
    exact = sum(tokens[: len(probe.suffix)] == probe.suffix for probe, tokens in pairs)
    return Side(len(pairs), exact, max(runs, default=0), sum(runs) / len(runs) if runs else 0.0)


def common_run(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the longest run of tokens that both hold."""
    best = 0
    before = [0] * (len(other) + 1)
    for token in one:
        here = [0] * (len(other) + 1)
        for at, its in enumerate(other, start=1):
            if its == token:
                here[at] = before[at - 1] + 1
                best = max(best, here[at])
        before = here
    return best
