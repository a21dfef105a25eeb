# pyright: standard
"""Phase `score`: a reward model's number for each answer.

The model is sequence classification with one label, as recipe `reward` publishes it: its number is read at the last
token of prompt and answer that is not its padding, as while it learned. Called by the trainer and `audit`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from shardwork.recipes.alignment.answers import Answers, Prompts, read_answers, read_prompts, write_scores
from shardwork.recipes.alignment.orders import ScoreOrder
from shardwork.recipes.base import Computed, Context

from ..batches import Row, collate
from ..device import autocast
from ..micro import MicroBatch
from ..model import Built, check_length
from .passes import check_finite, in_batches


def score(order: ScoreOrder, context: Context, built: Built, micro: MicroBatch) -> Computed:
    """Inputs prompts, answers -> output scores. Metrics: see ScoreOrder."""
    rows = range(order.of.rows)
    found = scored(order, rows, context, built, micro)
    scores = np.array([found[row] for row in rows], np.float32)
    folder = context.output("scores")
    write_scores(folder, scores)
    return Computed(outputs={"scores": folder}, metrics={f"score.{row}": float(one) for row, one in enumerate(scores)})


def scored(
    order: ScoreOrder, rows: Iterable[int], context: Context, built: Built, micro: MicroBatch
) -> dict[int, float]:
    """Each row's number. Raises Corrupt "answers.unreadable", also where a token is none of the reward model's."""
    prompts = read_prompts(context.inputs["prompts"], max_length=order.of.max_length, vocabulary=built.vocabulary)
    answers = read_answers(context.inputs["answers"], order.of, prompts, vocabulary=built.vocabulary)
    texts = {row: _text(order, prompts, answers, row) for row in rows}
    check_length(built, max(len(text) for text in texts.values()))
    pad_token_id = int(built.config.pad_token_id)

    def take(these: Sequence[int]) -> list[float]:
        batch = collate([Row(texts[row], texts[row]) for row in these], pad_token_id, built.device)
        with torch.inference_mode(), autocast(built.device, order.precision):
            logits: Tensor = built.model(**batch.inputs(), use_cache=False).logits
        numbers = logits.float().cpu().reshape(len(these))
        check_finite(numbers.numpy())
        return [float(one) for one in numbers]

    return in_batches(texts, lambda row: len(texts[row]), micro, take, context.progress)


def _text(order: ScoreOrder, prompts: Prompts, answers: Answers, row: int) -> Tensor:
    """Prompt and answer; what is too long loses its start."""
    tokens = np.concatenate([prompts.of_row(order.of, row), answers.answer(row)])
    return torch.from_numpy(tokens[-order.max_length :].astype(np.int64))
