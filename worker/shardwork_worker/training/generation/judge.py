# pyright: standard
"""Phase `map` of judge: how probable it is to a model that the first answer of a pair is the better one.

Read off the next token's probabilities, of the two tokens that stand for the answers: nothing that a model writes is
parsed, so nothing that an answer says can become a verdict other than by persuading it. Called by the trainer and
`audit`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from shardwork.recipes.alignment.answers import Pairs, Verdicts, read_pairs, write_verdicts
from shardwork.recipes.alignment.orders import JudgeOrder
from shardwork.recipes.base import Computed, Context

from ..device import autocast
from ..micro import MicroBatch
from ..model import Built, check_length
from .passes import Asker, Lefts, check_finite, in_batches


def judge(order: JudgeOrder, context: Context, built: Built, micro: MicroBatch) -> Computed:
    """Input pairs -> output verdicts. Metrics: see JudgeOrder."""
    pairs = read_pairs(context.inputs["pairs"], order, vocabulary=built.vocabulary)
    found = judged(order, pairs, range(order.pairs), context, built, micro)
    first, second = np.array([found[pair] for pair in range(order.pairs)], np.float32).T
    folder = context.output("verdicts")
    write_verdicts(folder, Verdicts(first=first.copy(), second=second.copy()))
    metrics = {f"first.{pair}": float(one) for pair, one in enumerate(first)}
    metrics |= {f"second.{pair}": float(one) for pair, one in enumerate(second)}
    return Computed(outputs={"verdicts": folder}, metrics=metrics | {"tokens": float(len(pairs.tokens))})


def judged(
    order: JudgeOrder, pairs: Pairs, numbers: Iterable[int], context: Context, built: Built, micro: MicroBatch
) -> dict[int, tuple[float, float]]:
    """Of each pair the probability that A is better, with A shown first and with B shown first."""
    chosen = list(numbers)
    check_length(built, max(len(pairs.row(2 * pair + place)) for pair in chosen for place in (0, 1)))
    asker = Asker(built)
    names = torch.tensor([pairs.first_token, pairs.second_token], device=built.device)

    def take(these: Sequence[int]) -> list[float]:
        rows = Lefts.of([pairs.row(row) for row in these], pairs.pad_token_id, built.device)
        with torch.inference_mode(), autocast(built.device, order.precision):
            logits = asker.last(rows, 1)[:, -1].index_select(1, names)
        first, second = logits.float().cpu().double().unbind(dim=1)
        better = torch.sigmoid(first - second)
        check_finite(better.numpy())
        return [float(one) for one in better]

    rows = [2 * pair + place for pair in chosen for place in (0, 1)]
    found = in_batches(rows, lambda row: len(pairs.row(row)), asker.bounded(micro), take, context.progress)
    # with B shown first, "the first is better" speaks for B
    return {pair: (found[2 * pair], 1.0 - found[2 * pair + 1]) for pair in chosen}
