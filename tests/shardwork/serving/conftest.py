# pyright: standard
"""Bases and adapters, made once and copied, and a check that loads in this process instead of one of its own."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from shardwork.serving import check as checking
from shardwork.serving import probe

from .folders import write_adapter, write_base

Copy = Callable[[str], Path]


@pytest.fixture(scope="package")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("serving")
    for kind in ("llama", "gpt2"):
        write_base(root / kind, kind)
        write_adapter(root / f"{kind}-lora", root / kind)
    return root


@pytest.fixture
def copy(originals: Path, tmp_path: Path) -> Copy:
    """A copy of "llama", "gpt2", "llama-lora" or "gpt2-lora" to break; an adapter goes on naming the original base."""

    def copied(name: str) -> Path:
        return Path(shutil.copytree(originals / name, tmp_path / name))

    return copied


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting torch takes seconds; one test of each kind does that for real."""

    def exchange(request: str) -> tuple[int, str, str]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return 0, json.dumps(probe.run(json.loads(request))), ""
            except probe.Wrong as wrong:
                return 0, json.dumps(wrong.answer), ""

    monkeypatch.setattr(checking, "_exchange", exchange)
