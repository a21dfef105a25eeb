# pyright: standard
"""The worker's Trainer: `shardwork.recipes.base.Trainer` on one torch device, warm between shards.

Owns which device and how many threads, and one kept model: rounds of a job tune the same base, and loading it costs
more than a short shard. What is kept is only a cache: every learning weight is overwritten by the shard's checkpoint,
frozen weights never change, so a shard's result does not depend on it (a test compares).
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import torch

from shardwork.recipes.base import Computed, Context
from shardwork.recipes.orders import EvaluateOrder, InitOrder, LearnOrder, PublishOrder, Tuning

from .device import seed_all, settle, use_threads
from .evaluate import evaluate
from .init import init
from .learn import learn
from .model import Built, build
from .publish import publish


@dataclass(frozen=True, slots=True)
class ModelKey:
    """Which model is kept: the base's files as they lie on disk, and how it is tuned."""

    files: tuple[tuple[str, int, int, int], ...]
    folder: Path
    tuning: Tuning
    from_scratch: bool

    @classmethod
    def of(cls, base: Path, tuning: Tuning, from_scratch: bool) -> ModelKey:
        stats = [(str(path.relative_to(base)), path.stat()) for path in sorted(base.rglob("*")) if path.is_file()]
        files = tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
        return cls(files, base.resolve(), tuning, from_scratch)


class TorchTrainer:
    """Runs the phases of a learning job on `device` ("cpu", "cuda:0")."""

    def __init__(self, device: str) -> None:
        self._device = settle(device)
        self._kept: tuple[ModelKey, Built] | None = None

    def init(self, order: InitOrder, context: Context) -> Computed:
        use_threads(1)
        self.release_memory()
        return init(order, context)

    def learn(self, order: LearnOrder, context: Context) -> Computed:
        use_threads(order.threads)
        built = self._built(order.tuning, order.from_scratch, context)
        seed_all(context.seed)
        return learn(order, context, built)

    def evaluate(self, order: EvaluateOrder, context: Context) -> Computed:
        use_threads(order.threads)
        return evaluate(order, context, self._built(order.tuning, order.from_scratch, context))

    def publish(self, order: PublishOrder, context: Context) -> Computed:
        use_threads(order.threads)
        self.release_memory()
        return publish(order, context, self._device)

    def release_memory(self) -> None:
        """Drops the kept model."""
        self._kept = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _built(self, tuning: Tuning, from_scratch: bool, context: Context) -> Built:
        """The model to load a checkpoint into, kept from the shard before where it is the same."""
        base = context.inputs["base"]
        key = ModelKey.of(base, tuning, from_scratch)
        if self._kept is None or self._kept[0] != key:
            self.release_memory()
            built = build(base, tuning, from_scratch=from_scratch, seed=context.seed, device=self._device)
            self._kept = (key, built)
        built = self._kept[1]
        built.model.zero_grad(set_to_none=True)  # an interrupted shard may have left gradients
        return built
