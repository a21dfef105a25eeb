# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""PPO against an independent calculation: written here from the papers, one answer at a time, without padding, sharing
no code with ours. Losses of every step, and the gradients that move the weights, on the same rollouts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from shardwork.recipes.objectives import PolicyObjective
from shardwork.recipes.orders import Optimizer
from shardwork_worker.training.objectives.policy_losses import pass_order

from .. import tiny
from ..test_oracle import relative
from . import made

BaseOf = Callable[[str], Path]
Rows = Sequence[tuple[list[int], list[int]]]
SCORES = [0.5, -1.0, 2.0, 0.25, 1.0, 1.5, 0.0, -0.5]
PLAIN = PolicyObjective(
    advantage="ppo",
    group=2,
    kl_coefficient=0.05,
    temperature=0.7,
    entropy_coefficient=0.01,
    gamma=0.99,
    lam=0.9,
    value_clip=0.05,
    value_coefficient=0.3,
    max_new_tokens=made.MOST_NEW,
)
CASES = {
    "plain": PLAIN,
    "answers": PLAIN.model_copy(update={"average": "answers", "whiten": False, "reward_clip": 0.75}),
    "constant": PLAIN.model_copy(
        update={"average": "constant", "unended_penalty": 0.6, "clip_low": 0.01, "clip_high": 0.02}
    ),
    "unclipped": PLAIN.model_copy(update={"value_clip": 0.0, "gamma": 1.0, "lam": 1.0, "kl_coefficient": 0.0}),
}


@dataclass
class Drawn:
    old: Tensor
    reference: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


class Independent:
    """Ouyang et al. 2022, Schulman et al. 2016 and 2017."""

    def __init__(self, policy: Any, head: Tensor, wanted: PolicyObjective) -> None:
        self.policy, self.head, self.wanted = policy, head, wanted

    def read(self, prompt: list[int], answer: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities, values and entropies, token by token."""
        out = self.policy(input_ids=torch.tensor([prompt + answer]), output_hidden_states=True)
        probabilities = torch.softmax(out.logits[0].double() / self.wanted.temperature, -1)
        states = [len(prompt) - 1 + t for t in range(len(answer))]
        logs = torch.stack([probabilities[s, token].log() for s, token in zip(states, answer, strict=True)])
        values = torch.stack([(out.hidden_states[-1][0, s] * self.head[0]).sum() for s in states])
        entropies = torch.stack([-(probabilities[s] * probabilities[s].log()).sum() for s in states])
        return logs, values, entropies

    def draw(self, rows: Rows, reference: Any) -> list[Drawn]:
        found = []
        for (prompt, answer), score in zip(rows, SCORES, strict=True):
            with torch.no_grad():
                old, values, _ = self.read(prompt, answer)
                ref = made.told_by(reference, prompt, answer, self.wanted.temperature)
            if self.wanted.reward_clip:
                score = float(np.clip(score, -self.wanted.reward_clip, self.wanted.reward_clip))
            if answer[-1] != 1:
                score -= self.wanted.unended_penalty
            last = len(answer) - 1
            rewards = [
                -self.wanted.kl_coefficient * float(old[t] - ref[t]) + (score if t == last else 0.0)
                for t in range(len(answer))
            ]
            advantages = naive_gae(rewards, values.tolist(), self.wanted.gamma, self.wanted.lam)
            returns = [a + v for a, v in zip(advantages, values.tolist(), strict=True)]
            found.append(Drawn(old, ref, values, torch.tensor(advantages), torch.tensor(returns)))
        if self.wanted.whiten:
            every = np.concatenate([one.advantages.numpy() for one in found])
            for one in found:
                one.advantages = (one.advantages - every.mean()) / math.sqrt(every.var(ddof=1) + 1e-8)
        return found

    def loss(self, rows: Rows, drawn: Sequence[Drawn]) -> Tensor:
        wanted = self.wanted
        every = sum(len(answer) for _, answer in rows)
        total = torch.zeros((), dtype=torch.float64)
        for (prompt, answer), one in zip(rows, drawn, strict=True):
            logs, values, entropies = self.read(prompt, answer)
            for t in range(len(answer)):
                ratio = torch.exp(logs[t] - one.old[t])
                held = min(max(float(ratio.detach()), 1 - wanted.clip_low), 1 + wanted.clip_high)
                free = ratio * one.advantages[t]
                # a ratio that is held has no gradient
                is_held = held != float(ratio.detach())
                gain = torch.minimum(free, (held * one.advantages[t]).double()) if is_held else free
                error = (values[t] - one.returns[t]) ** 2
                if wanted.value_clip:
                    moved = one.values[t] + torch.clamp(
                        values[t] - one.values[t], -wanted.value_clip, wanted.value_clip
                    )
                    error = torch.maximum(error, (moved - one.returns[t]) ** 2)
                token = -gain + wanted.value_coefficient * 0.5 * error
                count = {
                    "tokens": every,
                    "answers": len(rows) * len(answer),
                    "constant": len(rows) * wanted.max_new_tokens,
                }[wanted.average]
                total = total + token / count - wanted.entropy_coefficient * entropies[t] / every
        return total


def naive_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """A_t = sum over l of (gamma lambda)^l delta_(t+l), as the paper writes it."""
    deltas = [
        rewards[t] + gamma * (values[t + 1] if t + 1 < len(values) else 0.0) - values[t] for t in range(len(rewards))
    ]
    return [
        sum((gamma * lam) ** (later - t) * deltas[later] for later in range(t, len(deltas))) for t in range(len(deltas))
    ]


@pytest.mark.parametrize(
    ("case", "method"), [("plain", "lora"), *((case, "full") for case in CASES), ("plain", "partial")]
)
def test_every_step_is_that_of_the_papers(case: str, method: str, base_of: BaseOf, tmp_path: Path) -> None:
    base, wanted, steps, batch = base_of("llama"), CASES[case], 5, 4
    rows = made.rollout_rows(4, 2)
    this = made.order(method, wanted, head="value", batch_size=batch, micro_batch_size=2, steps=steps)
    this = this.model_copy(update={"optimizer": Optimizer(weight_decay=0.0, clip_norm=0.0, eps=1e-4)})
    checkpoint = made.moved(made.started(this, base, tmp_path), tmp_path / "moved")
    built = made.model_at(this, base, checkpoint)
    assert built.value is not None
    papers = Independent(built.model, built.value.weight, wanted)
    drawn = papers.draw(rows, AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval())
    inputs = made.write_rollouts(tmp_path / "in", rows, wanted, [one.old.tolist() for one in drawn], SCORES)
    losses, final, done = made.learned(this, base, tmp_path, checkpoint, **inputs)

    optimizer = torch.optim.AdamW(
        list(built.trainable.values()), lr=made.RATE, betas=(0.9, 0.95), eps=1e-4, weight_decay=0
    )
    order = [place for number in range(3) for place in pass_order(tiny.SEED, number, len(rows))]
    for step in range(steps):
        chosen = order[step * batch : (step + 1) * batch]
        loss = papers.loss([rows[i] for i in chosen], [drawn[i] for i in chosen])
        assert losses[step] == pytest.approx(float(loss.detach()), rel=1e-5, abs=1e-6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert relative(final, {name: p.detach().numpy().copy() for name, p in built.trainable.items()}) <= 1e-5
    assert done.metrics["reward"] == pytest.approx(sum(SCORES) / len(SCORES))
    apart = [float((one.old - one.reference).sum()) for one in drawn]
    assert done.metrics["kl"] == pytest.approx(sum(apart) / len(apart), rel=1e-4, abs=1e-5)
    assert done.metrics["left_out"] == 0
