# pyright: standard
"""A folder that loads answers and can be merged; one that does not says which file, which key, and what to do."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from shardwork.errors import Conflict, Corrupt, InvalidInput
from shardwork.serving import check as checking
from shardwork.serving.check import serve_check
from shardwork.serving.results import Fit

from .conftest import Copy
from .folders import TEMPLATE, edit_json, edit_weights, write_adapter


def test_a_process_of_its_own_loads_merges_and_answers(copy: Copy, tmp_path: Path) -> None:
    folder = copy("gpt2-lora")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    found = serve_check(folder, merge=tmp_path / "deep" / "whole")
    assert (found.kind, found.architecture) == ("adapter", "GPT2LMHeadModel")
    assert found.loaded.answer_tokens > 0 and found.loaded.has_chat_template and not found.loaded.template_error
    assert found.loaded.prompt == "Hello\n"
    assert 0 < found.loaded.adapter_parameters < found.loaded.parameters
    assert found.merged is not None
    assert 0 < found.merged.difference <= found.merged.tolerance and found.merged.agreement == 1.0
    assert [each.name for each in (tmp_path / "deep").iterdir()] == ["whole"]
    assert {engine.fit for engine in found.merged.engines} <= {Fit.LIKELY, Fit.UNKNOWN}
    assert str(tmp_path) not in (tmp_path / "deep" / "whole" / "config.json").read_text()


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", ["llama", "gpt2", "llama-lora"])
def test_a_folder_that_is_right_is_left_as_it_is(name: str, copy: Copy) -> None:
    folder = copy(name)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = serve_check(folder)
    assert found.loaded.dtype == "float32" and found.loaded.tokens == 300 and found.merged is None
    assert [engine.engine for engine in found.engines] == ["vllm", "llama.cpp", "ollama"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("changes", [{"use_dora": True}, {"use_rslora": True}, {"r": 24}])
def test_adapters_of_other_kinds_merge_to_the_same_logits(changes: dict[str, Any], copy: Copy, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter", copy("llama"), **changes)
    found = serve_check(folder, merge=tmp_path / "whole")
    assert found.merged is not None and found.merged.difference <= found.merged.tolerance
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "llama", local_files_only=True)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", local_files_only=True)
    row = torch.tensor([[3, 4, 5]])
    assert not torch.allclose(base(row).logits, whole(row).logits)  # the adapter went in


@pytest.mark.usefixtures("in_process")
def test_a_template_that_breaks_is_told_and_the_rest_goes_on(copy: Copy) -> None:
    folder = copy("llama")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no greeting') }}")
    loaded = serve_check(folder).loaded
    assert "no greeting" in loaded.template_error and loaded.prompt == "The" and loaded.answer_tokens > 0


@pytest.mark.usefixtures("in_process")
def test_weights_that_no_file_holds_are_named(copy: Copy) -> None:
    folder = copy("llama")
    edit_weights(folder / "model.safetensors", {"model.layers.1.mlp.up_proj.weight": None})
    with pytest.raises(InvalidInput) as refused:
        serve_check(folder)
    assert refused.value.code == "serve.missing_weights"
    assert "layers.1.mlp.up_proj" in refused.value.why.evidence["key"]


@pytest.mark.usefixtures("in_process")
def test_half_an_adapter_is_refused(copy: Copy) -> None:
    folder = copy("llama-lora")
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"
    edit_weights(folder / "adapter_model.safetensors", {name: None})
    with pytest.raises(InvalidInput) as refused:
        serve_check(folder)
    assert refused.value.code == "serve.missing_weights" and refused.value.why.evidence["key"] == name


@pytest.mark.usefixtures("in_process")
def test_a_model_of_no_numbers_does_not_answer(copy: Copy) -> None:
    folder = copy("llama")
    edit_weights(folder / "model.safetensors", {"model.norm.weight": torch.full((32,), float("nan"))})
    with pytest.raises(Conflict) as refused:
        serve_check(folder)
    assert refused.value.code == "serve.does_not_load" and refused.value.exit_code == 1
    assert "no numbers" in refused.value.why.evidence["said"]


@pytest.mark.usefixtures("in_process")
def test_a_config_that_transformers_refuses_does_not_load(copy: Copy) -> None:
    folder = copy("llama")
    edit_json(folder / "config.json", hidden_act="no-such-thing")
    with pytest.raises(Conflict) as refused:
        serve_check(folder)
    assert refused.value.code == "serve.does_not_load" and "no-such-thing" in refused.value.why.evidence["said"]


@pytest.mark.parametrize(("lacking", "name"), [("torch", "llama"), ("peft", "llama-lora")])
def test_without_the_extra_it_is_named(lacking: str, name: str, copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(module: str) -> object:
        return None if module == lacking else find_spec(module)

    monkeypatch.setattr(checking, "find_spec", found)
    with pytest.raises(Conflict) as refused:
        serve_check(copy(name))
    assert refused.value.code == "serve.needs_extra" and "shardwork[worker]" in refused.value.why.next_step
    assert lacking in refused.value.why.sentence


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [(-9, "", "serve.killed"), (1, "Traceback\nImportError: libfoo.so\n", "serve.broken_extra")],
)
def test_a_process_that_gives_no_answer_is_told_apart(
    code: int, said: str, expected: str, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "_exchange", lambda _request: (code, "", said))
    with pytest.raises(Conflict) as refused:
        serve_check(copy("llama"))
    assert refused.value.code == expected
    assert refused.value.why.evidence.get("said", "ImportError: libfoo.so") == "ImportError: libfoo.so"


def test_a_program_that_ends_without_an_answer_is_noticed(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "PROGRAM", ("-I", "-c", "import sys; sys.exit('no torch worth the name')"))
    with pytest.raises(Conflict) as refused:
        serve_check(copy("llama"))
    assert refused.value.why.evidence["said"] == "no torch worth the name"


# ---- merging ------------------------------------------------------------------------------------------------------


def test_nothing_that_is_there_is_overwritten(copy: Copy, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("kept")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    for target in (taken, taken / "mine", link):
        with pytest.raises(InvalidInput) as refused:
            serve_check(copy("llama-lora") if target == taken else tmp_path / "llama-lora", merge=target)
        assert refused.value.code == "serve.out_exists"
    assert (taken / "mine").read_text() == "kept"


def test_a_whole_model_has_nothing_to_merge(copy: Copy, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        serve_check(copy("llama"), merge=tmp_path / "out")
    assert refused.value.code == "serve.nothing_to_merge"


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, OSError])
def test_what_is_broken_off_leaves_nothing(
    raised: type[BaseException], copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"

    def broken_off(request: str) -> tuple[int, str, str]:
        (Path(json.loads(request)["merge"]) / "config.json").write_text("{}")
        raise raised

    monkeypatch.setattr(checking, "_exchange", broken_off)
    with pytest.raises(raised):
        serve_check(copy("llama-lora"), merge=place / "whole")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("difference", [0.5, float("nan")])
def test_a_merge_that_changes_the_answers_is_not_kept(
    difference: float, copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = {"difference": difference, "tolerance": 1e-4, "agreement": 0.5}
    monkeypatch.setattr(checking, "_exchange", lambda _request: (0, json.dumps({"merged": merged}), ""))
    with pytest.raises(Corrupt) as refused:
        serve_check(copy("llama-lora"), merge=tmp_path / "place" / "whole")
    assert refused.value.code == "serve.merge_differs"
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.usefixtures("in_process")
def test_an_empty_folder_may_be_merged_into(copy: Copy, tmp_path: Path) -> None:
    target = tmp_path / "empty"
    target.mkdir()
    base = copy("llama")
    (base / "chat_template.jinja").write_text("of the base")
    folder = copy("llama-lora")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    edit_json(folder / "adapter_config.json", base_model_name_or_path="nowhere")
    found = serve_check(folder, base=base, merge=target)
    assert found.merged is not None and found.base == base
    again = serve_check(target)
    assert again.kind == "model" and again.loaded.answer == found.loaded.answer
    assert (target / "chat_template.jinja").read_text() == TEMPLATE
