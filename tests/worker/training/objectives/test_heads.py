# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""Heads through all phases: drawn from the seed, learned, merged, measured and published as plain models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from shardwork.errors import InvalidInput
from shardwork.models.architectures import SCORABLE, reward_model
from shardwork.models.folder import inspect_model
from shardwork.recipes.objectives import PolicyObjective, RewardObjective
from shardwork.recipes.orders import LearnOrder
from shardwork_worker.training.trainer import TorchTrainer

from .. import tiny
from ..test_learn import next_checkpoint
from ..test_recall import rows as probe_rows
from ..test_recall import write_probe
from . import made

BaseOf = Callable[[str], Path]
METHODS = ("lora", "full", "partial")


def rewarded(kind: str, method: str, base_of: BaseOf, into: Path) -> tuple[LearnOrder, Path]:
    """A reward model's checkpoint after a round."""
    this = made.order(method, RewardObjective(), head="score")
    first = made.started(this, base_of(kind), into)
    train = made.write_pairs(into / "train", made.pairs_of(40))
    _, _, done = made.learned(this, base_of(kind), into, first, train=train)
    return this, next_checkpoint(first, done.outputs["delta"], into / "applied")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3"])
def test_a_reward_model_is_published_as_transformers_loads_it(
    kind: str, method: str, base_of: BaseOf, tmp_path: Path
) -> None:
    this, checkpoint = rewarded(kind, method, base_of, tmp_path)
    order = tiny.publish_order(method).model_copy(update={"tuning": this.tuning})
    inputs = {
        "base": base_of(kind),
        "checkpoint": checkpoint,
        "probe": write_probe(tmp_path / "probe", probe_rows(4, 1), probe_rows(4, 2)),
    }
    done = TorchTrainer("cpu").publish(order, tiny.context(tmp_path / "out", **inputs))
    folder = done.outputs["model"]
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert model.config.num_labels == 1 and model.config.pad_token_id == tokenizer.pad_token_id == 0
    ours = made.model_at(this, base_of(kind), checkpoint).model
    ids = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 0, 0]])
    mask = ids.ne(0).long()
    with torch.no_grad():
        told, expected = (
            model(input_ids=ids, attention_mask=mask).logits,
            ours(input_ids=ids, attention_mask=mask).logits,
        )
    assert torch.allclose(told, expected, atol=1e-5)
    facts = inspect_model(folder, reward=True)
    assert facts.scores and facts.architecture == model.config.architectures[0]
    with pytest.raises(InvalidInput, match="no causal language model"):
        inspect_model(folder)
    samples = json.loads((done.outputs["samples"] / "samples.json").read_text())["samples"]
    assert samples and all(one["completion"].startswith("score ") for one in samples)
    assert "AutoModelForSequenceClassification" in (folder / "README.md").read_text()
    assert not (folder / "adapter_config.json").exists()


@pytest.mark.parametrize("method", METHODS)
def test_a_score_head_is_drawn_from_the_seed_small_and_learns(method: str, base_of: BaseOf, tmp_path: Path) -> None:
    this = made.order(method, RewardObjective(), head="score")
    one, other = (made.weights_of(made.started(this, base_of("llama"), tmp_path / name)) for name in ("one", "other"))
    name = next(name for name in one if name.endswith("score.weight"))
    assert np.array_equal(one[name], other[name])
    assert 0 < np.abs(one[name]).max() < 0.1
    _, checkpoint = rewarded("llama", method, base_of, tmp_path)
    assert not np.array_equal(made.weights_of(checkpoint)[name], one[name])


def test_a_reward_model_may_be_learned_further(base_of: BaseOf, tmp_path: Path) -> None:
    this, checkpoint = rewarded("llama", "full", base_of, tmp_path)
    order = tiny.publish_order("full").model_copy(update={"tuning": this.tuning})
    context = tiny.context(tmp_path / "out", base=base_of("llama"), checkpoint=checkpoint)
    folder = TorchTrainer("cpu").publish(order, context).outputs["model"]
    again = made.weights_of(made.started(this, folder, tmp_path / "again"))
    assert np.array_equal(again["score.weight"], made.weights_of(checkpoint)["score.weight"])


@pytest.mark.parametrize("method", METHODS)
def test_a_value_head_begins_at_zero_and_stays_behind(method: str, base_of: BaseOf, tmp_path: Path) -> None:
    this = made.order(method, PolicyObjective(advantage="ppo", group=1), head="value")
    first = made.started(this, base_of("llama"), tmp_path)
    assert not made.weights_of(first)["value_head.weight"].any()
    checkpoint = made.moved(first, tmp_path / "moved")
    order = tiny.publish_order(method, merged=True).model_copy(update={"tuning": this.tuning})
    context = tiny.context(tmp_path / "out", base=base_of("llama"), checkpoint=checkpoint)
    folder = TorchTrainer("cpu").publish(order, context).outputs["model"]
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert not any("value" in name for name in inspect_model(folder).tensors if "v_proj" not in name)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = made.model_at(this, base_of("llama"), checkpoint).model(ids).logits
        assert torch.allclose(model(ids).logits, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_merged_adapter_is_a_whole_model(kind: str, base_of: BaseOf, tmp_path: Path) -> None:
    this = tiny.learn_order("lora")
    checkpoint = made.moved(made.started(this, base_of(kind), tmp_path), tmp_path / "moved")
    context = tiny.context(tmp_path / "out", base=base_of(kind), checkpoint=checkpoint)
    done = TorchTrainer("cpu").publish(tiny.publish_order("lora", merged=True), context)
    folder = done.outputs["model"]
    assert not (folder / "adapter_config.json").exists()
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = made.model_at(this, base_of(kind), checkpoint).model(ids).logits
        assert torch.allclose(model(ids).logits, expected, atol=1e-4)
    samples = json.loads((done.outputs["samples"] / "samples.json").read_text())["samples"]
    assert all("base" in one for one in samples)


def test_a_policy_with_values_goes_on_from_one_without(base_of: BaseOf, tmp_path: Path) -> None:
    parent = made.started(tiny.learn_order("full"), base_of("llama"), tmp_path / "parent")
    this = made.order("full", PolicyObjective(advantage="ppo", group=1), head="value")
    weights = made.weights_of(made.started(this, base_of("llama"), tmp_path / "ppo", parent=parent))
    assert not weights["value_head.weight"].any()
    assert set(weights) == {*made.weights_of(parent), "value_head.weight"}


def test_a_family_without_scores_is_refused(base_of: BaseOf, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="reward model"):
        made.started(made.order("full", RewardObjective(), head="score"), base_of("mamba"), tmp_path)


def test_reward_models_are_called_as_transformers_calls_them() -> None:
    known: dict[str, object] = dict(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
    assert {kind: reward_model(kind) for kind in SCORABLE} == {kind: known.get(kind) for kind in SCORABLE}
