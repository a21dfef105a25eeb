# pyright: standard
"""Adapters of every kind: on chosen layers, DoRA, rsLoRA, with A frozen, with dropout; counted as planned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from shardwork.errors import InvalidInput
from shardwork.models.folder import inspect_model, lora_params
from shardwork.recipes.measure import trained_params
from shardwork_worker.training.model import Built, build
from shardwork_worker.training.publish import probe
from shardwork_worker.training.trainer import TorchTrainer

from . import tiny
from .test_learn import learned, next_checkpoint

BaseOf = Callable[[str], Path]
CPU = torch.device("cpu")
A_SEED = "5a" * 32
VARIANTS: dict[str, dict[str, Any]] = {
    "top layer": {"layers": "top:1"},
    "layer 0": {"layers": (0,), "target_modules": ("q_proj", "c_attn")},
    "dora": {"dora": True},
    "rslora": {"rslora": True, "rank": 4},
    "ffa": {"frozen_a_seed": A_SEED},
    "dropout": {"dropout": 0.3},
    "all at once": {"layers": "top:1", "dora": True, "rslora": True, "dropout": 0.1, "frozen_a_seed": A_SEED},
}


def built(base: Path, **changes: Any) -> Built:
    return build(base, tiny.tuning("lora", **changes), from_scratch=False, seed=tiny.SEED, device=CPU)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_plans_count_of_an_adapters_parameters_is_the_models(kind: str, variant: str, base_of: BaseOf) -> None:
    changes = dict(VARIANTS[variant])
    if "target_modules" in changes:
        changes["target_modules"] = ("c_attn",) if kind == "gpt2" else ("q_proj",)
    planned = trained_params(inspect_model(base_of(kind)), tiny.tuning("lora", **changes))
    assert planned == sum(parameter.numel() for parameter in built(base_of(kind), **changes).trainable.values())


def test_only_the_chosen_layers_get_an_adapter(base_of: BaseOf) -> None:
    top = set(built(base_of("llama"), layers="top:1").trainable)
    first = set(built(base_of("llama"), layers=(0,), target_modules=("q_proj",)).trainable)
    assert top and all(".layers.1." in name for name in top)
    assert first and all(".layers.0.self_attn.q_proj." in name for name in first)


@pytest.mark.parametrize("layers", ["top:3", (2,), ()])
def test_layers_that_the_model_lacks_are_refused_by_plan_and_worker(layers: Any, base_of: BaseOf) -> None:
    for refuse in (
        lambda: built(base_of("llama"), layers=layers),
        lambda: lora_params(inspect_model(base_of("llama")), 4, layers=layers),
    ):
        with pytest.raises(InvalidInput) as caught:
            refuse()
        assert caught.value.code == "model.layers"
        assert "top:2" in caught.value.why.next_step


def test_a_frozen_a_is_the_same_for_every_shard_and_another_for_every_stage(base_of: BaseOf) -> None:
    def first_values(seed: bytes, a_seed: str) -> list[torch.Tensor]:
        tuning = tiny.tuning("lora", frozen_a_seed=a_seed)
        made = build(base_of("llama"), tuning, from_scratch=False, seed=seed, device=CPU)
        assert all(".lora_B." in name for name in made.trainable)
        return [value for name, value in made.model.named_parameters() if ".lora_A." in name]

    one, same, other = first_values(tiny.SEED, A_SEED), first_values(bytes(32), A_SEED), first_values(b"", "00" * 32)
    assert all(torch.equal(left, right) for left, right in zip(one, same, strict=True))
    assert not any(torch.equal(left, right) for left, right in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "variant",
    [pytest.param(name, marks=[] if name == "all at once" else pytest.mark.nightly) for name in VARIANTS],
)
def test_what_was_learned_loads_in_plain_peft_with_the_same_logits(
    variant: str, base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    trainer, base, changes = TorchTrainer("cpu"), base_of("llama"), dict(VARIANTS[variant])
    if "target_modules" in changes:
        changes["target_modules"] = ("q_proj",)
    tuning = tiny.tuning("lora", **changes)
    first = tiny.first_checkpoint(trainer, base, tmp_path / "init", "lora", **changes)
    order = tiny.learn_order(tuning=tuning)
    delta, _ = learned(trainer, order, tmp_path / "learn", base=base, checkpoint=first, train=train)
    checkpoint = next_checkpoint(first, delta, tmp_path / "applied")
    context = tiny.context(tmp_path / "out", base=base, checkpoint=checkpoint)
    done = trainer.publish(tiny.publish_order(tuning=tuning), context)
    folder = done.outputs["model"]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["use_dora"] is tuning.dora and config["use_rslora"] is tuning.rslora
    assert config["lora_dropout"] == tuning.dropout
    plain: Any = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
    untouched = probe(plain)
    theirs = probe(PeftModel.from_pretrained(plain, folder).eval())
    ours = build(base, tuning, from_scratch=False, seed=tiny.SEED, device=CPU)
    from shardwork_worker.training.checkpoints import load_weights

    load_weights(ours, checkpoint)
    assert torch.equal(theirs, probe(ours.model))
    assert not torch.equal(theirs, untouched)
    assert done.metrics["reload_difference"] == 0.0


def test_dropout_is_repeated_bit_by_bit_and_does_not_see_micro_batches(
    base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    trainer, base = TorchTrainer("cpu"), base_of("llama")
    first = tiny.first_checkpoint(trainer, base, tmp_path / "init", "lora", dropout=0.5)

    def losses(name: str, **changes: Any) -> tuple[Path, dict[str, float]]:
        order = tiny.learn_order(tuning=tiny.tuning("lora", dropout=0.5), **changes)
        delta, metrics = learned(trainer, order, tmp_path / name, base=base, checkpoint=first, train=train)
        return delta, dict(metrics)

    one, again, cut = losses("one"), losses("again"), losses("cut", micro_batch_size=1)
    assert tiny.same_files(one[0], again[0])
    assert cut[1]["train_loss"] == pytest.approx(one[1]["train_loss"], rel=1e-5)
    order = tiny.learn_order(tuning=tiny.tuning("lora"))
    _, without = learned(trainer, order, tmp_path / "without", base=base, checkpoint=first, train=train)
    assert without["train_loss"] != pytest.approx(one[1]["train_loss"], rel=1e-5)


@pytest.mark.parametrize("dora", [False, True])
def test_dropout_zeroes_the_share_that_was_asked_for_and_only_while_learning(dora: bool, base_of: BaseOf) -> None:
    made = built(base_of("llama"), dropout=0.25, dora=dora)
    assert made.dropping is not None
    seen: list[torch.Tensor] = []
    name, dropout = next((n, m) for n, m in made.model.named_modules() if type(m).__name__ == "RowDropout")
    assert "lora_dropout" in name
    dropout.register_forward_hook(lambda _module, _given, out: seen.append(out))
    ids = torch.arange(2, 66).view(2, 32)
    call = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    made.model(**call)
    with made.dropping.during(tiny.SEED):
        for step in range(2):
            made.dropping.step = step
            made.dropping.look_at(*call.values())
            made.model(**call)
    *off, first, second = [values == 0 for values in seen]
    assert first.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert not torch.equal(first, second) and not torch.equal(first[0], first[1])
    assert not any(values.any() for values in off)  # DoRA does not even ask while nothing learns


@pytest.mark.parametrize("bits", [4, 8])
def test_a_base_in_few_bits_is_refused_where_the_device_cannot(bits: int, base_of: BaseOf) -> None:
    with pytest.raises(InvalidInput) as caught:
        built(base_of("llama"), base_bits=bits)
    assert caught.value.code == "model.base_bits"
    assert caught.value.why.evidence == {"device": "cpu"}


@pytest.mark.parametrize("bits", [4, 8])
def test_where_the_device_can_the_base_is_loaded_in_few_bits(
    bits: int, base_of: BaseOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shardwork_worker.training import model as models
    from shardwork_worker.training import quantised

    monkeypatch.setattr(quantised, "_imports", lambda: True)
    asked = quantised.loading(bits, torch.device("cuda:0"))
    config: Any = asked["quantization_config"]
    assert (config.load_in_4bit, config.load_in_8bit) == (bits == 4, bits == 8)
    # a loader that takes the settings and gives the base as it is stands for a GPU, which is not at hand
    seen: list[Any] = []
    plain = AutoModelForCausalLM.from_pretrained

    def loader(base: Path, **given: Any) -> Any:
        seen.append((given.pop("quantization_config"), given.pop("device_map")))
        return plain(base, **given)

    monkeypatch.setattr(models, "loading", lambda bits, _device: quantised.loading(bits, torch.device("cuda:0")))
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", loader)
    made = built(base_of("llama"), base_bits=bits)
    assert len(seen) == 1 and seen[0][1] == {"": torch.device("cuda:0")}
    assert all(".lora_" in name for name in made.trainable)


def test_the_first_checkpoint_of_such_a_job_needs_no_gpu(base_of: BaseOf, tmp_path: Path) -> None:
    trainer, base = TorchTrainer("cpu"), base_of("llama")
    few = tiny.first_checkpoint(trainer, base, tmp_path / "few", "lora", base_bits=4)
    assert tiny.same_files(few, tiny.first_checkpoint(trainer, base, tmp_path / "plain", "lora"))
