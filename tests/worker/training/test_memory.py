# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""A device that runs out of memory: smaller micro-batches, the same batch, the same numbers.

No GPU is at hand: torch's own error is thrown in at chosen calls of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from shardwork.errors import LimitExceeded
from shardwork.recipes.base import Computed
from shardwork.recipes.orders import InitOrder, LearnOrder
from shardwork.tensors.file import read_tensors
from shardwork_worker.child import why_of
from shardwork_worker.training.micro import MicroBatch, is_out_of_memory
from shardwork_worker.training.trainer import TorchTrainer

from . import tiny

BaseOf = Callable[[str], Path]
CPU = torch.device("cpu")

#: sums of another order differ by fp32's rounding, and Adam divides small gradients by themselves: 1.6e-6 was seen
ROUNDING = 1e-5


class Small:
    """A device on which more than `rows` rows at a time do not fit, or on which the calls named do not."""

    def __init__(self, rows: int, *, at_calls: tuple[int, ...] = ()) -> None:
        self.rows, self.at_calls = rows, at_calls
        self.calls = 0
        self.sizes: list[int] = []

    def look(self, _module: Any, _given: Any, named: dict[str, Any]) -> None:
        self.calls += 1
        size = int(named["input_ids"].shape[0])
        if size > self.rows or self.calls in self.at_calls:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (fault injected).")
        self.sizes.append(size)


@contextmanager
def on(trainer: TorchTrainer, device: Small) -> Iterator[None]:
    """The trainer's kept model meets the device's limits."""
    assert trainer._kept is not None
    hook = trainer._kept[1].model.register_forward_pre_hook(device.look, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


class Shard:
    """One shard to learn again and again with one trainer."""

    def __init__(self, base: Path, train: Path, folder: Path, method: str, **changes: Any) -> None:
        self.trainer = TorchTrainer("cpu")
        self._folder, self._count = folder, 0
        self.order = tiny.learn_order(method, batch_size=8, micro_batch_size=8, steps=3, encoding="fp32", **changes)
        first = tiny.context(folder / "init", base=base)
        checkpoint = self.trainer.init(InitOrder(tuning=self.order.tuning, from_scratch=False), first)
        self._inputs = {"base": base, "train": train, "checkpoint": checkpoint.outputs["checkpoint"]}

    def learn(self, order: LearnOrder | None = None) -> Computed:
        self._count += 1
        context = tiny.context(self._folder / f"learn-{self._count}", **self._inputs)
        return self.trainer.learn(order or self.order, context)


def delta(learned: Computed) -> Path:
    return learned.outputs["delta"]


def difference(one: Path, other: Path) -> float:
    """Relative distance of two deltas, over all their numbers."""
    apart = whole = 0.0
    for file in sorted(one.glob("*.safetensors")):
        ours, theirs = read_tensors(file), read_tensors(other / file.name)
        for name, values in ours.items():
            apart += float(((values - theirs[name]).astype("float64") ** 2).sum())
            whole += float((values.astype("float64") ** 2).sum())
    assert whole > 0
    return float((apart / whole) ** 0.5)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_half_the_micro_batch_gives_the_same_shard_is_told_and_remembered(
    method: str, base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    shard = Shard(base_of("llama"), train, tmp_path, method)
    whole = shard.learn()
    small = Small(rows=3)
    with on(shard.trainer, small):
        halved = shard.learn()
        first_sizes, calls = list(small.sizes), small.calls
        again = shard.learn()
    assert difference(delta(whole), delta(halved)) <= ROUNDING
    assert "memory_halvings" not in whole.metrics
    sizes = (halved.metrics["micro_batch_before"], halved.metrics["micro_batch_size"])
    assert (halved.metrics["memory_halvings"], *sizes) == (2, 8, 2)
    assert first_sizes == [2] * 12
    assert small.calls - calls == 12, "the next shard of this kind starts at the size that fitted"
    assert tiny.same_files(halved.outputs["delta"], again.outputs["delta"])


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_batch_that_lost_a_row_would_be_seen(method: str, base_of: BaseOf, train: Path, tmp_path: Path) -> None:
    shard = Shard(base_of("llama"), train, tmp_path, method)
    short = shard.order.model_copy(update={"batch_size": 7, "micro_batch_size": 7})
    assert difference(delta(shard.learn()), delta(shard.learn(short))) > 1000 * ROUNDING


def test_memory_that_ends_in_the_middle_of_a_batch_repeats_that_batch_alone(
    base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    shard = Shard(base_of("llama"), train, tmp_path, "full")
    order = shard.order.model_copy(update={"micro_batch_size": 4})
    whole = shard.learn(order)
    small = Small(rows=8, at_calls=(4,))  # the second half of the second step
    with on(shard.trainer, small):
        halved = shard.learn(order)
    assert small.sizes == [4, 4, 4, *[2] * 8]
    assert difference(delta(whole), delta(halved)) <= ROUNDING
    assert halved.metrics["memory_halvings"] == 1


def test_one_row_that_does_not_fit_fails_the_shard_with_a_reason(base_of: BaseOf, train: Path, tmp_path: Path) -> None:
    shard = Shard(base_of("llama"), train, tmp_path, "lora")
    shard.learn()
    with on(shard.trainer, Small(rows=0)), pytest.raises(LimitExceeded) as caught:
        shard.learn()
    why = why_of(caught.value)
    assert why.code == "trainer.out_of_memory" and "gradient checkpointing" in why.next_step
    shard.trainer.release_memory()
    with pytest.raises(AssertionError), on(shard.trainer, Small(rows=1)):
        pass  # the failed shard's model is gone
    assert shard.learn().metrics["tokens"] > 0


def test_other_errors_are_not_taken_for_memory() -> None:
    def broken(size: int) -> int:
        raise RuntimeError("shape mismatch")

    micro = MicroBatch(CPU, 8)
    with pytest.raises(RuntimeError, match="shape"):
        micro.fitting(broken, lambda: None, lambda failed: failed)
    assert micro.size == 8
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert"))


def test_a_rank_follows_when_another_one_runs_out_of_memory() -> None:
    tried: list[int] = []
    micro = MicroBatch(CPU, 8)

    def take(size: int) -> int:
        tried.append(size)
        return size

    assert micro.fitting(take, lambda: None, lambda failed: micro.size > 2) == 2
    assert tried == [8, 4, 2]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_blocks_that_are_computed_twice_give_the_same_bytes(
    kind: str, method: str, base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    shard = Shard(base_of(kind), train, tmp_path, method)
    kept = shard.learn()
    order = shard.order.model_copy(update={"gradient_checkpointing": True})
    small = Small(rows=8)
    with on(shard.trainer, small):
        again = shard.learn(order)
    assert tiny.same_files(kept.outputs["delta"], again.outputs["delta"])
    assert difference(delta(kept), delta(shard.learn())) == 0, "the model is as it was before"


def test_an_order_at_the_default_says_nothing_of_it() -> None:
    """So that a worker of the version before reads it."""
    order = tiny.learn_order("lora")
    assert "gradient_checkpointing" not in order.canonical_json()
    assert "gradient_checkpointing" in order.model_copy(update={"gradient_checkpointing": True}).canonical_json()
