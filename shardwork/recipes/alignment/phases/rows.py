"""Rows of answers: phase `join` of generate: tokens that workers drew become words, a row a prompt.

Owns rows.jsonl of the output `rows`: {"prompt_id", "prompt", "answers": [{"model", "text", "ended", "tokens",
"logprob"}], and the prompt row's other keys}. Answers are what strangers wrote: read within the bounds of their order.
Without torch. Called by `generate`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ....dataset.tokenise import RowTokenizer
from ...base import Computed, Context
from ..answers import ROWS, Answers, read_answers, read_prompts
from ..orders import JoinAnswersOrder
from .grading import read_rows, text_of
from .prompts import ID

#: keys of a row of answers that are ours; the prompt row's own of these names are left out
OURS = ("prompt_id", "prompt", "answers")


def join(order: JoinAnswersOrder, context: Context) -> Computed:
    """inputs base, part-<p> …, output-<model x parts + p> … -> output rows; metrics rows, answers, tokens, ended.

    Raises Corrupt "answers.unreadable".
    """
    folder = context.output("rows")
    totals = {"rows": 0.0, "answers": 0.0, "tokens": 0.0, "ended": 0.0}
    with RowTokenizer.load(context.inputs["base"]) as tokenizer, (folder / ROWS).open("w", encoding="utf-8") as sink:
        for part in range(order.parts):
            for row in _joined(order, context, tokenizer, part):
                sink.write(json.dumps(row, ensure_ascii=False) + "\n")
                totals["rows"] += 1
                totals["answers"] += len(row["answers"])
                totals["tokens"] += sum(answer["tokens"] for answer in row["answers"])
                totals["ended"] += sum(answer["ended"] for answer in row["answers"])
            context.progress((part + 1) / order.parts)
    return Computed(outputs={"rows": folder}, metrics=totals)


def _joined(order: JoinAnswersOrder, context: Context, tokenizer: RowTokenizer, part: int) -> Iterator[dict[str, Any]]:
    """The rows of one part: each model's answers to a prompt, one model after the other."""
    folder = context.inputs[f"part-{part}"]
    prompts = read_prompts(folder, max_length=order.of.max_length)
    of = order.of.model_copy(update={"first_prompt": 0, "prompts": len(prompts)})
    found = [
        read_answers(context.inputs[f"output-{number * order.parts + part}"], of, prompts)
        for number in range(len(order.models))
    ]
    for at, row in enumerate(read_rows(folder)):
        given = [
            _told(label, answers, at * of.answers + number, tokenizer)
            for label, answers in zip(order.models, found, strict=True)
            for number in range(of.answers)
        ]
        others = {key: value for key, value in row.items() if key not in (ID, *OURS)}
        yield {"prompt_id": row[ID], "prompt": row["prompt"], "answers": given, **others}


def _told(label: str, answers: Answers, row: int, tokenizer: RowTokenizer) -> dict[str, Any]:
    """One answer; its end token counts among its tokens and is no part of its text."""
    tokens, ended = answers.answer(row), bool(answers.ended[row])
    return {
        "model": label,
        "text": text_of(tokenizer, (tokens[:-1] if ended else tokens).tolist()),
        "ended": ended,
        "tokens": len(tokens),
        "logprob": round(float(answers.logprobs_of(row).sum()), 4),
    }
