# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""A policy from preferences, without a reward model: DPO, IPO, KTO and ORPO.

pi is the policy, pi_ref its base as it lies; log pi(y|x) is summed over the answer's tokens.
- sigmoid: Rafailov et al. (arXiv 2305.18290), eq. 7; `label_smoothing` e turns e of the labels round (Mitchell 2023).
- ipo: Azar et al. (arXiv 2310.12036), eq. 17, with log-ratios per token, as its authors confirmed to TRL.
- kto: Ethayarajh et al. (arXiv 2402.01306), eq. 8; z0 over the batch, each prompt with its neighbour's answer.
- orpo: Hong et al. (arXiv 2403.07691), eq. 6 and 7; odds of the mean token, and the likelihood of prompt and answer, as
  their own code has it.
Where a pair's label is uncertain (`Item.value` v), its loss is expected over which answer is the better one.
Called by `item_learning` and `measured`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shardwork.recipes.objectives import PreferenceObjective

from ..batches import IGNORE, Row
from .items import Item, Referred, Shared, laid
from .reader import Reader, pieces
from .verdicts import Verdicts, bradley_terry, values_of

#: odds of a certain token are infinite
MOST_LOG_PROB = -1e-7


@dataclass(frozen=True, slots=True)
class Preference:
    """The arithmetic, for learning and measuring alike."""

    reader: Reader
    objective: PreferenceObjective
    max_length: int

    @property
    def measures(self) -> tuple[str, ...]:
        return ("kl",) if self.per_item == 1 else ("accuracy", "margin")

    @property
    def per_item(self) -> int:
        return 1 if self.objective.loss == "kto" else 2

    def referred(self, batches: Sequence[Sequence[Item]], size: int) -> list[list[Referred]]:
        """What the reference says of the items of each batch, `size` items at a time."""
        if self.objective.loss == "orpo":
            return [[Referred(item) for item in items] for items in batches]
        with self.reader.as_the_base(), torch.no_grad():
            return [self._referred(items, size) for items in batches]

    def _referred(self, items: Sequence[Item], size: int) -> list[Referred]:
        columns = [self._sums([item.rows[place] for item in items], size) for place in range(self.per_item)]
        references = list(zip(*columns, strict=True))
        if self.objective.loss != "kto":
            return [Referred(item, reference) for item, reference in zip(items, references, strict=True)]
        strange = [
            _mismatched(item.rows[0], items[number - 1].rows[0], self.max_length) for number, item in enumerate(items)
        ]
        told = self._sums(strange, size)
        return [Referred(*one) for one in zip(items, references, strange, told, strict=True)]

    def _sums(self, rows: Sequence[Row], size: int) -> list[float]:
        found: list[float] = []
        for piece in pieces(len(rows), size):
            found += self.reader.say(rows[piece], learning=False).sums().tolist()
        return found

    def shared(self, batch: Sequence[Referred], size: int) -> Shared:
        """Of a whole batch. kto's z0: KL(pi || pi_ref), at least zero, without a gradient."""
        if self.objective.loss == "orpo":
            return Shared(
                len(batch), tokens_an_item=sum(len(one.item.rows[0].tokens) - 1 for one in batch) / len(batch)
            )
        if self.objective.loss != "kto":
            return Shared(len(batch))
        strange = [one.mismatched for one in batch if one.mismatched is not None]
        with torch.no_grad():
            told = self._sums(strange, size)
        apart = [mine - one.mismatched_reference for mine, one in zip(told, batch, strict=True)]
        return Shared(len(batch), z0=max(0.0, sum(apart) / len(apart)))

    def verdicts(self, these: Sequence[Referred], shared: Shared, *, learning: bool) -> Verdicts:
        match self.objective.loss:
            case "kto":
                return self._kto(these, shared, learning=learning)
            case "orpo":
                return self._orpo(these, shared, learning=learning)
            case _:
                return self._against_reference(these, learning=learning)

    def _against_reference(self, these: Sequence[Referred], *, learning: bool) -> Verdicts:
        """sigmoid and ipo."""
        beta, items = self.objective.beta, [one.item for one in these]
        rows = laid(items)
        sums = self.reader.say(rows, learning=learning).sums()
        values = values_of([item.value for item in items], sums)
        reference = values_of([one.reference[place] for place in (0, 1) for one in these], sums)
        ratios = sums - reference
        chosen, rejected = ratios.chunk(2)
        margins = beta * (chosen - rejected)
        if self.objective.loss == "sigmoid":
            wrong = self.objective.label_smoothing
            return Verdicts(bradley_terry(margins, values * (1 - wrong) + (1 - values) * wrong), margins)
        lengths = values_of([max(1, row.label_count) for row in rows], sums)
        chosen, rejected = (ratios / lengths).chunk(2)
        apart, aim = chosen - rejected, 1 / (2 * beta)
        return Verdicts(values * (apart - aim) ** 2 + (1 - values) * (apart + aim) ** 2, margins)

    def _kto(self, these: Sequence[Referred], shared: Shared, *, learning: bool) -> Verdicts:
        sums = self.reader.say([one.item.rows[0] for one in these], learning=learning).sums()
        ratios = sums - values_of([one.reference[0] for one in these], sums)
        wanted = values_of([float(one.item.value >= 0.5) for one in these], sums)
        sign = 2 * wanted - 1
        weights = wanted * self.objective.desirable + (1 - wanted) * self.objective.undesirable
        return Verdicts(weights * (1 - torch.sigmoid(self.objective.beta * sign * (ratios - shared.z0))))

    def _orpo(self, these: Sequence[Referred], shared: Shared, *, learning: bool) -> Verdicts:
        items = [one.item for one in these]
        rows = laid(items)
        said = self.reader.say(
            [*(_all_labelled(row) for row in rows[: len(items)]), *rows[len(items) :]], learning=learning
        )
        parts = said.log_probs.split(said.lengths)
        likelihoods = torch.stack([part.sum() for part in parts[: len(items)]])
        likely = torch.stack([_answer_mean(part, row) for part, row in zip(parts, rows, strict=True)])
        chosen, rejected = likely.clamp(max=MOST_LOG_PROB).chunk(2)
        odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
        each = values_of([len(item.rows[0].tokens) - 1 for item in items], odds)
        likelihood = -likelihoods / (shared.tokens_an_item or each)
        values = values_of([item.value for item in items], odds)
        return Verdicts(likelihood + self.objective.beta * bradley_terry(odds, values), odds)


