# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""What Shardwork costs beside the arithmetic: a bare training loop against the same steps as a learn shard.

`bare_loop` is the yardstick: plain torch on rows that are already in memory, no folders, no progress, no delta.
`shard_loop` runs the same steps as a worker's child does, folders in and out. An end-to-end bench sums a one-worker
job's `compute_ms` and wall time and compares both with `bare_loop` on the same order.

    python bench/overhead.py --steps 100 --json results.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig

from shardwork.recipes.orders import InitOrder, LearnOrder, Method, Optimizer, Schedule, Tuning
from shardwork.tensors.file import write_tensors
from shardwork_worker.training.batches import TrainRows
from shardwork_worker.training.context import ShardContext
from shardwork_worker.training.device import use_threads
from shardwork_worker.training.model import build
from shardwork_worker.training.trainer import TorchTrainer

SEED = bytes(32)
VOCABULARY = 2048
#: a Llama of about a million parameters
SIZE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds for `steps` optimiser steps; what comes before and after the steps is apart."""

    steps: int
    wall_s: float
    cpu_s: float
    #: loading before the first step and writing after the last
    around_s: float
    loss_last: float

    @property
    def step_ms(self) -> float:
        return 1000 * self.wall_s / self.steps


def bare_loop(base: Path, train: Path, order: LearnOrder, device_name: str = "cpu") -> Timing:
    """The order's steps in plain torch. Same start, rows, optimiser and rate; nothing else."""
    device = torch.device(device_name)
    torch.use_deterministic_algorithms(False)  # a bare loop pays for no guarantee
    use_threads(order.threads)
    started = time.perf_counter()
    built = build(base, order.tuning, from_scratch=order.from_scratch, seed=SEED, device=device)
    optimizer = torch.optim.AdamW(
        built.trainable.values(),
        lr=order.schedule.learning_rate,
        betas=(order.optimizer.beta1, order.optimizer.beta2),
        weight_decay=order.optimizer.weight_decay,
        fused=True,
    )
    batches = _batches(train, order, device)
    _wait_for(device)
    around_s = time.perf_counter() - started
    wall, cpu = time.perf_counter(), time.process_time()
    loss = torch.zeros(())
    for tokens in batches:
        logits = built.model(input_ids=tokens, use_cache=False).logits
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(built.trainable.values(), order.optimizer.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    _wait_for(device)
    return Timing(order.steps, time.perf_counter() - wall, time.process_time() - cpu, around_s, float(loss.detach()))


def shard_loop(base: Path, train: Path, order: LearnOrder, work: Path, device_name: str = "cpu") -> Timing:
    """The same steps as one learn shard in this process, checkpoint and delta folders included."""
    trainer = TorchTrainer(device_name)
    init = InitOrder(tuning=order.tuning, from_scratch=order.from_scratch)
    checkpoint = trainer.init(init, _context(trainer, work / "init", [], base=base)).outputs["checkpoint"]
    ticks: list[float] = []
    context = _context(trainer, work / "learn", ticks, base=base, checkpoint=checkpoint, train=train)
    wall, cpu = time.perf_counter(), time.process_time()
    done = trainer.learn(order, context)
    total_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    # the first step has no tick before it; the others stand for it
    steps_s = (ticks[-1] - ticks[0]) * order.steps / max(1, order.steps - 1)
    return Timing(order.steps, steps_s, cpu_s, max(0.0, total_s - steps_s), done.metrics["loss_last"])


def write_base(folder: Path) -> Path:
    """A skeleton to train from scratch."""
    folder.mkdir(parents=True)
    AutoConfig.for_model("llama", **SIZE).save_pretrained(folder)
    return folder


def write_train(folder: Path, rows: int, length: int) -> Path:
    """Full rows of seeded tokens with a pattern to learn."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    tokens = draw.zipf(1.3, size=rows * length).clip(1, VOCABULARY - 1).astype(np.int32)
    offsets = np.arange(0, rows * length + 1, length, dtype=np.int64)
    write_tensors(
        folder / "rows-00000.safetensors",
        {"tokens": tokens, "mask": np.ones(rows * length, dtype=np.uint8), "offsets": offsets},
    )
    index = {"files": [{"name": "rows-00000.safetensors", "rows": rows}], "pad_token_id": 0}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def learn_order(steps: int, batch_size: int, length: int) -> LearnOrder:
    return LearnOrder(
        tuning=Tuning(method=Method.FULL),
        from_scratch=True,
        schedule=Schedule(kind="constant", learning_rate=1e-3, total_steps=steps),
        optimizer=Optimizer(),
        start_step=0,
        steps=steps,
        first_row=0,
        batch_size=batch_size,
        micro_batch_size=batch_size,
        max_length=length,
        encoding="int8",
    )


def _batches(train: Path, order: LearnOrder, device: torch.device) -> list[torch.Tensor]:
    rows = TrainRows(train, order.max_length, VOCABULARY)
    starts = range(order.first_row, order.first_row + order.steps * order.batch_size, order.batch_size)
    return [
        torch.stack([rows.row(number).tokens for number in range(start, start + order.batch_size)]).to(device)
        for start in starts
    ]


def _context(trainer: TorchTrainer, output_dir: Path, ticks: list[float], **inputs: Path) -> ShardContext:
    def tell(_fraction: float, _loss: float | None) -> None:
        ticks.append(time.perf_counter())

    return ShardContext(inputs=inputs, seed=SEED, output_dir=output_dir, trainer_of=lambda: trainer, tell=tell)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args(arguments)
    order = learn_order(given.steps, given.batch_size, given.length)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        base = write_base(work / "base")
        train = write_train(work / "train", rows=given.steps * given.batch_size, length=given.length)
        bare_loop(base, train, order, given.device)  # warms caches and kernels
        # in turns, so that a busy machine bothers both alike
        pairs = [
            (
                bare_loop(base, train, order, given.device),
                shard_loop(base, train, order, work / str(turn), given.device),
            )
            for turn in range(given.repeats)
        ]
    bare, shard = (min((pair[side] for pair in pairs), key=lambda timing: timing.wall_s) for side in (0, 1))
    figures: dict[str, Any] = {
        "bare": {**asdict(bare), "step_ms": bare.step_ms},
        "shard": {**asdict(shard), "step_ms": shard.step_ms},
        "step_overhead": shard.step_ms / bare.step_ms - 1,
        # steadier on a busy machine; the shard's loading and writing included
        "cpu_overhead": shard.cpu_s / bare.cpu_s - 1,
        "threads": order.threads,
        "torch": torch.__version__,
    }
    text = json.dumps(figures, indent=2)
    if given.json:
        given.json.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
