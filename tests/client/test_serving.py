"""`job serve-check` at the command line: pages, JSON and exit codes; what is checked is tested beside the check."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from shardwork.serving import check as checking

from .conftest import Run, error_of, json_of
from .tiny_model import write_model

ANSWER: Mapping[str, Any] = {
    "seconds": 0.5,
    "parameters": 2600,
    "adapter_parameters": 0,
    "dtype": "float32",
    "tokenizer": "TokenizersBackend",
    "tokens": 260,
    "has_chat_template": True,
    "template_error": "",
    "prompt": "<|user|>Hello",
    "answer": "Hi\x1b[2J there",
    "answer_tokens": 3,
    "answer_seconds": 0.1,
}


def answering(answer: Mapping[str, Any]) -> Callable[[str], tuple[int, str, str]]:
    """A child that says this of every folder."""

    def exchange(_request: str) -> tuple[int, str, str]:
        return 0, json.dumps(answer), ""

    return exchange


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, and a child that would say ANSWER of it."""
    monkeypatch.setattr(checking, "_exchange", answering(ANSWER))
    return write_model(tmp_path / "model")


def test_a_page_says_that_it_loads_and_where_it_fits(run: Run, folder: Path) -> None:
    result = run("job", "serve-check", folder)
    assert result.exit_code == 0, result.stderr
    assert "yes, in 0.5 s" in result.stdout and "LlamaForCausalLM" in result.stdout
    assert all(name in result.stdout for name in ("vllm", "llama.cpp", "ollama", "? unknown", "✓ likely"))
    assert "\x1b" not in result.stdout


def test_json_holds_every_finding(run: Run, folder: Path) -> None:
    found = json_of(run("job", "serve-check", folder, "--json"))
    assert found["loads"] is True and found["kind"] == "model" and found["merged"] is None
    assert found["folder"] == str(folder) and found["loaded"]["parameters"] == 2600
    fits = {engine["engine"]: engine["fit"] for engine in found["engines"]}
    assert fits == {"vllm": "likely", "llama.cpp": "unknown", "ollama": "unknown"}
    assert all(finding["sentence"] for engine in found["engines"] for finding in engine["findings"])


def test_exit_codes_tell_wrong_folders_from_models_that_do_not_load(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = run("job", "serve-check", folder / "nowhere", "--json")
    assert missing.exit_code == 3 and error_of(missing)["code"] == "serve.no_folder"
    failed = {"failed": "load", "kind": "ValueError", "message": "no such thing"}
    monkeypatch.setattr(checking, "_exchange", answering(failed))
    result = run("job", "serve-check", folder, "--json")
    assert result.exit_code == 1 and error_of(result)["code"] == "serve.does_not_load"
    assert result.stdout == ""


def test_ctrl_c_is_130_and_says_that_nothing_was_written(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_request: str) -> tuple[int, str, str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(checking, "_exchange", interrupted)
    result = run("job", "serve-check", folder)
    assert result.exit_code == 130 and "Nothing was written" in result.stderr
