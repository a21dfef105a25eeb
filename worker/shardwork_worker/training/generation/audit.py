# pyright: standard
"""Phase `audit`: a sample of a shard's rows again, by forward passes over what another worker handed in.

Of answers each token is looked at: whether it is the one that its draw gives, how probable it was, and whether the file
says so, up to what another machine may add up otherwise. Answers that cannot be read are reported as "unreadable" and
nothing else. Scores and verdicts are computed anew; the claimed ones are not here. Called by the trainer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from shardwork.errors import Corrupt
from shardwork.recipes.alignment.answers import (
    Answers,
    Prompts,
    read_answers,
    read_pairs,
    read_prompts,
)
from shardwork.recipes.alignment.auditing import TOLERANCE, UNREADABLE
from shardwork.recipes.alignment.draws import draws
from shardwork.recipes.alignment.orders import AuditOrder, GenerateOrder, JudgeOrder, ScoreOrder
from shardwork.recipes.base import Computed, Context
from shardwork.recipes.orders import Precision

from ..device import autocast
from ..micro import MicroBatch
from ..model import Built, check_length
from .judge import judged
from .passes import Asker, Lefts, in_batches
from .sampling import check, countable
from .score import scored

#: numbers of logits at once: rows x positions x vocabulary
MOST_LOGITS = 2**27
#: positions whose probabilities are looked at together
POSITIONS = 64

Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class _Seen:
    """Of one answer's tokens: log-probabilities, the mean peak, and the share that its draws give."""

    logprobs: Numbers
    peak: float
    drawn: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditor:
    """One audit: what it was asked, and the model that the audited shard used."""

    order: AuditOrder
    context: Context
    built: Built
    micro: MicroBatch

    def run(self) -> Computed:
        """Inputs of the audited shard, and its answers -> metrics named in AuditOrder, or "unreadable" alone."""
        match self.order.of:
            case GenerateOrder() as of:
                metrics = self._answers(of)
            case ScoreOrder() as of:
                metrics = self._scores(of)
            case JudgeOrder() as of:
                metrics = self._verdicts(of)
        self.context.progress(1.0)
        return Computed(outputs={}, metrics=metrics)

    # ---- scores and verdicts --------------------------------------------------------------------------------------

    def _scores(self, of: ScoreOrder) -> dict[str, float]:
        found = scored(of, self.order.rows, self.context, self.built, self.micro)
        return {f"score.{row}": number for row, number in found.items()}

    def _verdicts(self, of: JudgeOrder) -> dict[str, float]:
        pairs = read_pairs(self.context.inputs["pairs"], of, vocabulary=self.built.vocabulary)
        found = judged(of, pairs, self.order.rows, self.context, self.built, self.micro)
        metrics = {f"first.{pair}": first for pair, (first, _) in found.items()}
        return metrics | {f"second.{pair}": second for pair, (_, second) in found.items()}

    # ---- answers --------------------------------------------------------------------------------------------------

    def _answers(self, of: GenerateOrder) -> dict[str, float]:
        inputs, vocabulary = self.context.inputs, self.built.vocabulary
        prompts = read_prompts(inputs["prompts"], max_length=of.max_length, vocabulary=vocabulary)
        try:
            answers = read_answers(inputs["answers"], of, prompts, vocabulary=vocabulary)
        except Corrupt:
            return {UNREADABLE: 1.0}
        metrics = {"tokens": float(len(answers.tokens)), "ended": float(answers.ended.sum())}
        for row, seen in self._looked_at(of, prompts, answers).items():
            metrics[f"sum.{row}"] = min(float(seen.logprobs.sum()), 0.0)
            metrics[f"peak.{row}"] = seen.peak
            metrics[f"drawn.{row}"] = seen.drawn
            metrics[f"told.{row}"] = _alike(answers.logprobs_of(row), seen.logprobs, of.precision)
        return metrics

    def _looked_at(self, of: GenerateOrder, prompts: Prompts, answers: Answers) -> dict[int, _Seen]:
        rows = {row: np.concatenate([prompts.of_row(of, row), answers.answer(row)]) for row in self.order.rows}
        check_length(self.built, max(len(tokens) for tokens in rows.values()))
        asker = Asker(self.built)
        longest = max(len(answers.answer(row)) for row in rows)
        size = max(1, min(self.micro.size, MOST_LOGITS // (self.built.vocabulary * (longest + 1))))

        def take(these: Sequence[int]) -> list[_Seen]:
            keep = max(len(answers.answer(row)) for row in these) + 1
            padded = Lefts.of([rows[row] for row in these], prompts.pad_token_id, self.built.device)
            with torch.inference_mode(), autocast(self.built.device, of.precision):
                # the last position predicts what nobody drew
                logits = asker.last(padded, min(keep, padded.ids.shape[1]))[:, :-1]
                return [self._row(of, row, logits[place], answers.answer(row)) for place, row in enumerate(these)]

        micro = asker.bounded(MicroBatch(self.micro.device, size))
        return in_batches(rows, lambda row: len(rows[row]), micro, take, self.context.progress)

    def _row(self, of: GenerateOrder, row: int, logits: torch.Tensor, answer: Numbers) -> _Seen:
        """`logits`: of the last positions, [positions, vocabulary]."""
        count = len(answer)
        logits = logits[-count:]
        table = draws(bytes.fromhex(self.order.seed), row, count)
        right: list[Numbers] = []
        logprobs: list[Numbers] = []
        peaks: list[Numbers] = []
        for start in range(0, count, POSITIONS):
            some = countable(logits[start : start + POSITIONS])
            tokens = torch.from_numpy(answer[start : start + POSITIONS].astype(np.int64)).to(some.device)
            drawn = torch.from_numpy(table[start : start + POSITIONS]).to(some.device)
            fits, probable, peak = check(some, tokens, drawn, of.sampling, of.precision)
            right.append(fits.cpu().numpy())
            logprobs.append(probable.cpu().numpy())
            peaks.append(peak.cpu().numpy())
        mean = float(np.concatenate(peaks).mean())
        return _Seen(np.concatenate(logprobs), mean, float(np.concatenate(right).mean()))


def _alike(claimed: Numbers, found: Numbers, precision: Precision) -> float:
    """The share of numbers that are what was claimed."""
    absolute, relative = TOLERANCE[precision]
    return float((np.abs(claimed - found) <= absolute + relative * np.abs(found)).mean())
