# pyright: standard
"""Rollouts: a shard's answers with their prompts and scores, laid together as rows to learn from.

The three artifacts are read and refused by `shardwork.recipes.alignment.answers`. An answer that is too long for the
order with its prompt is left out and counted: it must not stop the shards that learn from the others. Called by
`choice`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shardwork.errors import Corrupt, ShardworkError
from shardwork.recipes.alignment.answers import SCORES, read_answers, read_prompts, read_scores
from shardwork.recipes.alignment.orders import GenerateOrder, Sampling
from shardwork.recipes.objectives import PolicyObjective
from shardwork.tensors.file import open_tensors

from ..batches import IGNORE, Row

#: prompts of a `GenerateOrder`
MOST_PROMPTS = 4096


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
    #: answers that are too long with their prompts
    too_long: int
    pad_token_id: int


def read_rollouts(objective: PolicyObjective, inputs: Mapping[str, Path], max_length: int, vocabulary: int) -> Rollouts:
    """Inputs prompts, answers, scores. Raises Corrupt "answers.unreadable"."""
    rows = _rows(inputs["scores"], objective)
    drawn = GenerateOrder(
        tuning=None,
        first_prompt=objective.first_prompt,
        prompts=rows // objective.group,
        answers=objective.group,
        sampling=Sampling(max_new_tokens=objective.max_new_tokens),
        max_length=max_length,
        batch_size=1,
    )
    prompts = read_prompts(inputs["prompts"], max_length=max_length, vocabulary=vocabulary)
    answers = read_answers(inputs["answers"], drawn, prompts, vocabulary=vocabulary)
    scores = read_scores(inputs["scores"], rows)
    read: list[Answer] = []
    for number in range(rows):
        prompt = prompts.of_row(drawn, number)
        tokens = torch.from_numpy(np.concatenate([prompt, answers.answer(number)]).astype(np.int64))
        if len(tokens) > max_length:
            continue
        labels = tokens.clone()
        labels[: len(prompt)] = IGNORE
        read.append(
            Answer(
                row=Row(tokens=tokens, labels=labels),
                group=number // objective.group,
                score=float(scores[number]),
                ended=bool(answers.ended[number]),
                log_probs=torch.from_numpy(answers.logprobs_of(number).copy()),
            )
        )
    return Rollouts(read, rows - len(read), prompts.pad_token_id)


def _rows(scores: Path, objective: PolicyObjective) -> int:
    """How many answers there are: the order says how many each prompt has, and scores are one an answer."""
    try:
        with open_tensors(scores / SCORES) as opened:
            rows = opened.shapes["scores"][0]
    except (OSError, KeyError, IndexError, ShardworkError) as error:
        raise Corrupt("answers.unreadable", "The scores cannot be read.", file=SCORES) from error
    if rows < 1 or rows % objective.group or rows // objective.group > MOST_PROMPTS:
        sentence = "There are not as many scores as answers to each prompt."
        raise Corrupt("answers.unreadable", sentence, scores=rows, group=objective.group)
    return rows