def _mismatched(row: Row, other: Row, max_length: int) -> Row:
    """The prompt of one row and the answer of another."""
    prompt, answer = row.tokens[: _begin(row)], other.tokens[_begin(other) :]
    labels = torch.cat([torch.full_like(prompt, IGNORE), other.labels[_begin(other) :]])
    return Row(tokens=torch.cat([prompt, answer])[:max_length], labels=labels[:max_length])


def _begin(row: Row) -> int:
    """Where the answer begins."""
    labelled = row.labels.ne(IGNORE).nonzero()
    return int(labelled[0]) if len(labelled) else len(row.tokens)


def _all_labelled(row: Row) -> Row:
    labels = row.tokens.clone()
    labels[:1] = IGNORE
    return Row(tokens=row.tokens, labels=labels)


def _answer_mean(log_probs: Tensor, row: Row) -> Tensor:
    """Mean over the answer's labels, of all the row's labelled tokens or of these alone."""
    if len(log_probs) != row.label_count:
        log_probs = log_probs[row.labels[1:].ne(IGNORE).to(log_probs.device)]
    return log_probs.sum() / max(1, len(log_probs))


def _log1mexp(values: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0 (Maechler 2012)."""
    near = values > -0.6931471805599453
    return torch.where(
        near,
        torch.log(-torch.expm1(values)),
        torch.log1p(-torch.exp(torch.where(near, -1.0, values))),
    )
