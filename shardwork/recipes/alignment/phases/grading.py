"""Grading: phase `grade` of ppo and grpo: verifiable rewards of the answers that workers drew.

Runs in the operator's executor, because what decides over rewards must not come from whom they pay; answers are read as
what strangers wrote. Without torch; a pure function of its inputs. Called by `policy`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....dataset.tokenise import RowTokenizer
from ....errors import Corrupt, InvalidInput
from ...base import Computed, Context
from ..answers import ROWS, read_answers, read_prompts, write_scores
from ..orders import GenerateOrder, GradeOrder
from ..rewards import Rewards

Row = Mapping[str, Any]


def grade(order: GradeOrder, context: Context) -> Computed:
    """inputs base, prompts, eval?, answers-<i> … -> outputs scores-<i> …; metrics reward.<i>, deviation.<i>, rows.<i>.

    Raises InvalidInput "rewards.*", Corrupt "answers.unreadable".
    """
    rewards = Rewards.read(order.rewards, order.settings)
    outputs: dict[str, Path] = {}
    metrics: dict[str, float] = {}
    rows = {name: read_rows(context.inputs[name]) for name in ("prompts", "eval") if name in context.inputs}
    with RowTokenizer.load(context.inputs["base"]) as tokenizer:
        for done, (number, of) in enumerate(zip(order.numbers, order.of, strict=True)):
            asked = "eval" if number == order.trial else "prompts"
            folders = (context.inputs[asked], context.inputs[f"answers-{number}"])
            found = _graded(rewards, of, folders, rows[asked], tokenizer)
            name = f"scores-{number}"
            outputs[name] = context.output(name)
            write_scores(outputs[name], np.array(found, np.float32))
            metrics[f"reward.{number}"] = statistics.fmean(found)
            metrics[f"deviation.{number}"] = statistics.stdev(found) if len(found) > 1 else 0.0
            metrics[f"rows.{number}"] = float(len(found))
            context.progress((done + 1) / len(order.numbers))
    return Computed(outputs=outputs, metrics=metrics)


def _graded(
    rewards: Rewards, of: GenerateOrder, folders: tuple[Path, Path], rows: list[Row], tokenizer: RowTokenizer
) -> list[float]:
    prompts = read_prompts(folders[0], max_length=of.max_length)
    answers = read_answers(folders[1], of, prompts)
    if len(rows) != len(prompts):
        raise Corrupt("answers.unreadable", "There are not as many rows as prompts.")
    found: list[float] = []
    for number in range(len(answers)):
        row = rows[(of.first_prompt + number // of.answers) % len(rows)]
        tokens = answers.answer(number)
        kept = tokens[:-1] if answers.ended[number] else tokens
        _check_row(rewards, row)
        found.append(rewards.grade(row, text_of(tokenizer, kept.tolist()), len(kept)))
    return found


def _check_row(rewards: Rewards, row: Row) -> None:
    missing = next((key for key in rewards.needs() if row.get(key) is None), None)
    if missing is not None:
        raise InvalidInput(
            "rewards.no_solution",
            f"The row of prompt {str(row.get('id'))[:40]!r} has no {missing!r}, which a reward compares answers with.",
            next_step=f"Add {missing!r} to every row, or name another key in params.reward_settings.",
            key=missing,
        )


def text_of(tokenizer: RowTokenizer, tokens: list[int]) -> str:
    """An answer as people read it. A token that the tokenizer lacks is left out."""
    return tokenizer.tokenizer.decode([token for token in tokens if token < tokenizer.vocab_size])


def read_rows(folder: Path) -> list[Row]:
    """The rows beside a folder of prompts, in its order. Our own executor wrote them."""
    with (folder / ROWS).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
