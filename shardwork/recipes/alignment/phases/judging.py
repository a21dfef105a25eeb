"""Judging: phase `split` of judge: pairs of answers as a judge model reads them, each in both orders, as tokens.

Which pairs those are says `drawing`; what the judge is asked, `asking`. Answers are strangers' text: they stand between
fences, cut to a length, and nothing in them chooses anything but through the judge's probability of one token. Workers
see tokens only. Runs in the operator's executor without torch. Called by the recipe judge; what comes back: `verdicts`.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from pathlib import Path

from ....dataset.source import staged_files
from ....dataset.tokenise import RowTokenizer
from ....errors import InvalidInput
from ...base import Computed, Context
from ...reading import batches, refuse_unusable
from ..answers import write_pairs
from ..orders import JudgePairsOrder
from .appeal import is_appealing
from .asking import Asker
from .drawing import drawn
from .prompts import MOST_PARTS
from .question import Pair


@dataclass(slots=True)
class _Made:
    """What the split made so far."""

    pairs: list[Pair] = field(default_factory=list[Pair])
    #: two rows a pair, four bytes a token
    shown: list[array[int]] = field(default_factory=list["array[int]"])
    #: answers that are equal or both empty
    same: int = 0
    #: pairs that no cutting makes short enough, or whose text makes special tokens
    unfit: int = 0
    #: pairs left out because an answer speaks to the judge
    appeals: int = 0


def split(order: JudgePairsOrder, context: Context) -> Computed:
    """inputs data, base (the judge) -> outputs part-0 …; metrics parts, pairs.<i>, pairs, same, unfit, appeals, rows.

    Raises InvalidInput "judge.no_pairs", "judge.no_verdict_tokens" and "data.*".
    """
    made, rows, seed = _Made(), 0, bytes.fromhex(order.seed)
    with RowTokenizer.load(context.inputs["base"], chat_template=order.chat_template) as tokenizer:
        asker = Asker(order, tokenizer)
        for batch in batches(staged_files(context.inputs["data"], "judge"), lambda done: context.progress(0.9 * done)):
            if not rows:
                refuse_unusable(batch[0], "judge", "auto")
            rows += len(batch)
            pairs: list[Pair] = []
            for row in batch:
                found, same = drawn(row, seed, order.pairs_per_prompt)
                pairs += found
                made.same += same
            if order.leave_out_appeals:
                kept = [pair for pair in pairs if not is_appealing(pair)]
                made.appeals += len(pairs) - len(kept)
                pairs = kept
            for pair, shown in zip(pairs, asker.tokens(pairs), strict=True):
                if shown is None:
                    made.unfit += 1
                else:
                    made.pairs.append(pair)
                    made.shown += (array("i", tokens) for tokens in shown)
        if not made.pairs:
            raise InvalidInput(
                "judge.no_pairs",
                f"The data holds no pair to judge: {made.same} are of equal answers, {made.appeals} speak to the judge "
                f"and {made.unfit} do not fit the {order.max_length} tokens that the judge reads, or hold its "
                "special tokens.",
                next_step="Give rows with at least two different answers; raise params.max_length, or take a judge "
                "with more positions.",
                key="data",
            )
        first, second = asker.verdict_tokens
        outputs, counts = _write(order, made, context, (first, second, tokenizer.pad_token_id))
    context.progress(1.0)
    metrics = {"rows": rows, "pairs": len(made.pairs), "same": made.same, "unfit": made.unfit, "parts": len(outputs)}
    metrics |= {"appeals": made.appeals, "tokens": sum(len(tokens) for tokens in made.shown)}
    metrics |= {f"pairs.{number}": count for number, count in enumerate(counts)}
    return Computed(outputs=outputs, metrics={name: float(value) for name, value in metrics.items()})


def _write(
    order: JudgePairsOrder, made: _Made, context: Context, tokens: tuple[int, int, int]
) -> tuple[dict[str, Path], list[int]]:
    total = len(made.pairs)
    parts = min(max(order.parts, -(-total // order.most_pairs)), total)
    if parts > MOST_PARTS:
        raise InvalidInput(
            "judge.too_many_pairs",
            f"The data gives {total:,} pairs; one stage judges at most {MOST_PARTS * order.most_pairs:,}.",
            next_step="Cut the data into several stages, or lower params.pairs_per_prompt.",
            key="data",
        )
    outputs: dict[str, Path] = {}
    counts: list[int] = []
    for number in range(parts):
        begin, end = (-(-at * total // parts) for at in (number, number + 1))
        folder = outputs[f"part-{number}"] = context.output(f"part-{number}")
        write_pairs(
            folder,
            made.shown[2 * begin : 2 * end],
            (pair.row() for pair in made.pairs[begin:end]),
            first_token=tokens[0],
            second_token=tokens[1],
            pad_token_id=tokens[2],
        )
        counts.append(end - begin)
    return outputs, counts
