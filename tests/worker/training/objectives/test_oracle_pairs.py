# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""The oracle: our reward models and preferences give TRL's losses and weights over ten steps, by every method.

Same rows in the same order, same start and reference, same AdamW, clip and constant rate; one thread, fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset  # type: ignore[import-untyped]
from transformers import AutoModelForCausalLM

from shardwork.recipes.objectives import PreferenceObjective, RewardObjective

from .. import tiny
from ..test_oracle import QUIET, SETTINGS, losses_of, relative, same_start, weights
from . import made

BaseOf = Callable[[str], Path]
pytestmark = [pytest.mark.filterwarnings(rule) for rule in QUIET]
METHODS = ("lora", "full", "partial")


def as_tokenised(_trainer: Any, dataset: Any, *_settings: Any) -> Any:
    """TRL would render and tokenise text; the rows here are tokens already."""
    return dataset


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_reward_equals_trl(kind: str, method: str, base_of: BaseOf, tmp_path: Path) -> None:
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    pairs = made.pairs_of(45)
    this = made.order(method, RewardObjective(centre=0.01), head="score")
    losses, final, done = made.learned(this, base_of(kind), tmp_path, train=made.write_pairs(tmp_path / "train", pairs))
    model = same_start(this, base_of(kind))
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(**SETTINGS, output_dir=str(tmp_path / "trl"), center_rewards_coefficient=0.01),
        train_dataset=Dataset.from_list(
            [{"chosen_ids": prompt + chosen, "rejected_ids": prompt + rejected} for prompt, chosen, rejected in pairs]
        ),
        processing_class=tiny.tokenizer(),
    )
    trainer.train()
    assert losses == pytest.approx(losses_of(trainer), rel=1e-6)
    assert relative(final, weights(model)) <= 1e-6
    accuracies = [entry["accuracy"] for entry in trainer.state.log_history if "accuracy" in entry]
    assert done.metrics["accuracy"] == pytest.approx(sum(accuracies) / len(accuracies))


def prompted(pairs: Any) -> Any:
    return Dataset.from_list(
        [{"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected} for prompt, chosen, rejected in pairs]
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_dpo_equals_trl(
    loss: Any, method: str, base_of: BaseOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    monkeypatch.setattr(DPOTrainer, "_prepare_dataset", as_tokenised)
    base, pairs = base_of("llama"), made.pairs_of(45)
    this = made.order(method, PreferenceObjective(loss=loss))
    losses, final, _ = made.learned(this, base, tmp_path, train=made.write_pairs(tmp_path / "train", pairs))
    model = same_start(this, base)
    trainer = DPOTrainer(
        model=model,
        ref_model=AutoModelForCausalLM.from_pretrained(base, dtype="float32"),
        args=DPOConfig(**SETTINGS, output_dir=str(tmp_path / "trl"), loss_type=[loss], beta=0.1, max_length=64),
        train_dataset=prompted(pairs),
        processing_class=tiny.tokenizer(),
    )
    trainer.train()
    assert losses == pytest.approx(losses_of(trainer), rel=1e-6)
    assert relative(final, weights(model)) <= 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_kto_equals_trl(method: str, base_of: BaseOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    monkeypatch.setattr(KTOTrainer, "_prepare_dataset", as_tokenised)
    base, answers = base_of("llama"), made.answers_of(48)
    labels = [number % 3 != 0 for number in range(48)]
    this = made.order(method, PreferenceObjective(loss="kto", desirable=1.0, undesirable=1.5))
    train = made.write_train(
        tmp_path / "train", [made.row(*one) for one in answers], 1, [float(label) for label in labels]
    )
    losses, final, done = made.learned(this, base, tmp_path, train=train)
    model = same_start(this, base)
    trainer = KTOTrainer(
        model=model,
        ref_model=AutoModelForCausalLM.from_pretrained(base, dtype="float32"),
        args=KTOConfig(**SETTINGS, output_dir=str(tmp_path / "trl"), beta=0.1, undesirable_weight=1.5, max_length=64),
        train_dataset=Dataset.from_list(
            [
                {
                    "prompt_ids": answers[i][0],
                    "completion_ids": answers[i][1],
                    # its neighbour's in the batch
                    "KL_completion_ids": answers[i - i % made.BATCH + (i - 1) % made.BATCH][1],
                    "label": labels[i],
                }
                for i in range(len(answers))
            ]
        ),
        processing_class=tiny.tokenizer(),
    )
    trainer.train()
    assert losses == pytest.approx(losses_of(trainer), rel=1e-6)
    assert relative(final, weights(model)) <= 1e-6
    theirs = [entry["kl"] for entry in trainer.state.log_history if "kl" in entry]
    assert done.metrics["kl"] == pytest.approx(sum(theirs) / len(theirs), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_orpo_equals_trl(method: str, base_of: BaseOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.experimental.orpo import orpo_trainer
    from trl.experimental.orpo.orpo_config import ORPOConfig

    def tokens_of(_trainer: Any, feature: Any, model: Any = None) -> dict[str, list[int]]:
        prompt, told = feature["prompt_tokens"], {}
        for side in ("chosen", "rejected"):
            answer = feature[f"{side}_tokens"]
            told[f"{side}_input_ids"] = prompt + answer
            told[f"{side}_attention_mask"] = [1] * len(prompt + answer)
            told[f"{side}_labels"] = [-100] * len(prompt) + answer
        return told

    monkeypatch.setattr(orpo_trainer.ORPOTrainer, "tokenize_row", tokens_of)
    base, pairs = base_of("llama"), made.pairs_of(45)
    this = made.order(method, PreferenceObjective(loss="orpo", beta=0.2))
    losses, final, _ = made.learned(this, base, tmp_path, train=made.write_pairs(tmp_path / "train", pairs))
    model = same_start(this, base)
    columns = ("prompt_tokens", "chosen_tokens", "rejected_tokens")
    texts = {"prompt": "a", "chosen": "b", "rejected": "c"}
    trainer = orpo_trainer.ORPOTrainer(
        model=model,
        args=ORPOConfig(**SETTINGS, output_dir=str(tmp_path / "trl"), beta=0.2, max_length=64),
        train_dataset=Dataset.from_list([{**texts, **dict(zip(columns, pair, strict=True))} for pair in pairs]),
        processing_class=tiny.tokenizer(),
    )
    trainer.train()
    assert losses == pytest.approx(losses_of(trainer), rel=1e-6)
    assert relative(final, weights(model)) <= 1e-6
