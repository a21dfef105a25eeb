# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""A policy from its own scored answers: PPO, GRPO and RLOO.

pi is the policy that learns, pi_old the checkpoint that drew the answers, pi_ref the base as it lies; r_t is
pi(a_t|s_t) / pi_old(a_t|s_t) and A_t an advantage. pi_old, pi_ref and values are computed here, once, before the first
step: what came along with an answer only proves that it was drawn from this checkpoint.

PPO, line by line:
1. reward of a token: -beta (log pi_old - log pi_ref), and at the last one the answer's score too: Ouyang et al. (arXiv
   2203.02155), eq. 2, where the checkpoint is the policy (k1 estimate).
2. A_t by GAE over values of the checkpoint: Schulman et al. (arXiv 1506.02438), eq. 16; targets R_t = A_t + V_old(s_t).
3. A_t whitened over the shard's tokens (`whiten`).
4. policy loss: -min(r_t A_t, clip(r_t, 1 - low, 1 + high) A_t): Schulman et al. (arXiv 1707.06347), eq. 7.
5. value loss: 1/2 max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2): eq. 9's squared error, clipped as in Huang et
   al. (2023), detail 13; `value_clip` 0 leaves the clip out.
6. loss: policy loss + value_coefficient x value loss - entropy_coefficient x entropy: eq. 9, whose sign is turned.
GRPO: 4 with a group's advantage at each of an answer's tokens, + beta k3, k3 = pi_ref/pi - log(pi_ref/pi) - 1: Shao et
al. (arXiv 2402.03300), eq. 3 and 4. RLOO: an answer is one action: rewards less beta times its log-ratio, each less the
mean of the others (Ahmadian et al., arXiv 2402.14740, eq. 9), and 4 with the ratio of whole answers; then the mean over
answers. A ratio is bounded (`policy_losses.FARTHEST`). Advantages are `advantages`'. Called by `choice`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from shardwork.recipes.objectives import PolicyObjective
from shardwork.recipes.orders import LearnOrder

from .advantages import explained_variance, generalised, leave_one_out, of_groups, whitened
from .objective import Part, Tally
from .policy_losses import clipped_loss, is_own, k3, pass_order, ratio, reward_of, value_errors, with_score
from .reader import Reader, Said, pieces, row_sums
from .rollouts import Answer, Rollouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """An answer with what holds through all steps: fp32 [tokens] each, on the CPU."""

    answer: Answer
    old: Tensor
    reference: Tensor
    advantages: Tensor
    values: Tensor
    returns: Tensor


class Size(NamedTuple):
    """Of a whole minibatch."""

    answers: int
    tokens: int


