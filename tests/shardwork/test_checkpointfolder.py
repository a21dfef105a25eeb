"""A checkpoint folder as its requester has it: read without numpy, and refused by name of what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shardwork.errors import InvalidInput
from shardwork.models.checkpoint import FORMAT, inspect_checkpoint
from shardwork.tensors import checkpoint as written
from shardwork.tensors.encoding import F32

WEIGHTS: dict[str, F32] = {"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float32)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    written.write_checkpoint(tmp_path / "c", WEIGHTS, m=WEIGHTS, v=WEIGHTS, method="lora", adam_step=50, round=2)
    return tmp_path / "c"


def test_what_was_written_is_found(folder: Path) -> None:
    found = inspect_checkpoint(folder)
    assert (found.method, found.adam_step, found.params, found.has_moments) == ("lora", 50, 10, True)
    assert sorted(found.files) == sorted(path.name for path in folder.iterdir())
    assert written.CHECKPOINT_FORMAT == FORMAT


def test_a_checkpoint_before_its_first_round_has_no_moments(folder: Path) -> None:
    for name in ("m", "v"):
        (folder / f"moments_{name}.safetensors").unlink()
    found = inspect_checkpoint(folder)
    assert not found.has_moments
    assert found.files == ("state.json", "weights.safetensors")


def test_what_else_lies_there_does_not_travel(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    assert "notes.txt" not in inspect_checkpoint(folder).files


def _lose(name: str, folder: Path) -> None:
    (folder / name).unlink()


def _state(folder: Path, **changes: object) -> None:
    path = folder / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


SPOILT: dict[str, Callable[[Path], object]] = {
    "no readable state.json": lambda folder: _lose("state.json", folder),
    "no weights.safetensors": lambda folder: _lose("weights.safetensors", folder),
    "only moments_m": lambda folder: _lose("moments_v.safetensors", folder),
    "names the format 'other'": lambda folder: _state(folder, format="other"),
    "lacks its method or its counts": lambda folder: _state(folder, adam_step=-1),
    "lacks its method": lambda folder: _state(folder, method=3),
    "readable state.json": lambda folder: (folder / "state.json").write_text("["),
    "ends inside its header": lambda folder: (folder / "weights.safetensors").write_bytes(b"x" * 7),
}


@pytest.mark.parametrize("words", SPOILT)
def test_what_is_no_checkpoint_is_refused(words: str, folder: Path) -> None:
    SPOILT[words](folder)
    with pytest.raises(InvalidInput, match=words):
        inspect_checkpoint(folder)


def test_moments_of_other_tensors_are_refused(folder: Path, tmp_path: Path) -> None:
    other: dict[str, F32] = {**WEIGHTS, "b": np.zeros(5, np.float32)}
    written.write_checkpoint(tmp_path / "d", other, m=None, v=None, method="lora", adam_step=0, round=0)
    (tmp_path / "d" / "weights.safetensors").rename(folder / "weights.safetensors")
    with pytest.raises(InvalidInput, match="differ at b"):
        inspect_checkpoint(folder)
