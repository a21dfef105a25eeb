# pyright: standard
"""Each server's outlook follows from names, config and files; what is not known is never called no or likely."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shardwork.models.architectures import CAUSAL_LM
from shardwork.serving.engines import judge, rope_types
from shardwork.serving.folder import read_subject
from shardwork.serving.results import EngineFit, Fit
from shardwork.serving.support import READ_ON, SOURCES, SUPPORT

from .conftest import Copy
from .folders import edit_json, write_base


def outlook(folder: Path) -> dict[str, EngineFit]:
    return {engine.engine: engine for engine in judge(read_subject(folder))}


def about(engine: EngineFit, name: str) -> Fit:
    return next(finding.fit for finding in engine.findings if finding.about == name)


def known_tokenizer(folder: Path) -> None:
    """The tokenizer as a converter would know it: Llama 2's falls back to bytes."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["byte_fallback"] = True
    path.write_text(json.dumps(content))


def test_a_llama_with_a_known_tokenizer_is_likely_everywhere(copy: Copy) -> None:
    folder = copy("llama")
    assert outlook(folder)["llama.cpp"].fit is Fit.UNKNOWN  # its own BPE
    known_tokenizer(folder)
    found = outlook(folder)
    assert {engine.fit for engine in found.values()} == {Fit.LIKELY}
    assert found["vllm"].how == (f"vllm serve {folder}",)
    assert found["ollama"].how[0] == f"echo 'FROM {folder}' > Modelfile"


def test_ollama_is_given_a_path_and_never_a_name_of_its_library(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy("llama")
    monkeypatch.chdir(tmp_path)
    assert outlook(Path("llama"))["ollama"].how[0] == f"echo 'FROM {tmp_path / 'llama'}' > Modelfile"


def test_what_ollama_does_not_import_goes_through_llama_cpp(copy: Copy) -> None:
    found = outlook(copy("gpt2"))["ollama"]
    assert found.how[0].startswith("python convert_hf_to_gguf.py") and "./model.gguf" in found.how[1]


def test_a_gemma_needs_its_sentencepiece_for_gguf(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "gemma", "gemma2")
    found = outlook(folder)
    assert found["llama.cpp"].fit is Fit.NO and found["vllm"].fit is Fit.LIKELY and found["llama.cpp"].how == ()
    (folder / "tokenizer.model").write_bytes(b"")
    assert outlook(folder)["llama.cpp"].fit is Fit.LIKELY


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, {"default"}),
        ({"rope_scaling": None}, {"default"}),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, {"linear"}),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, {"llama3"}),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}, "sliding_attention": {}}}, {"yarn", "default"}),
    ],
)
def test_scaled_positions_are_read_in_old_and_new_keys(config: dict[str, Any], expected: set[str]) -> None:
    assert rope_types(config) == expected


def test_a_scaling_that_only_one_server_knows_is_unknown_to_the_other(copy: Copy) -> None:
    folder = copy("llama")
    edit_json(folder / "config.json", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
    found = outlook(folder)
    assert about(found["vllm"], "positions") is Fit.LIKELY and about(found["llama.cpp"], "positions") is Fit.UNKNOWN


@pytest.mark.parametrize(
    ("changes", "finding", "vllm", "llama_cpp"),
    [
        ({"r": 16}, "rank", Fit.LIKELY, Fit.LIKELY),
        ({"r": 24}, "rank", Fit.LIKELY, Fit.LIKELY),
        ({"r": 513}, "rank", Fit.NO, Fit.LIKELY),
        ({"use_dora": True}, "DoRA", Fit.NO, Fit.NO),
        ({"use_rslora": True}, "rsLoRA", Fit.LIKELY, Fit.NO),
        ({"alpha_pattern": {"q_proj": 4}}, "patterns", Fit.NO, Fit.NO),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save", Fit.NO, Fit.NO),
        ({"target_modules": ["q_proj", "lm_head"]}, "vocabulary", Fit.UNKNOWN, Fit.UNKNOWN),
    ],
)
def test_an_adapter_s_kind_decides(
    changes: dict[str, Any], finding: str, vllm: Fit, llama_cpp: Fit, copy: Copy
) -> None:
    folder = copy("llama-lora")
    edit_json(folder / "adapter_config.json", **changes)
    found = outlook(folder)
    assert about(found["vllm"], finding) is vllm and about(found["llama.cpp"], finding) is llama_cpp
    if vllm is Fit.NO:
        assert found["vllm"].fit is Fit.NO and "--merge" in found["vllm"].how[0]


def test_a_rank_above_the_default_names_its_option(copy: Copy) -> None:
    folder = copy("llama-lora")
    assert "--max-lora-rank" not in outlook(folder)["vllm"].how[0]
    edit_json(folder / "adapter_config.json", r=24)
    assert outlook(folder)["vllm"].how[0].endswith("--max-lora-rank 32")


def test_gpt2_adapters_are_for_merging_in_vllm(copy: Copy) -> None:
    assert about(outlook(copy("gpt2-lora"))["vllm"], "adapters") is Fit.NO


def test_a_config_without_architectures_is_told(copy: Copy) -> None:
    folder = copy("llama")
    edit_json(folder / "config.json", architectures=None)
    assert {about(engine, "config") for engine in outlook(folder).values()} == {Fit.NO}


def test_a_name_off_the_table_is_unknown_and_never_no(copy: Copy) -> None:
    assert "ArceeForCausalLM" in CAUSAL_LM.values() and "ArceeForCausalLM" not in SUPPORT
    folder = copy("llama")
    edit_json(folder / "config.json", model_type="arcee", architectures=["ArceeForCausalLM"])
    assert {about(engine, "architecture") for engine in outlook(folder).values()} == {Fit.UNKNOWN}
    assert {engine.fit for engine in outlook(folder).values()} == {Fit.UNKNOWN}


def test_the_table_holds_names_that_can_be_trained_here_and_says_where_from() -> None:
    assert set(SUPPORT) <= set(CAUSAL_LM.values())
    assert set(SOURCES) == {"vllm", "llama.cpp", "ollama"} and READ_ON.startswith("20")
    assert all(row.vllm or not row.vllm_lora for row in SUPPORT.values())
