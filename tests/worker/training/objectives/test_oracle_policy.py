# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""The oracle: on the same rollouts, advantages, old and reference log-probabilities our GRPO and RLOO give TRL's losses
and weights over ten steps.

TRL draws answers inside `train()`; here its trainers are handed the rollouts, and everything from the loss on is
theirs. Each step is a pass over all answers, in the order that ours takes them, because sums differ by their order;
prompts are of one length, because TRL pads them on the left.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset  # type: ignore[import-untyped]
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from shardwork.recipes.objectives import PolicyObjective
from shardwork.recipes.orders import LearnOrder
from shardwork_worker.training.objectives.policy_losses import pass_order

from .. import tiny
from ..test_oracle import QUIET, SETTINGS, losses_of, relative, weights
from . import made

BaseOf = Callable[[str], Path]
pytestmark = [pytest.mark.filterwarnings(rule) for rule in QUIET]
GROUP, ANSWERS = 4, 8
SCORES = [0.5, -1.0, 2.0, 0.25, 1.0, 1.0, 0.0, -0.5]
TEMPERATURE = 0.8
METHODS = ("lora", "full", "partial")


def policy(advantage: Any, **changes: Any) -> PolicyObjective:
    return PolicyObjective(
        advantage=advantage,
        group=GROUP,
        kl_coefficient=0.05,
        temperature=TEMPERATURE,
        clip_low=0.2,
        clip_high=0.3,
        max_new_tokens=12,
        **changes,
    )


def told(model: Any, rows: list[tuple[list[int], list[int]]]) -> list[torch.Tensor]:
    """Of all rows at once: one by one, the first ratio would be 1 but for rounding, and Adam's first steps with it."""
    ids = pad_sequence([torch.tensor(prompt + answer) for prompt, answer in rows], batch_first=True)
    mask = pad_sequence([torch.ones(len(prompt + answer)) for prompt, answer in rows], batch_first=True)
    with torch.no_grad():
        spread = (model(input_ids=ids, attention_mask=mask.long()).logits.float() / TEMPERATURE).log_softmax(-1)
    return [
        spread[i, len(prompt) - 1 : len(prompt) - 1 + len(answer)].gather(1, torch.tensor(answer)[:, None])[:, 0]
        for i, (prompt, answer) in enumerate(rows)
    ]


def both(
    this: LearnOrder, base: Path, into: Path
) -> tuple[list[float], dict[str, Any], Any, dict[str, Any], list[torch.Tensor]]:
    """Our losses and weights; the model that we started from, and the rollouts as TRL holds them, with the log-ratios
    to the reference."""
    rows = made.rollout_rows(ANSWERS // GROUP, GROUP)
    checkpoint = made.moved(made.started(this, base, into), into / "moved")
    model = made.model_at(this, base, checkpoint).model
    old = told(model, rows)
    reference = told(AutoModelForCausalLM.from_pretrained(base, dtype="float32").eval(), rows)
    assert isinstance(this.objective, PolicyObjective)
    inputs = made.write_rollouts(into / "in", rows, this.objective, [one.tolist() for one in old], SCORES)
    losses, final, _ = made.learned(this, base, into, checkpoint, **inputs)
    answers = [torch.tensor(answer) for _, answer in rows]
    prompts = torch.tensor([prompt for prompt, _ in rows])
    held = {
        "prompt_ids": prompts,
        "prompt_mask": torch.ones_like(prompts),
        "completion_ids": pad_sequence(answers, batch_first=True),
        "completion_mask": pad_sequence([torch.ones_like(one) for one in answers], batch_first=True),
        "old_per_token_logps": pad_sequence(old, batch_first=True),
        "ref_per_token_logps": pad_sequence(reference, batch_first=True),
        "old_logps": torch.stack([one.sum() for one in old]),
        "num_items_in_batch": torch.tensor(sum(len(one) for one in answers)),
    }
    apart = [(one - other).sum() for one, other in zip(old, reference, strict=True)]
    return losses, final, model, held, apart


def settings(into: Path) -> dict[str, Any]:
    return {
        **{key: value for key, value in SETTINGS.items() if key != "train_sampling_strategy"},
        "per_device_train_batch_size": ANSWERS,
        "num_generations": GROUP,
        "max_completion_length": 12,
        "temperature": TEMPERATURE,
        "beta": 0.05,
        "epsilon": 0.2,
        "epsilon_high": 0.3,
        "output_dir": str(into / "trl"),
    }


def run(kind: Any, args: Any, model: Any, held: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    def next_pass(trainer: Any, _batch: Any) -> dict[str, Any]:
        order = pass_order(tiny.SEED, trainer.state.global_step, ANSWERS)
        return {name: one[order] if one.dim() else one for name, one in held.items()}

    monkeypatch.setattr(kind, "_prepare_inputs", next_pass)
    trainer = kind(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=args,
        train_dataset=Dataset.from_list([{"prompt": "The worker"}] * 2 * ANSWERS),
        processing_class=tiny.tokenizer(),
    )
    trainer.train()
    return trainer


#: how we average -> what TRL calls it, and the price of being sure
AVERAGES: dict[Any, tuple[str, float]] = {
    "answers": ("grpo", 0.0),
    "tokens": ("dapo", 0.01),
    "constant": ("dr_grpo", 0.0),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("average", AVERAGES)
def test_grpo_equals_trl(
    average: Any, method: str, base_of: BaseOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    theirs, entropy = AVERAGES[average]
    objective = policy("grpo", average=average, entropy_coefficient=entropy)
    this = made.order(method, objective, batch_size=ANSWERS, micro_batch_size=ANSWERS)
    losses, final, model, held, _ = both(this, base_of("llama"), tmp_path)
    scores = torch.tensor(SCORES).view(-1, GROUP)
    held["advantages"] = ((scores - scores.mean(1, keepdim=True)) / (scores.std(1, keepdim=True) + 1e-4)).flatten()
    args = GRPOConfig(**settings(tmp_path), loss_type=theirs, entropy_coef=entropy, use_bias_correction_kl=False)
    trainer = run(GRPOTrainer, args, model, held, monkeypatch)
    assert losses == pytest.approx(losses_of(trainer), rel=1e-5, abs=1e-6)
    assert relative(final, weights(model)) <= 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_rloo_equals_trl(method: str, base_of: BaseOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.trainer.rloo_config import RLOOConfig
    from trl.trainer.rloo_trainer import RLOOTrainer

    # a ratio of whole answers leaves the clip's range at once at the usual rate, and nothing is left to compare
    slow = 2e-4
    this = made.order(method, policy("rloo"), batch_size=ANSWERS, micro_batch_size=ANSWERS)
    this = this.model_copy(update={"schedule": this.schedule.model_copy(update={"learning_rate": slow})})
    losses, final, model, held, apart = both(this, base_of("llama"), tmp_path)
    rewards = (torch.tensor(SCORES) - 0.05 * torch.stack(apart)).view(-1, GROUP)
    held["advantages"] = (rewards - (rewards.sum(1, keepdim=True) - rewards) / (GROUP - 1)).flatten()
    trainer = run(RLOOTrainer, RLOOConfig(**{**settings(tmp_path), "learning_rate": slow}), model, held, monkeypatch)
    # sums of some 60 nats, whose rounding the ratio carries
    assert losses == pytest.approx(losses_of(trainer), abs=5e-6)
    assert relative(final, weights(model)) <= 1e-6
