# pyright: standard
"""Which models load, which parameters learn, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shardwork.errors import InvalidInput
from shardwork.models.folder import full_params, inspect_model, lora_params, partial_params
from shardwork.tensors.file import read_tensors, write_tensors
from shardwork_worker.training.model import Built, build, check_length

from . import tiny

CPU = torch.device("cpu")
KINDS = ("llama", "gpt2", "qwen2", "qwen3", "gemma", "gemma2", "gpt_neox")
BaseOf = Callable[[str], Path]


def built(base: Path, method: str, *, seed: bytes = tiny.SEED, from_scratch: bool = False, **changes: object) -> Built:
    return build(base, tiny.tuning(method, **changes), from_scratch=from_scratch, seed=seed, device=CPU)


@pytest.mark.parametrize("kind", KINDS)
def test_partial_tuning_finds_the_last_block_and_the_final_norm_of(kind: str, base_of: BaseOf) -> None:
    names = set(built(base_of(kind), "partial").trainable)
    blocks = {name for name in names if ".1." in name}
    rest = names - blocks
    assert blocks and not any(".0." in name for name in names)
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in rest} <= {"norm", "ln_f", "final_layer_norm"}
    assert rest


@pytest.mark.parametrize("kind", KINDS)
def test_full_tuning_learns_every_parameter_once_of(kind: str, base_of: BaseOf) -> None:
    made = built(base_of(kind), "full")
    assert sum(p.numel() for p in made.trainable.values()) == sum(p.numel() for p in made.model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_lora_learns_only_adapters_of(kind: str, base_of: BaseOf) -> None:
    names = set(built(base_of(kind), "lora", rank=4).trainable)
    assert names and all(".lora_A." in name or ".lora_B." in name for name in names)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plans_count_of_learning_parameters_is_the_models(kind: str, base_of: BaseOf) -> None:
    facts = inspect_model(base_of(kind))
    planned = [full_params(facts), lora_params(facts, 4), partial_params(facts, 1)]
    base = base_of(kind)
    made = [built(base, "full"), built(base, "lora", rank=4), built(base, "partial")]
    assert planned == [sum(parameter.numel() for parameter in each.trainable.values()) for each in made]


def test_last_layers_and_the_final_norm_are_as_asked(base_of: BaseOf) -> None:
    both = set(built(base_of("llama"), "partial", last_layers=2, train_final_norm=False).trainable)
    assert any(".layers.0." in name for name in both) and "model.norm.weight" not in both


def test_the_head_learns_where_it_is_not_tied(base_of: BaseOf) -> None:
    assert "lm_head.weight" in built(base_of("llama"), "partial", train_head=True).trainable


def test_a_tied_head_is_refused(base_of: BaseOf) -> None:
    with pytest.raises(InvalidInput) as caught:
        built(base_of("gpt2"), "partial", train_head=True)
    assert caught.value.code == "model.tied_head"


@pytest.mark.parametrize("count", [0, 3])
def test_a_number_of_layers_that_the_model_lacks_is_refused(count: int, base_of: BaseOf) -> None:
    with pytest.raises(InvalidInput) as caught:
        built(base_of("llama"), "partial", last_layers=count)
    assert caught.value.code == "model.last_layers"


def test_modules_that_the_model_lacks_are_refused(base_of: BaseOf) -> None:
    with pytest.raises(InvalidInput) as caught:
        built(base_of("llama"), "lora", target_modules=("c_attn",))
    assert caught.value.code == "model.target_modules"


def test_an_adapters_first_values_depend_on_the_seed_only(base_of: BaseOf) -> None:
    torch.manual_seed(1)
    one = built(base_of("llama"), "lora").trainable
    torch.manual_seed(2)
    same = built(base_of("llama"), "lora").trainable
    other = built(base_of("llama"), "lora", seed=bytes(32)).trainable
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_weights_from_scratch_depend_on_the_seed_only(tmp_path: Path) -> None:
    skeleton = tiny.write_skeleton(tmp_path / "skeleton", "llama")
    one, same, other = (
        built(skeleton, "full", seed=seed, from_scratch=True).trainable for seed in (tiny.SEED, tiny.SEED, bytes(32))
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


def test_weights_in_half_precision_are_tuned_in_fp32(base_of: BaseOf, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "half"
    shutil.copytree(base_of("llama"), folder)
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    assert {p.dtype for p in built(folder, "full").trainable.values()} == {torch.float32}


def changed(base: Path, into: Path, **changes: object) -> Path:
    shutil.copytree(base, into)
    config = json.loads((into / "config.json").read_text())
    (into / "config.json").write_text(json.dumps({**config, **changes}))
    return into


@pytest.mark.parametrize(
    "changes",
    [
        {"auto_map": {"AutoModelForCausalLM": "evil.Model"}},
        {"text": {"auto_map": {"AutoConfig": "evil.Config"}}},
        {"attn_implementation": "someone/kernel"},
        {"_attn_implementation": "someone/kernel@main"},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
    ],
)
def test_a_config_that_names_code_is_refused(changes: dict[str, object], base_of: BaseOf, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        built(changed(base_of("llama"), tmp_path / "base", **changes), "full")
    assert caught.value.code == "model.code_in_config"


def test_an_architecture_that_is_not_built_in_is_refused(base_of: BaseOf, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        built(changed(base_of("llama"), tmp_path / "base", model_type="my-own"), "full")
    assert caught.value.code == "model.unknown_architecture"


def test_a_base_with_pickled_weights_only_is_refused(base_of: BaseOf, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(base_of("llama"), folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(InvalidInput) as caught:
        built(folder, "full")
    assert caught.value.code == "model.pickle"


def test_an_adapters_folder_is_refused_as_a_base(base_of: BaseOf, tmp_path: Path) -> None:
    folder = changed(base_of("llama"), tmp_path / "base")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/elsewhere"}))
    with pytest.raises(InvalidInput) as caught:
        built(folder, "full")
    assert caught.value.code == "model.is_adapter"


def test_rows_longer_than_the_models_positions_are_refused(base_of: BaseOf) -> None:
    made = built(base_of("gpt2"), "lora")
    check_length(made, 128)
    with pytest.raises(InvalidInput) as caught:
        check_length(made, 129)
    assert caught.value.code == "model.max_length"


def test_a_base_that_lacks_weights_is_refused_and_not_filled_at_random(base_of: BaseOf, tmp_path: Path) -> None:
    folder = changed(base_of("llama"), tmp_path / "base")
    weights = read_tensors(folder / "model.safetensors")
    write_tensors(folder / "model.safetensors", {name: weights[name] for name in weights if "q_proj" not in name})
    with pytest.raises(InvalidInput) as caught:
        built(folder, "full")
    assert caught.value.code == "model.missing_weights"


@pytest.mark.parametrize("method", ["lora", "partial"])
def test_only_full_tuning_starts_from_scratch(method: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        built(tiny.write_skeleton(tmp_path / "skeleton", "llama"), method, from_scratch=True)
    assert caught.value.code == "model.scratch_needs_full"
