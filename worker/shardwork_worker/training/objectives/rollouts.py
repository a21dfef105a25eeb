# pyright: standard
"""Rollouts: a shard's answers with their prompts and scores, read from three artifacts and checked.

An answer that could not be run here (no prompt, tokens that the model lacks, longer than the order allows) is left out
and counted: it must not stop the shards that learn from the others. Called by `choice`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shardwork.errors import Corrupt, ShardworkError
from shardwork.recipes.objectives import PolicyObjective
from shardwork.tensors.file import read_tensors

from ..batches import IGNORE, Row, pad_token, read_index


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    #: prompt and answer, labels on the answer
    row: Row
    #: which prompt it answers; the answers to one are a group
    group: int
    score: float
    #: by itself, not cut off
    ended: bool
    #: of its tokens, as whoever drew it says: fp32 [tokens]
    log_probs: Tensor


@dataclass(frozen=True, slots=True)
class Rollouts:
    answers: Sequence[Answer]
    #: answers that could not be read as ones of this model
    unusable: int
    pad_token_id: int


def read_rollouts(objective: PolicyObjective, inputs: Mapping[str, Path], max_length: int, vocabulary: int) -> Rollouts:
    """Inputs prompts, answers, scores. Raises Corrupt "rollouts.*"."""
    prompts = _sequences(inputs["prompts"] / "prompts.safetensors", ())
    answers = _sequences(inputs["answers"] / "answers.safetensors", ("logprobs",))
    ended = _tensor(inputs["answers"] / "answers.safetensors", "ended")
    scores = _tensor(inputs["scores"] / "scores.safetensors", "scores").astype(np.float64)
    rows = len(answers.ends)
    if len(scores) != rows or len(ended) != rows or rows % objective.group or not prompts.ends:
        sentence = "Answers, scores and groups of a rollout do not have the same number of rows."
        raise Corrupt("rollouts.rows", sentence, answers=rows, scores=len(scores), group=objective.group)
    if not np.isfinite(scores).all():
        sentence = "A score of a rollout is not a finite number."
        raise Corrupt("rollouts.bad_score", sentence, row=int(np.flatnonzero(~np.isfinite(scores))[0]))
    read: list[Answer] = []
    for number in range(rows):
        group = number // objective.group
        prompt = prompts.tokens((objective.first_prompt + group) % len(prompts.ends))
        row = _row(prompt, answers.tokens(number), max_length, vocabulary)
        if row is not None:
            drawn = torch.from_numpy(answers.beside(number, "logprobs").astype(np.float32))
            read.append(
                Answer(row=row, group=group, score=float(scores[number]), ended=bool(ended[number]), log_probs=drawn)
            )
    return Rollouts(read, rows - len(read), pad_token(read_index(inputs["prompts"]), vocabulary))


def _row(prompt: np.ndarray[Any, Any], answer: np.ndarray[Any, Any], max_length: int, vocabulary: int) -> Row | None:
    """None where the model can't be run on it."""
    tokens = torch.from_numpy(np.concatenate([prompt, answer]).astype(np.int64))
    if not len(prompt) or len(tokens) > max_length or not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary:
        return None
    labels = tokens.clone()
    labels[: len(prompt)] = IGNORE
    return Row(tokens=tokens, labels=labels)


@dataclass(frozen=True, slots=True)
class _Sequences:
    """Runs of tokens in one file, and what lies beside each token."""

    tensors: Mapping[str, np.ndarray[Any, Any]]
    begins: list[int]
    ends: list[int]

    def tokens(self, number: int) -> np.ndarray[Any, Any]:
        return self.beside(number, "tokens")

    def beside(self, number: int, name: str) -> np.ndarray[Any, Any]:
        return self.tensors[name][self.begins[number] : self.ends[number]]


def _sequences(path: Path, beside: tuple[str, ...]) -> _Sequences:
    tensors = {name: _tensor(path, name) for name in ("tokens", "offsets", *beside)}
    offsets: list[int] = tensors["offsets"].tolist()
    least = min(tensors[name].size for name in ("tokens", *beside))
    if not offsets or any(start > end for start, end in pairwise([0, *offsets, least])):
        raise Corrupt("rollouts.unreadable", "A file of rollouts has offsets that do not rise.", file=path.name)
    return _Sequences(tensors, offsets[:-1], offsets[1:])


def _tensor(path: Path, name: str) -> np.ndarray[Any, Any]:
    try:
        return read_tensors(path)[name]
    except (OSError, KeyError, ShardworkError) as error:
        raise Corrupt("rollouts.unreadable", "A file of rollouts cannot be read.", file=path.name) from error
