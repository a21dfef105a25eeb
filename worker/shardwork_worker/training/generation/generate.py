# pyright: standard
"""Phases `map` of generate and `rollout`: answers drawn from a model, with the log-probability of each token.

Rows are drawn side by side, longest prompts first; a prompt is read once for all its answers in a batch; rows that
ended leave the batch. Whatever lies beside a row, its tokens are those that its own draws give (`sampling`). A batch
that runs out of memory is drawn again at half the size.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shardwork.recipes.alignment.answers import Answers, Prompts, flat, read_prompts, write_answers
from shardwork.recipes.alignment.draws import draws
from shardwork.recipes.alignment.orders import GenerateOrder
from shardwork.recipes.base import Computed, Context

from ..device import autocast
from ..micro import MicroBatch
from ..model import Built, check_length
from .passes import Asker, Lefts, check_finite
from .sampling import choose

#: a batch is made smaller when one row of so many has ended
ONE_OF = 8
#: steps between looks at which rows ended, on devices that would have to be waited for
STEPS_A_LOOK = 8
#: between two words on how far it is
TELL_S = 0.2


@dataclass(frozen=True, slots=True)
class Drawn:
    """One answer."""

    tokens: np.ndarray[Any, np.dtype[np.int32]]
    logprobs: np.ndarray[Any, np.dtype[np.float32]]
    #: mean of the largest logits, over its tokens
    peak: float
    ended: bool


def generate(order: GenerateOrder, context: Context, built: Built, micro: MicroBatch) -> Computed:
    """Inputs prompts -> output answers; the model is there with its weights. Metrics: see GenerateOrder."""
    prompts = read_prompts(context.inputs["prompts"], max_length=order.max_length, vocabulary=built.vocabulary)
    drawn = _Writing(order, prompts, built, context, micro).all()
    answers = _together(drawn)
    peaks = np.array([one.peak for one in drawn])
    check_finite(answers.logprobs)
    check_finite(peaks)
    folder = context.output("answers")
    write_answers(folder, answers)
    metrics = {"rows": len(answers), "tokens": len(answers.tokens), "ended": int(answers.ended.sum())}
    sums = {f"sum.{row}": float(answers.logprobs_of(row).sum(dtype=np.float64)) for row in range(len(answers))}
    sums |= {f"peak.{row}": float(peak) for row, peak in enumerate(peaks)}
    return Computed(outputs={"answers": folder}, metrics={name: float(n) for name, n in metrics.items()} | sums)


@dataclass(slots=True)
class _Writing:
    """All rows of an order, batch by batch."""

    order: GenerateOrder
    prompts: Prompts
    built: Built
    context: Context
    micro: MicroBatch
    asker: Asker = field(init=False)
    ends: Tensor = field(init=False)
    done: int = 0

    def __post_init__(self) -> None:
        self.asker = Asker(self.built)
        self.ends = torch.tensor(self.prompts.end_tokens, dtype=torch.int64, device=self.built.device)

    def all(self) -> list[Drawn]:
        of_row = partial(self.prompts.of_row, self.order)
        left = sorted(range(self.order.rows), key=lambda row: -len(of_row(row)))
        check_length(self.built, len(of_row(left[0])) + self.order.sampling.max_new_tokens)
        drawn: dict[int, Drawn] = {}
        with torch.inference_mode(), autocast(self.built.device, self.order.precision):
            while left:
                some = self.micro.fitting(partial(self._draw, left), lambda: None, lambda failed: failed)
                drawn |= some
                left = left[len(some) :]
                self.done = len(drawn)
        return [drawn[row] for row in range(self.order.rows)]

    def _draw(self, left: Sequence[int], size: int) -> dict[int, Drawn]:
        """The next `size` rows; fewer where prompts of one length are all that can be read together."""
        rows = list(left[:size])
        if not self.asker.reads_padded:
            length = len(self.prompts.of_row(self.order, rows[0]))
            rows = [row for row in rows if len(self.prompts.of_row(self.order, row)) == length]
        batch = _Batch(self, rows)
        batch.run()
        return batch.answers()


class _Batch:
    """Rows that are drawn together."""

    def __init__(self, writing: _Writing, rows: Sequence[int]) -> None:
        self.writing, self.rows = writing, rows
        order, device = writing.order, writing.built.device
        self.most = order.sampling.max_new_tokens
        self.tokens = torch.zeros(len(rows), self.most, dtype=torch.int64, device=device)
        self.logprobs = torch.zeros(len(rows), self.most, dtype=torch.float32, device=device)
        self.peaks = torch.zeros(len(rows), self.most, dtype=torch.float32, device=device)
        #: tokens of each row; 0 as long as it has not ended
        self.lengths = torch.zeros(len(rows), dtype=torch.int64, device=device)
        self.draws = torch.zeros(len(rows), 0, dtype=torch.float64)
        self.told = 0.0
        if order.sampling.temperature:
            table = np.stack([draws(writing.context.seed, row, self.most) for row in rows])
            self.draws = torch.from_numpy(table)
            if device.type != "mps":
                self.draws = self.draws.to(device)

    def run(self) -> None:
        writing, sampling = self.writing, self.writing.order.sampling
        decoding = writing.asker.begin(*self._prompts())
        alive = torch.arange(len(self.rows), device=self.tokens.device)
        patience = 1 if self.tokens.device.type == "cpu" else STEPS_A_LOOK
        for step in range(self.most):
            column = self.draws[:, step][alive.to(self.draws.device)] if sampling.temperature else self.draws
            tokens, logprobs, peaks = choose(decoding.logits, column, sampling)
            tokens = tokens.to(alive.device)
            self.tokens[alive, step] = tokens
            self.logprobs[alive, step] = logprobs.to(alive.device, torch.float32)
            self.peaks[alive, step] = peaks.to(alive.device, torch.float32)
            self._note_ends(alive, tokens, step)
            self._tell(step)
            if step + 1 == self.most:
                break
            if (step + 1) % patience == 0:
                going = (self.lengths[alive] == 0).nonzero().squeeze(1)
                if not len(going):
                    break
                if len(going) * ONE_OF <= len(alive) * (ONE_OF - 1):
                    alive, tokens = alive[going], tokens[going]
                    decoding.select(going)
            decoding.feed(tokens)

    def answers(self) -> dict[int, Drawn]:
        lengths = self.lengths.tolist()
        tokens, logprobs, peaks = (one.cpu().numpy() for one in (self.tokens, self.logprobs, self.peaks))
        return {
            row: Drawn(
                tokens[place, : lengths[place] or self.most].astype(np.int32),
                np.minimum(logprobs[place, : lengths[place] or self.most], 0),
                float(peaks[place, : lengths[place] or self.most].mean(dtype=np.float64)),
                bool(lengths[place]),
            )
            for place, row in enumerate(self.rows)
        }

    def _prompts(self) -> tuple[Lefts, Tensor]:
        """Each prompt once, and which of them each row goes on from."""
        writing, order = self.writing, self.writing.order
        numbers = [(order.first_prompt + row // order.answers) % len(writing.prompts) for row in self.rows]
        places = {number: place for place, number in enumerate(dict.fromkeys(numbers))}
        device = self.tokens.device
        read = Lefts.of([writing.prompts.prompt(number) for number in places], writing.prompts.pad_token_id, device)
        return read, torch.tensor([places[number] for number in numbers], device=device)

    def _note_ends(self, alive: Tensor, tokens: Tensor, step: int) -> None:
        """A row that went on after its end keeps its first one."""
        so_far = self.lengths[alive]
        ends = torch.isin(tokens, self.writing.ends) & (so_far == 0)
        self.lengths[alive] = so_far.where(~ends, step + 1)

    def _tell(self, step: int) -> None:
        """Now and then. Also obeys the agent: progress raises Interrupted."""
        now = time.monotonic()
        if now - self.told < TELL_S:
            return
        self.told = now
        share = len(self.rows) * (step + 1) / self.most
        self.writing.context.progress((self.writing.done + share) / self.writing.order.rows)


def _together(drawn: Sequence[Drawn]) -> Answers:
    tokens, offsets = flat([one.tokens for one in drawn])
    return Answers(
        tokens=tokens,
        offsets=offsets,
        logprobs=np.concatenate([one.logprobs for one in drawn]),
        ended=np.array([one.ended for one in drawn], np.uint8),
    )
