# pyright: standard
"""The learn phase: every method on every architecture, cutting does not show, what cannot be right is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shardwork.errors import Corrupt, InvalidInput
from shardwork.recipes.orders import LearnOrder, Optimizer, Precision, Schedule
from shardwork.tensors.checkpoint import DELTA_FORMAT, apply_update, read_update, write_moments, write_step
from shardwork.tensors.file import read_tensors
from shardwork_worker.training.trainer import TorchTrainer

from . import tiny

BaseOf = Callable[[str], Path]
METHODS = ("full", "lora", "partial")
KINDS = ("llama", "gpt2", "qwen2", "qwen3", "gemma", "gemma2")


@pytest.fixture(scope="module")
def trainer() -> TorchTrainer:
    return TorchTrainer("cpu")


def learned(trainer: TorchTrainer, order: LearnOrder, into: Path, **inputs: Path) -> tuple[Path, dict[str, float]]:
    done = trainer.learn(order, tiny.context(into, **inputs))
    return done.outputs["delta"], dict(done.metrics)


def values(delta: Path) -> dict[str, np.ndarray]:
    return read_tensors(delta / "delta.safetensors")


def next_checkpoint(checkpoint: Path, delta: Path, into: Path) -> Path:
    """What merging a round of one shard in fp32 gives: the shard's weights and moments as they are."""
    update = read_update(delta, DELTA_FORMAT)
    shapes = read_tensors(checkpoint / "weights.safetensors")
    after, m, v = (
        {name: array.reshape(shapes[name].shape) for name, array in read_tensors(delta / f"{part}.safetensors").items()}
        for part in ("delta", "m", "v")
    )
    write_step(into / "step", "fp32", shapes, after, update.steps, update.adam_step)
    write_moments(into / "moments", "fp32", m, v, update.steps, update.adam_step)
    apply_update(checkpoint, into / "step", into / "moments", into / "checkpoint")
    return into / "checkpoint"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_a_step_on(
    method: str, kind: str, trainer: TorchTrainer, base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    base = base_of(kind)
    first = tiny.first_checkpoint(trainer, base, tmp_path / "init", method)
    order = tiny.learn_order(method, steps=1)
    delta, metrics = learned(trainer, order, tmp_path / "learn", base=base, checkpoint=first, train=train)
    before, after = read_tensors(first / "weights.safetensors"), values(delta)
    assert after.keys() >= before.keys()
    assert any(not np.array_equal(after[name].ravel(), before[name].ravel()) for name in before)
    assert 4 < metrics["loss_first"] < 8  # near ln 300


def test_a_kept_model_changes_nothing(trainer: TorchTrainer, base_of: BaseOf, train: Path, tmp_path: Path) -> None:
    base = base_of("llama")
    order = tiny.learn_order("lora")
    first = tiny.first_checkpoint(trainer, base, tmp_path / "init", "lora")
    fresh, _ = learned(TorchTrainer("cpu"), order, tmp_path / "fresh", base=base, checkpoint=first, train=train)
    learned(trainer, order, tmp_path / "warm-up", base=base, checkpoint=first, train=train)
    warm, _ = learned(trainer, order, tmp_path / "warm", base=base, checkpoint=first, train=train)
    assert tiny.same_files(fresh, warm)


def test_micro_batches_give_the_whole_batchs_step(
    trainer: TorchTrainer, base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    base = base_of("llama")
    first = tiny.first_checkpoint(trainer, base, tmp_path / "init")
    found = []
    for micro in (4, 3, 1):
        order = tiny.learn_order(micro_batch_size=micro, steps=2)
        delta, metrics = learned(trainer, order, tmp_path / str(micro), base=base, checkpoint=first, train=train)
        found.append((values(delta), metrics))
    for after, metrics in found[1:]:
        assert metrics["train_loss"] == pytest.approx(found[0][1]["train_loss"], rel=1e-6)
        for name, array in after.items():
            # Adam's first steps are about +-rate whatever the gradient's size, so noise near zero shows
            assert np.abs(array - found[0][0][name]).mean() < 1e-5


def test_rows_are_counted_modulo_their_number(
    trainer: TorchTrainer, base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    base = base_of("llama")
    first = tiny.first_checkpoint(trainer, base, tmp_path / "init")
    deltas = [
        learned(
            trainer, tiny.learn_order(first_row=row), tmp_path / str(row), base=base, checkpoint=first, train=train
        )[0]
        for row in (38, 38 + 45, 37)
    ]
    assert tiny.same_files(deltas[0], deltas[1])
    assert not tiny.same_files(deltas[0], deltas[2])


def test_the_metrics_say_what_was_read(trainer: TorchTrainer, base_of: BaseOf, train: Path, tmp_path: Path) -> None:
    base = base_of("llama")
    first = tiny.first_checkpoint(trainer, base, tmp_path / "init")
    order = tiny.learn_order(max_length=10)
    _, metrics = learned(trainer, order, tmp_path / "learn", base=base, checkpoint=first, train=train)
    assert metrics["tokens"] == sum(min(10, len(row.tokens)) for row in tiny.rows(45)[:20])
    assert metrics["loss_last"] < metrics["loss_first"]
    assert metrics["loss_last"] < metrics["train_loss"] < metrics["loss_first"]


def test_bf16_keeps_fp32_weights_and_stays_near_fp32(
    trainer: TorchTrainer, base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    base = base_of("llama")
    first = tiny.first_checkpoint(trainer, base, tmp_path / "init")
    losses = [
        learned(
            trainer,
            tiny.learn_order(precision=precision),
            tmp_path / precision.value,
            base=base,
            checkpoint=first,
            train=train,
        )[1]["train_loss"]
        for precision in Precision
    ]
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=1e-2)


@pytest.mark.parametrize("encoding", ["int8", "bf16"])
def test_a_delta_travels_in_the_orders_encoding(
    encoding: str, trainer: TorchTrainer, base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    base = base_of("llama")
    first = tiny.first_checkpoint(trainer, base, tmp_path / "init")
    exact, _ = learned(trainer, tiny.learn_order(), tmp_path / "fp32", base=base, checkpoint=first, train=train)
    order = tiny.learn_order(encoding=encoding)
    small, _ = learned(trainer, order, tmp_path / encoding, base=base, checkpoint=first, train=train)
    sizes = [sum(path.stat().st_size for path in folder.iterdir()) for folder in (exact, small)]
    assert sizes[1] < 0.6 * sizes[0]


def test_a_checkpoint_of_other_parameters_is_refused(
    trainer: TorchTrainer, base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    base = base_of("llama")
    other = tiny.first_checkpoint(trainer, base, tmp_path / "init", "partial")
    with pytest.raises(Corrupt) as caught:
        learned(trainer, tiny.learn_order("full"), tmp_path / "learn", base=base, checkpoint=other, train=train)
    assert caught.value.code == "checkpoint.other_parameters"


def test_a_loss_that_is_not_finite_stops_the_shard(
    trainer: TorchTrainer, base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    base = base_of("llama")
    first = tiny.first_checkpoint(trainer, base, tmp_path / "init")
    order = tiny.learn_order(schedule=Schedule(kind="constant", learning_rate=1e38, total_steps=5))
    with pytest.raises(InvalidInput) as caught:
        learned(trainer, order, tmp_path / "learn", base=base, checkpoint=first, train=train)
    assert caught.value.code == "trainer.diverged"


def test_a_loss_beyond_what_the_coordinator_believes_is_told_as_divergence_and_not_handed_in(
    trainer: TorchTrainer, base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    """Handed in, it would be refused as a lie, and count against an honest worker."""
    base = base_of("llama")
    first = tiny.first_checkpoint(trainer, base, tmp_path / "init")
    schedule = Schedule(kind="constant", learning_rate=10.0, total_steps=5)
    order = tiny.learn_order(schedule=schedule, steps=5, optimizer=Optimizer(clip_norm=1e9))
    with pytest.raises(InvalidInput) as caught:
        learned(trainer, order, tmp_path / "learn", base=base, checkpoint=first, train=train)
    assert caught.value.code == "trainer.diverged" and "nats a token" in str(caught.value)
    assert "learning rate" in caught.value.why.next_step
