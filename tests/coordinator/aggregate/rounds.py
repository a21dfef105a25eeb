"""Small rounds for aggregation tests: a checkpoint, honest and hostile deltas, and a Context over folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shardwork.recipes.base import Computed, Trainer
from shardwork.recipes.orders import MergeOrder
from shardwork.tensors.checkpoint import Tensors, open_checkpoint, write_checkpoint, write_delta
from shardwork.tensors.encoding import F32
from shardwork_coordinator.aggregate import merge

SHAPES: dict[str, tuple[int, ...]] = {"embed": (130, 64), "head": (64, 33), "norm": (64,)}
STEPS = 10


@dataclass
class FolderContext:
    inputs: Mapping[str, Path]
    root: Path
    seed: bytes = bytes(32)
    fractions: list[float] = field(default_factory=list[float])

    @property
    def trainer(self) -> Trainer:
        raise AssertionError("aggregation trains nothing")

    def output(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True)
        return folder

    def progress(self, fraction: float, *, loss: float | None = None) -> None:
        self.fractions.append(fraction)


def draw(seed: int, scale: float) -> dict[str, F32]:
    random = np.random.default_rng(seed)
    return {name: (random.standard_normal(shape) * scale).astype(np.float32) for name, shape in SHAPES.items()}


def combine(left: Tensors, right: Tensors, factor: float) -> dict[str, F32]:
    return {name: (left[name] + np.float32(factor) * right[name]).astype(np.float32) for name in left}


def weights() -> dict[str, F32]:
    return draw(0, 1.0)


def honest_change(index: int) -> dict[str, F32]:
    """Honest shards agree on a direction and differ by their data: pairwise cosine about 0.5."""
    return combine(draw(1, 0.01), draw(100 + index, 0.01), 1.0)


def write_honest(folder: Path, index: int, encoding: str, *, change: Tensors | None = None, factor: float = -1) -> None:
    m = draw(200 + index, 1e-3)
    v = {name: np.square(value) * np.float32(2) for name, value in m.items()}
    change = honest_change(index) if change is None else change
    write_delta(folder, encoding, weights(), combine(weights(), change, factor), m, v, STEPS, STEPS)


def base(root: Path) -> Path:
    write_checkpoint(root / "checkpoint", weights(), None, None, "full", 0, 0)
    return root / "checkpoint"


def run(
    root: Path,
    deltas: Sequence[Path],
    *,
    rule: str = "screened_mean",
    encoding: str = "fp32",
    candidates: tuple[str, ...] = ("mean",),
    outer: Path | None = None,
    tokens: Sequence[int] = (),
) -> Computed:
    inputs = {"checkpoint": root / "checkpoint", **{f"delta-{index}": folder for index, folder in enumerate(deltas)}}
    if outer is not None:
        inputs["outer"] = outer
    order = MergeOrder(
        rule=rule,
        steps=STEPS,
        weights=tuple(tokens or [100] * len(deltas)),
        candidates=candidates,
        encoding=encoding,
    )
    number = len(list(root.glob("merged-*")))
    return merge.compute(order, FolderContext(inputs, root / f"merged-{number}"))


def joined(tensors: Tensors) -> F32:
    """All values in one row, tensors by name."""
    return np.concatenate([tensors[name].reshape(-1) for name in sorted(tensors)])


def flat(folder: Path, file: str = "weights") -> F32:
    with open_checkpoint(folder) as found:
        chosen = {"weights": found.weights, "m": found.m, "v": found.v}[file]
        assert chosen is not None
        return joined(chosen)
