# pyright: standard
"""What a model is worth by the planted utility: its answers to held-out prompts, drawn by the worker's own code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shardwork.dataset.tokenise import RowTokenizer
from shardwork.ids import derive_seed
from shardwork.recipes.alignment.answers import (
    Answers,
    flat,
    read_answers,
    read_prompts,
    read_scores,
    write_answers,
    write_prompts,
)
from shardwork.recipes.alignment.orders import GenerateOrder, Sampling, ScoreOrder
from shardwork_worker.training.objectives.verdicts import accuracy, calibration_error

from . import first, task
from .stage import Place

#: tokens of a prompt and of an answer at most
PROMPT, ANSWER = 24, 24


@dataclass(frozen=True, slots=True)
class Said:
    prompt: str
    text: str


def answers_of(place: Place, model: Path, asked: Sequence[str], each: int, seed: str) -> list[Said]:
    """`each` answers to each prompt."""
    with RowTokenizer.load(model) as tokenizer:
        tokens = [tokenizer.tokenizer.encode(text).ids for text in asked]
        folder = place.folder("prompts")
        folder.mkdir(parents=True)
        rows = [{"id": str(number), "prompt": text} for number, text in enumerate(asked)]
        write_prompts(folder, tokens, rows, pad_token_id=first.PAD, end_tokens=[first.EOS])
        order = _order(len(asked), each)
        context = place.context({"base": model, "prompts": folder}, derive_seed("measure", seed))
        drawn = place.trainer.generate(order, context).outputs["answers"]
        read = read_answers(drawn, order, read_prompts(folder, max_length=PROMPT))
        found: list[Said] = []
        for number in range(len(read)):
            kept = read.answer(number)[: -1 if read.ended[number] else None]
            found.append(Said(asked[number // each], tokenizer.tokenizer.decode(kept.tolist())))
    return found


def worth(taste: task.Taste, said: Sequence[Said]) -> list[float]:
    return [taste.utility(one.prompt, one.text) for one in said]


def good(taste: task.Taste, said: Sequence[Said]) -> float:
    """Share of answers that the verifiable reward likes."""
    return sum(taste.is_good(one.prompt, one.text) for one in said) / len(said)


@dataclass(frozen=True, slots=True)
class WinRate:
    share: float
    low: float
    high: float
    pairs: int


def win_rate(ours: Sequence[float], theirs: Sequence[float]) -> WinRate:
    """Answer by answer, equal ones left out; the interval is Wilson's, 95 %."""
    wins = sum(one > other for one, other in zip(ours, theirs, strict=True))
    losses = sum(one < other for one, other in zip(ours, theirs, strict=True))
    count = max(1, wins + losses)
    share, z = wins / count, 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return WinRate(share, middle - half, middle + half, wins + losses)


def scores_of(place: Place, reward: Path, said: Sequence[Said]) -> list[float]:
    """What a published reward model gives each answer, by phase `score`."""
    with RowTokenizer.load(reward) as tokenizer:
        asked = [tokenizer.tokenizer.encode(one.prompt).ids for one in said]
        texts = [[*tokenizer.tokenizer.encode(one.text).ids, first.EOS] for one in said]
    folders = place.folder("prompts"), place.folder("answers")
    for folder in folders:
        folder.mkdir(parents=True)
    rows = [{"id": str(number), "prompt": one.prompt} for number, one in enumerate(said)]
    write_prompts(folders[0], asked, rows, pad_token_id=first.PAD, end_tokens=[first.EOS])
    tokens, offsets = flat(texts)
    no_matter = np.zeros(len(tokens), np.float32)
    written = Answers(tokens=tokens, offsets=offsets, logprobs=no_matter, ended=np.ones(len(said), np.uint8))
    write_answers(folders[1], written)
    of = _order(len(said), 1)
    order = ScoreOrder(of=of, max_length=PROMPT + ANSWER, batch_size=256)
    context = place.context({"base": reward, "prompts": folders[0], "answers": folders[1]}, bytes(32))
    return read_scores(place.trainer.score(order, context).outputs["scores"], len(said)).tolist()


def _order(prompts: int, each: int) -> GenerateOrder:
    return GenerateOrder(
        tuning=None,
        first_prompt=0,
        prompts=prompts,
        answers=each,
        sampling=Sampling(max_new_tokens=ANSWER),
        max_length=PROMPT,
        batch_size=256,
    )


def opinions(place: Place, reward: Path, pairs: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """Accuracy on pairs, and how far its confidence lies from it (Guo et al., arXiv 1706.04599). Whoever believes
    labels of which one in ten is wrong is never surer than 0.9, however clean these pairs are: of the logistic
    regression that `cells` speaks of the error is 0.15 to 0.21 (seeds 10 to 13), and its accuracy 0.97 in the mean."""
    said = [Said(pair["prompt"], pair[side]) for side in ("chosen", "rejected") for pair in pairs]
    scores = scores_of(place, reward, said)
    logits = [one - other for one, other in zip(scores[: len(pairs)], scores[len(pairs) :], strict=True)]
    right = [1.0] * len(pairs)
    return {"accuracy": accuracy(logits, right), "calibration_error": calibration_error(logits, right)}
