# pyright: standard
"""The same update by the worker's own objective; and, to tell where definitions part, with TRL's idea of an end.

TRL sees one state more than there are tokens behind an answer that ended: the score comes there, GAE begins there and
the value loss counts it. Ours gives the score with the last token, as Ouyang et al. (arXiv 2203.02155) write it, and
nothing is expected after it. `EndsLater` is our arithmetic (`generalised`, `whitened`, `clipped_loss`, `value_errors`)
with their end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from shardwork.recipes.objectives import PolicyObjective
from shardwork.recipes.orders import LearnOrder, Precision
from shardwork_worker.training.batches import IGNORE
from shardwork_worker.training.batches import Row as Laid
from shardwork_worker.training.model import Built
from shardwork_worker.training.objectives.advantages import generalised, whitened
from shardwork_worker.training.objectives.policy import PolicyLearning
from shardwork_worker.training.objectives.policy_losses import clipped_loss, pass_order, value_errors, with_score
from shardwork_worker.training.objectives.reader import Reader
from shardwork_worker.training.objectives.rollouts import Answer, Rollouts
from tests.worker.training import tiny

from .rollouts import EOS, MOST_NEW, PAD, Row
from .theirs import EPS, RATE, Overheard, Taken

#: step -> loss
Loss = Callable[[int], Tensor]


@dataclass(slots=True)
class Update:
    """A policy with its value head, about to learn from rows."""

    built: Built
    base: Path
    order: LearnOrder
    rows: Sequence[Row]
    reader: Reader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = Reader(
            built=self.built, base=self.base, from_scratch=False, precision=Precision.FP32, pad_token_id=PAD
        )

    @property
    def wanted(self) -> PolicyObjective:
        assert isinstance(self.order.objective, PolicyObjective)
        return self.order.objective

    def as_it_is(self) -> Overheard:
        """Through `PolicyLearning`."""
        answers = [
            Answer(
                row=laid(row, 0),
                group=number,
                score=row.score,
                ended=row.answer[-1] == EOS,
                # its own: nothing is left out for having been drawn by another
                log_probs=self.reader.say([laid(row, 0)], learning=False, temperature=self.wanted.temperature)
                .log_probs.detach()
                .clone(),
            )
            for number, row in enumerate(self.rows)
        ]
        learning = PolicyLearning(self.reader, self.order, Rollouts(answers, 0, PAD), tiny.SEED)
        learning.prepare(len(answers))
        found = Overheard(rows=list(self.rows), whitened=[one.advantages for one in learning._known])
        found.advantages = [one.returns - one.values for one in learning._known]

        def loss(step: int) -> Tensor:
            batch = learning.batch(step)
            return learning.part(batch, learning.whole(batch, len(batch))).loss

        found.steps = list(self._steps(loss))
        return found

    def ending_later(self) -> Overheard:
        """By the same arithmetic, with TRL's end."""
        ends = EndsLater(self.reader, self.wanted, self.rows)
        found = Overheard(rows=list(self.rows), advantages=[one.float() for one in ends.raw], whitened=ends.advantages)
        batch, count = self.order.batch_size, len(self.rows)

        def loss(step: int) -> Tensor:
            order = pass_order(tiny.SEED, step * batch // count, count)
            first = step * batch % count
            return ends.loss(order[first : first + batch])

        found.steps = list(self._steps(loss))
        return found

    def _steps(self, loss_of: Loss) -> Iterator[Taken]:
        named = self.built.trainable
        optimizer = torch.optim.AdamW(list(named.values()), lr=RATE, betas=(0.9, 0.95), eps=EPS, weight_decay=0.0)
        for step in range(self.order.steps):
            loss = loss_of(step)
            optimizer.zero_grad()
            loss.backward()
            gradients = {
                name: torch.zeros_like(one) if one.grad is None else one.grad.clone() for name, one in named.items()
            }
            yield Taken(float(loss.detach()), gradients)
            optimizer.step()


class EndsLater:
    """Advantages and losses in which an answer that is shorter than the longest has one state more than tokens."""

    def __init__(self, reader: Reader, wanted: PolicyObjective, these: Sequence[Row]) -> None:
        self._reader, self._wanted = reader, wanted
        self._rows = [laid(row, self._more(row)) for row in these]
        self._lengths = [len(row.answer) for row in these]
        with torch.no_grad():
            self._old, self._values = self._say(range(len(these)))
            with reader.as_the_base():
                references, _ = self._say(range(len(these)))
        self.raw: list[Tensor] = []
        self._returns: list[Tensor] = []
        for row, old, reference, values in zip(these, self._old, references, self._values, strict=True):
            rewards = torch.zeros(len(values), dtype=torch.float64)
            rewards[: len(old)] = -wanted.kl_coefficient * (old - reference).double()
            advantages = generalised(with_score(rewards, row.score), values, wanted.gamma, wanted.lam)
            self.raw.append(advantages[: len(old)])
            self._returns.append((advantages + values.double()).float())
        self.advantages = [one.float() for one in whitened(self.raw)]

    @staticmethod
    def _more(row: Row) -> int:
        return int(len(row.answer) < MOST_NEW)

    def _say(self, chosen: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
        """Log-probabilities of tokens, and values of states."""
        said = self._reader.say(
            [self._rows[one] for one in chosen], learning=True, temperature=self._wanted.temperature
        )
        assert said.values is not None
        logs = [
            one[: self._lengths[number]] for one, number in zip(said.log_probs.split(said.lengths), chosen, strict=True)
        ]
        return logs, list(said.values.split(said.lengths))

    def loss(self, chosen: Sequence[int]) -> Tensor:
        logs, values = self._say(chosen)
        old, before, returns, advantages = (
            torch.cat([known[one] for one in chosen])
            for known in (self._old, self._values, self._returns, self.advantages)
        )
        losses, _ = clipped_loss((torch.cat(logs) - old).exp(), advantages, self._wanted)
        errors = value_errors(torch.cat(values), before, returns, self._wanted.value_clip)
        return losses.mean() + self._wanted.value_coefficient * errors.mean()


def laid(row: Row, more: int) -> Laid:
    """Prompt and answer, labels on the answer and on so many tokens of padding behind it."""
    tokens = torch.tensor([*row.prompt, *row.answer, *[PAD] * more])
    labels = tokens.clone()
    labels[: len(row.prompt)] = IGNORE
    return Laid(tokens=tokens, labels=labels)