class PolicyLearning:
    """The objective of a shard that learns from its rollouts."""

    def __init__(self, reader: Reader, order: LearnOrder, rollouts: Rollouts, seed: bytes) -> None:
        assert isinstance(order.objective, PolicyObjective)
        self._reader, self._order, self._rollouts, self._seed = reader, order, rollouts, seed
        self._wanted = order.objective
        self._known: list[Known] = []
        self._found: dict[str, float] = {}
        self._passes: dict[int, list[int]] = {}
        self.measures = ("entropy", "clip_fraction", *(("value_loss",) if self._wanted.advantage == "ppo" else ()))

    # ---- before the first step --------------------------------------------------------------------------------------

    def prepare(self, size: int) -> None:
        """The old policy and its values, which answers are its own, the reference, and advantages."""
        with torch.no_grad():
            told = self._told(self._rollouts.answers, size)
            kept = [
                (answer, old, values)
                for answer, (old, values) in zip(self._rollouts.answers, told, strict=True)
                if is_own(answer, old, self._wanted.drift)
            ]
            answers = [answer for answer, _, _ in kept]
            references = self._references(answers, size)
        olds = [old for _, old, _ in kept]
        self._known = self._advantaged(answers, olds, references, [values for _, _, values in kept])
        self._passes = {}
        self._found = self._facts()

    def _told(self, answers: Sequence[Answer], size: int) -> list[tuple[Tensor, Tensor]]:
        """Log-probabilities and values of each answer's tokens under the present weights."""
        found: list[tuple[Tensor, Tensor]] = []
        for piece in pieces(len(answers), size):
            rows = [answer.row for answer in answers[piece]]
            said = self._reader.say(rows, learning=False, temperature=self._wanted.temperature)
            values = said.values if said.values is not None else torch.zeros_like(said.log_probs)
            found += zip(said.log_probs.cpu().split(said.lengths), values.cpu().split(said.lengths), strict=True)
        return found

    def _references(self, answers: Sequence[Answer], size: int) -> list[Tensor]:
        """Also where KL costs nothing: how far the policy went is told all the same."""
        if self._reader.from_scratch and not self._wanted.kl_coefficient:
            return []
        with self._reader.as_the_base():
            return [told for told, _ in self._told(answers, size)]

    def _advantaged(
        self, answers: Sequence[Answer], olds: Sequence[Tensor], references: Sequence[Tensor], values: Sequence[Tensor]
    ) -> list[Known]:
        wanted = self._wanted
        references = references or olds
        scores = [reward_of(answer, wanted) for answer in answers]
        groups = [answer.group for answer in answers]
        apart = [
            wanted.kl_coefficient * (old - reference).double() for old, reference in zip(olds, references, strict=True)
        ]
        if wanted.advantage == "ppo":
            rewards = [with_score(-far, score) for far, score in zip(apart, scores, strict=True)]
            advantages = [
                generalised(reward, value, wanted.gamma, wanted.lam)
                for reward, value in zip(rewards, values, strict=True)
            ]
        else:
            each = (
                of_groups(scores, groups, scale=wanted.scale_by_deviation)
                if wanted.advantage == "grpo"
                else leave_one_out([score - float(far.sum()) for score, far in zip(scores, apart, strict=True)], groups)
            )
            advantages = [torch.full_like(old, one, dtype=torch.float64) for old, one in zip(olds, each, strict=True)]
        returns = [one + value.double() for one, value in zip(advantages, values, strict=True)]
        if wanted.advantage == "ppo" and wanted.whiten:
            advantages = whitened(advantages)
        return [
            Known(
                answer=answer,
                old=old,
                reference=reference,
                advantages=one.float(),
                values=value,
                returns=target.float(),
            )
            for answer, old, reference, one, value, target in zip(
                answers, olds, references, advantages, values, returns, strict=True
            )
        ]

    def _facts(self) -> dict[str, float]:
        known, every = self._known, len(self._rollouts.answers) + self._rollouts.too_long
        facts = {"left_out": float(every - len(known))}
        if not known:
            return facts
        facts["reward"] = sum(one.answer.score for one in known) / len(known)
        facts["length"] = sum(len(one.old) for one in known) / len(known)
        # nats an answer
        facts["kl"] = sum(float((one.old - one.reference).double().sum()) for one in known) / len(known)
        if self._wanted.advantage == "ppo":
            returns, values = torch.cat([one.returns for one in known]), torch.cat([one.values for one in known])
            facts["explained_variance"] = explained_variance(returns, values)
        return facts

    # ---- steps ------------------------------------------------------------------------------------------------------

    def batch(self, step: int) -> Sequence[Known]:
        """A minibatch: the next ones of a pass over the answers, each pass in an order of its own."""
        first, count = step * self._order.batch_size, len(self._known)
        places = range(first, first + self._order.batch_size) if count else ()
        return [self._known[self._pass(place // count)[place % count]] for place in places]

    def _pass(self, number: int) -> list[int]:
        if number not in self._passes:
            self._passes[number] = pass_order(self._seed, number, len(self._known))
        return self._passes[number]

    def whole(self, batch: Sequence[Known], size: int) -> Size:
        return Size(len(batch), sum(len(one.old) for one in batch))

    def part(self, items: Sequence[Known], whole: Size) -> Part:
        wanted = self._wanted
        said = self._reader.say(
            [one.answer.row for one in items],
            learning=True,
            temperature=wanted.temperature,
            entropy=wanted.entropy_coefficient > 0,
        )
        laid = _Laid.of(items, said)
        loss, clipped = (
            self._answers_loss(said, laid, whole)
            if wanted.advantage == "rloo"
            else self._tokens_loss(said, laid, whole)
        )
        tally: Tally = {
            "entropy": (float(said.entropies.detach().double().sum()), len(said.log_probs)),
            "clip_fraction": (float(clipped.double().sum()), clipped.numel()),
        }
        if said.values is not None:
            errors = value_errors(said.values, laid.values, laid.returns, wanted.value_clip)
            loss = loss + wanted.value_coefficient * (self._weights(said, whole) * errors).sum()
            tally["value_loss"] = (float(errors.detach().double().sum()), errors.numel())
        if wanted.entropy_coefficient:
            loss = loss - wanted.entropy_coefficient * said.entropies.sum() / max(1, whole.tokens)
        return Part(loss, tally)

    def _tokens_loss(self, said: Said, laid: _Laid, whole: Size) -> tuple[Tensor, Tensor]:
        losses, clipped = clipped_loss(ratio(said.log_probs - laid.old), laid.advantages, self._wanted)
        if self._wanted.advantage == "grpo" and self._wanted.kl_coefficient:
            losses = losses + self._wanted.kl_coefficient * k3(said.log_probs, laid.reference)
        return (self._weights(said, whole) * losses).sum(), clipped

    def _answers_loss(self, said: Said, laid: _Laid, whole: Size) -> tuple[Tensor, Tensor]:
        """An answer is one action."""
        ratios = ratio(row_sums(said.log_probs - laid.old, said.lengths))
        advantages = torch.stack([one[0] if len(one) else one.sum() for one in laid.advantages.split(said.lengths)])
        losses, clipped = clipped_loss(ratios, advantages, self._wanted)
        return losses.sum() / whole.answers, clipped

    def _weights(self, said: Said, whole: Size) -> Tensor:
        """What each token's loss counts in the minibatch's: [tokens]."""
        match self._wanted.average:
            case "answers":
                each = [1 / (max(1, length) * whole.answers) for length in said.lengths]
            case "tokens":
                each = [1 / max(1, whole.tokens)] * len(said.lengths)
            case "constant":
                each = [1 / (whole.answers * self._wanted.max_new_tokens)] * len(said.lengths)
        lengths = torch.tensor(said.lengths)
        return torch.repeat_interleave(torch.tensor(each, dtype=torch.float32), lengths).to(said.log_probs.device)

    def tokens(self, items: Sequence[Known]) -> int:
        return sum(len(one.answer.row.tokens) for one in items)

    def found(self) -> Mapping[str, float]:
        return self._found


class _Laid(NamedTuple):
    """What is known of some answers, flat and on the device: [tokens] each."""

    old: Tensor
    reference: Tensor
    advantages: Tensor
    values: Tensor
    returns: Tensor

    @classmethod
    def of(cls, items: Sequence[Known], said: Said) -> _Laid:
        flat = [torch.cat([getattr(one, name) for one in items]) for name in cls._fields]
        return cls(*(one.to(said.log_probs.device) for one in flat))
