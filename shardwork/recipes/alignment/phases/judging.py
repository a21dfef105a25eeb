"""Judging: phase `split` of judge: pairs of answers as a judge model reads them, each in both orders, as tokens.

Owns which pairs are drawn; what the judge is asked is `asking`. Answers are strangers' text: they stand between fences,
cut to a length, and nothing in them chooses anything but through the judge's probability of one token. Workers see
tokens only. Runs in the operator's executor without torch. Called by the recipe judge; what comes back is `verdicts`.
"""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ....dataset.row import Answer, Format, Part, Row
from ....dataset.source import staged_files
from ....dataset.split import shuffled
from ....dataset.tokenise import RowTokenizer
from ....errors import InvalidInput
from ...base import Computed, Context
from ...reading import batches, refuse_unusable
from ..answers import write_pairs
from ..orders import JudgePairsOrder
from .asking import Asker, Pair
from .prompts import MOST_PARTS


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


def split(order: JudgePairsOrder, context: Context) -> Computed:
    """inputs data, base (the judge) -> outputs part-0 …; metrics parts, pairs.<i>, pairs, same, unfit, rows.

    Raises InvalidInput "judge.no_pairs", "judge.no_verdict_tokens" and "data.*".
    """
    made, rows = _Made(), 0
    with RowTokenizer.load(context.inputs["base"], chat_template=order.chat_template) as tokenizer:
        asker = Asker(order, tokenizer)
        for batch in batches(staged_files(context.inputs["data"], "judge"), lambda done: context.progress(0.9 * done)):
            if not rows:
                refuse_unusable(batch[0], "judge", "auto")
            rows += len(batch)
            pairs = [pair for row in batch for pair in _drawn(row, order, made)]
            for pair, shown in zip(pairs, asker.tokens(pairs), strict=True):
                if shown is None:
                    made.unfit += 1
                else:
                    made.pairs.append(pair)
                    made.shown += (array("i", tokens) for tokens in shown)
        if not made.pairs:
            raise InvalidInput(
                "judge.no_pairs",
                f"The data holds no pair to judge: {made.same} are of equal answers, {made.unfit} can't be shown.",
                next_step="Give rows with at least two different answers, or raise params.max_length.",
                key="data",
            )
        first, second = asker.verdict_tokens
        outputs, counts = _write(order, made, context, (first, second, tokenizer.pad_token_id))
    context.progress(1.0)
    metrics = {"rows": rows, "pairs": len(made.pairs), "same": made.same, "unfit": made.unfit, "parts": len(outputs)}
    metrics |= {"tokens": sum(len(tokens) for tokens in made.shown)}
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


# ---- which pairs --------------------------------------------------------------------------------------------------


def answers_of(row: Row) -> tuple[Part, list[Answer]]:
    """A row's prompt and its answers; a preference's are called by what they were."""
    if row.format is Format.ANSWERS:
        return row.prompt, list(row.answers)
    chosen, rejected = row.answered(row.chosen), row.answered(row.rejected)
    said = [("chosen", spoken(chosen.completion)), ("rejected", spoken(rejected.completion))]
    return chosen.prompt, [Answer(model, text) for model, text in said]


def spoken(part: Part) -> str:
    """An answer as text: what was said last, where it is a conversation."""
    return part if isinstance(part, str) else str(part[-1].get("content", ""))


def _drawn(row: Row, order: JudgePairsOrder, made: _Made) -> Iterator[Pair]:
    """Pairs of different answers, at most `pairs_per_prompt` of the row's, drawn by seed and content."""
    prompt, answers = answers_of(row)
    name = row.prompt_id or row.digest().hex()
    seed = hashlib.sha256(bytes.fromhex(order.seed) + row.digest()).digest()
    every = list(itertools.combinations(range(len(answers)), 2))
    differ = [(one, other) for one, other in every if answers[one].text.strip() != answers[other].text.strip()]
    made.same += len(every) - len(differ)
    for at in shuffled(len(differ), seed, "pairs")[: order.pairs_per_prompt]:
        one, other = (answers[number] for number in differ[at])
        item = hashlib.blake2b(digest_size=12, person=b"shardwork pair")
        for text in (name, one.model, one.text, other.model, other.text):
            item.update(len(text).to_bytes(8, "big") + text.encode("utf-8", "surrogatepass"))
        # who is A is drawn too: a model that always came first would carry the judge's leaning into every rate
        a, b = (one, other) if (item.digest()[0] ^ seed[0]) & 1 else (other, one)
        yield Pair(item.hexdigest(), name, prompt, a, b)
