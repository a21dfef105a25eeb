"""A context for phases of the executor: folders in, folders out; and readers of what they write."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shardwork.recipes.base import Trainer
from shardwork.tensors.file import read_tensors


class Folders:
    """Inputs as they lie; outputs below `out`, each made once."""

    def __init__(self, inputs: Mapping[str, Path], out: Path, seed: bytes = b"") -> None:
        self.inputs = inputs
        self.seed = seed
        self.fractions: list[float] = []
        self._out = out

    @property
    def trainer(self) -> Trainer:
        raise AssertionError("the executor has no trainer")

    def output(self, name: str) -> Path:
        folder = self._out / name
        folder.mkdir(parents=True)
        return folder

    def progress(self, fraction: float, *, loss: float | None = None) -> None:
        self.fractions.append(fraction)


def index_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "index.json").read_text("utf-8"))
    return found


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


Row = tuple[list[int], list[int]]


def items_of(folder: Path) -> list[tuple[list[Row], float]]:
    """(its rows as tokens and mask, its value) of each item in stored order, as a worker reads them."""
    index, found = index_of(folder), list[tuple[list[Row], float]]()
    size = index["rows_per_item"]
    for file in index["files"]:
        tensors = read_tensors(folder / file["name"])
        assert tensors["values"].dtype == np.float32 and len(tensors["values"]) * size == file["rows"]
        spans = list(itertools.pairwise(tensors["offsets"].tolist()))
        rows = [(tensors["tokens"][b:e].tolist(), tensors["mask"][b:e].tolist()) for b, e in spans]
        found += [
            (rows[size * at : size * (at + 1)], float(value)) for at, value in enumerate(tensors["values"].tolist())
        ]
    assert len(found) == index["items"] and index["rows"] == size * index["items"]
    return found


def prompts_of(folder: Path) -> list[tuple[list[int], dict[str, Any]]]:
    """(tokens, row) of each prompt in stored order."""
    tensors, rows = read_tensors(folder / "prompts.safetensors"), json_lines(folder / "rows.jsonl")
    assert tensors["tokens"].dtype == np.int32 and tensors["offsets"].dtype == np.int64
    spans = list(itertools.pairwise(tensors["offsets"].tolist()))
    assert len(spans) == len(rows) == index_of(folder)["prompts"]
    return [(tensors["tokens"][b:e].tolist(), row) for (b, e), row in zip(spans, rows, strict=True)]
