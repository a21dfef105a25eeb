# pyright: standard
"""Whole rounds: the trainer's phases and the coordinator's merge and apply, hand in hand through folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from shardwork.recipes.orders import ApplyOrder, MergeOrder, Schedule
from shardwork_coordinator.aggregate import apply, merge
from shardwork_worker.training.trainer import TorchTrainer

from . import tiny

BaseOf = Callable[[str], Path]
CANDIDATES = ("mean", "nesterov", "mean1.5", "mean2")
STEPS = 3
BATCH = 4


class Job:
    """A learning stage in this process: `shards` learn shards a round on `base`."""

    def __init__(self, base: Path, train: Path, work: Path, *, method: str, encoding: str, shards: int) -> None:
        self.trainer = TorchTrainer("cpu")
        self.base, self.train, self.work = base, train, work
        self.method, self.encoding, self.shards = method, encoding, shards
        self.schedule = Schedule(kind="cosine", learning_rate=1e-2, warmup_steps=1, total_steps=3 * STEPS)
        self.checkpoint = tiny.first_checkpoint(self.trainer, base, work / "init", method)
        self.outer: Path | None = None

    def round(self, number: int, candidates: tuple[str, ...]) -> Mapping[str, Path]:
        """Learns and merges; returns the merge's outputs. `take` applies one of its steps."""
        deltas = {f"delta_{index}": self._learn(number, index) for index in range(self.shards)}
        order = MergeOrder(
            rule="mean", steps=STEPS, weights=(1,) * self.shards, candidates=candidates, encoding=self.encoding
        )
        outer = {"outer": self.outer} if self.outer else {}
        context = tiny.context(self.work / f"merge-{number}", checkpoint=self.checkpoint, **deltas, **outer)
        return merge.compute(order, context).outputs

    def take(self, number: int, merged: Mapping[str, Path], candidate: str) -> None:
        order = ApplyOrder(steps=STEPS, encoding=self.encoding)
        step, moments = merged[f"step-{candidate}"], merged["moments"]
        context = tiny.context(self.work / f"apply-{number}", checkpoint=self.checkpoint, step=step, moments=moments)
        self.checkpoint = apply.compute(order, context).outputs["checkpoint"]
        self.outer = merged["outer"]

    def _learn(self, number: int, index: int) -> Path:
        settings: dict[str, Any] = {
            "schedule": self.schedule,
            "steps": STEPS,
            "start_step": number * STEPS,
            "first_row": (number * self.shards + index) * STEPS * BATCH,
            "encoding": self.encoding,
        }
        order = tiny.learn_order(self.method, **settings)
        context = tiny.context(
            self.work / f"learn-{number}-{index}", base=self.base, checkpoint=self.checkpoint, train=self.train
        )
        return self.trainer.learn(order, context).outputs["delta"]


@pytest.mark.parametrize("method", ["full", "lora", "partial"])
def test_a_job_of_one_shard_a_round_is_bitwise_one_uninterrupted_run(
    method: str, base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    job = Job(base_of("llama"), train, tmp_path, method=method, encoding="fp32", shards=1)
    first = job.checkpoint
    for number in range(3):
        job.take(number, job.round(number, ("mean",)), "mean")
    whole = tiny.learn_order(method, schedule=job.schedule, steps=3 * STEPS)
    context = tiny.context(tmp_path / "whole", base=job.base, checkpoint=first, train=train)
    delta = TorchTrainer("cpu").learn(whole, context).outputs["delta"]
    order = MergeOrder(rule="mean", steps=3 * STEPS, weights=(1,), candidates=("mean",), encoding="fp32")
    merged = merge.compute(order, tiny.context(tmp_path / "merge", checkpoint=first, delta_0=delta)).outputs
    applied = tiny.context(tmp_path / "apply", checkpoint=first, step=merged["step-mean"], moments=merged["moments"])
    uninterrupted = apply.compute(ApplyOrder(steps=3 * STEPS, encoding="fp32"), applied).outputs["checkpoint"]
    for name in ("weights.safetensors", "moments_m.safetensors", "moments_v.safetensors"):
        assert (job.checkpoint / name).read_bytes() == (uninterrupted / name).read_bytes()


@pytest.mark.parametrize("encoding", ["int8", "bf16"])
def test_two_shards_a_round_learn_together_and_the_best_step_is_measured(
    encoding: str, base_of: BaseOf, train: Path, held_out: Path, tmp_path: Path
) -> None:
    job = Job(base_of("llama"), train, tmp_path, method="full", encoding=encoding, shards=2)
    losses: list[float] = []
    for number in range(3):
        merged = job.round(number, CANDIDATES)
        steps = {f"step_{name}": merged[f"step-{name}"] for name in CANDIDATES}
        context = tiny.context(
            tmp_path / f"evaluate-{number}", base=job.base, checkpoint=job.checkpoint, eval=held_out, **steps
        )
        metrics = job.trainer.evaluate(tiny.evaluate_order(candidates=CANDIDATES), context).metrics
        best = min(CANDIDATES, key=lambda name: metrics[f"{name}.selection_loss"])
        if losses:
            # what was applied is, to the last bit, what was evaluated the round before
            assert metrics["before.test_loss"] == losses[-1]
        losses.append(metrics[f"{best}.test_loss"])
        job.take(number, merged, best)
    assert losses[0] > losses[1] > losses[2]
