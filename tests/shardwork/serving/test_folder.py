# pyright: standard
"""What is wrong in a folder is named: code, file, key and what to do, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shardwork.errors import InvalidInput
from shardwork.serving.folder import read_subject

from .conftest import Copy
from .folders import edit_json, edit_weights

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def refusal(folder: Path, base: Path | None = None) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        read_subject(folder, base)
    assert refused.value.why.next_step and refused.value.why.evidence["file"]
    return refused.value


Break = Callable[[Path], object]
BROKEN: dict[str, tuple[Break, str, str, str]] = {
    "no json": (lambda f: (f / CONFIG).write_text("{"), "serve.bad_json", CONFIG, ""),
    "a list": (lambda f: (f / CONFIG).write_text("[]"), "serve.bad_json", CONFIG, ""),
    "another type": (lambda f: edit_json(f / CONFIG, peft_type="IA3"), "serve.adapter_type", CONFIG, ""),
    "no rank": (lambda f: edit_json(f / CONFIG, r=None), "serve.adapter_config", CONFIG, "r"),
    "rank of text": (lambda f: edit_json(f / CONFIG, r="8"), "serve.adapter_config", CONFIG, "r"),
    "rank 0": (lambda f: edit_json(f / CONFIG, r=0), "serve.adapter_config", CONFIG, "r"),
    "no modules": (
        lambda f: edit_json(f / CONFIG, target_modules=[]),
        "serve.adapter_config",
        CONFIG,
        "target_modules",
    ),
    "endless pattern": (
        lambda f: edit_json(f / CONFIG, target_modules="(a+)+b"),
        "serve.adapter_config",
        CONFIG,
        "target_modules",
    ),
    "code": (
        lambda f: edit_json(f / CONFIG, megatron_config={"a": 1}),
        "serve.adapter_code",
        CONFIG,
        "megatron_config",
    ),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "serve.no_weights", WEIGHTS, ""),
    "cut weights": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:99]),
        "model.bad_tensors",
        WEIGHTS,
        "",
    ),
    "pickled": (
        lambda f: (f / WEIGHTS).rename(f / "adapter_model.bin"),
        "serve.pickle",
        "adapter_model.bin",
        "",
    ),
    "no base": (
        lambda f: edit_json(f / CONFIG, base_model_name_or_path="meta/some-model"),
        "serve.no_base",
        CONFIG,
        "base_model_name_or_path",
    ),
    "unnamed base": (
        lambda f: edit_json(f / CONFIG, base_model_name_or_path=None),
        "serve.no_base",
        CONFIG,
        "base_model_name_or_path",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_adapter_is_refused_by_file_and_key(name: str, copy: Copy) -> None:
    breaking, code, file, key = BROKEN[name]
    folder = copy("llama-lora")
    breaking(folder)
    found = refusal(folder)
    assert found.code == code and Path(found.why.evidence["file"]).name == file
    assert found.why.evidence.get("key", "") == key


def test_a_file_without_lora_in_it_is_no_adapter(copy: Copy) -> None:
    folder = copy("llama-lora")
    (folder / WEIGHTS).write_bytes((copy("llama") / "model.safetensors").read_bytes())
    assert refusal(folder).code == "serve.no_weights"


def test_a_base_is_found_from_here_and_from_the_adapter(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy("llama-lora")
    copy("llama")
    edit_json(folder / CONFIG, base_model_name_or_path="../llama")
    assert read_subject(folder).base == folder / "../llama"
    monkeypatch.chdir(tmp_path)
    edit_json(folder / CONFIG, base_model_name_or_path="llama")
    assert read_subject(folder).base == Path("llama")


def test_another_model_s_adapter_is_refused(copy: Copy) -> None:
    assert refusal(copy("llama-lora"), copy("gpt2")).code == "serve.base_differs"


def test_an_adapter_of_other_sides_is_refused(copy: Copy) -> None:
    folder = copy("llama-lora")
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
    edit_weights(folder / WEIGHTS, {name: torch.zeros(4, 64)})
    found = refusal(folder)
    assert found.code == "serve.base_differs" and found.why.evidence["tensor"] == name


def test_base_must_be_a_model_and_is_for_adapters(copy: Copy, tmp_path: Path) -> None:
    adapter, model = copy("llama-lora"), copy("llama")
    assert refusal(adapter, tmp_path / "nowhere").code == "serve.no_base"
    assert refusal(adapter, adapter).code == "serve.no_base"
    assert refusal(model, model).code == "serve.base_unused"


def test_the_folder_above_names_what_lies_in_it(copy: Copy, tmp_path: Path) -> None:
    copy("llama")
    found = refusal(tmp_path)
    assert found.code == "serve.no_config" and str(tmp_path / "llama") in found.why.next_step
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty").code == "serve.no_config"
    assert refusal(tmp_path / "nowhere").code == "serve.no_folder"
    assert refusal(tmp_path / "llama" / "config.json").code == "serve.no_folder"


@pytest.mark.parametrize(
    ("breaking", "code"),
    [
        (lambda f: (f / "config.json").write_text("{"), "model.bad_json"),
        (lambda f: (f / "tokenizer.json").unlink(), "model.no_tokenizer"),
        (lambda f: (f / "model.safetensors").unlink(), "model.no_weights"),
        (lambda f: (f / "modeling.py").write_text("import os"), "model.code"),
        (lambda f: edit_json(f / "config.json", auto_map={"AutoModel": "modeling.M"}), "model.code"),
        (lambda f: edit_json(f / "config.json", model_type="lama"), "model.type"),
    ],
)
def test_a_broken_model_is_refused(breaking: Break, code: str, copy: Copy) -> None:
    folder = copy("llama")
    breaking(folder)
    assert refusal(folder).code == code


def test_a_checkpoint_names_the_model_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "sft.checkpoint"
    folder.mkdir()
    (folder / "state.json").write_text("{}")
    found = refusal(folder)
    assert found.code == "serve.no_config" and "checkpoint" in found.why.sentence
    assert str(tmp_path / "sft.model") in found.why.next_step
