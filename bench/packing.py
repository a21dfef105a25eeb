# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""What packing saves on short rows: tokens a second of the same rows padded and packed, in turns A B A B.

Rows have 8 to 200 tokens, most of them short, as questions and answers have. Each turn is a learn shard as a worker's
child runs it, on a Llama of about three million parameters and full tuning: the padded one takes every row once, 16 a
step in micro-batches of 8, the packed one the same rows in sequences of max_length, as many a step as hold about the
same tokens. Only steps are timed, in CPU seconds of one thread because the machine may be busy (wall seconds beside
them), and padding counts as no token. The figure is the median of the turns' ratios. `plan` is what the data report
says of these rows beforehand.

    python bench/packing.py [--rows 1024]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from shardwork.dataset.lengths import Layout, measured, pack  # noqa: E402
from shardwork.recipes.orders import InitOrder, LearnOrder, Method, Optimizer, Schedule, Tuning  # noqa: E402
from shardwork.tensors.file import write_tensors  # noqa: E402
from shardwork_worker.training.context import ShardContext  # noqa: E402
from shardwork_worker.training.trainer import TorchTrainer  # noqa: E402

RESULT = HERE / "results" / "packing.json"
SEED, VOCABULARY, MAX_LENGTH, BATCH, MICRO = bytes(32), 2048, 256, 16, 8
TUNING = Tuning(method=Method.FULL)
SIZE = {
    "hidden_size": 192,
    "intermediate_size": 576,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": MAX_LENGTH,
    "tie_word_embeddings": True,
}


def row_lengths(count: int) -> list[int]:
    """Log-normal around 40 tokens, as answers' lengths are."""
    chance = random.Random(1)
    return [min(max(round(chance.lognormvariate(3.7, 0.6)), 8), 200) for _ in range(count)]


def write_rows(folder: Path, lengths: Sequence[int], sequences: Sequence[Sequence[int]] | None) -> Path:
    """The same rows, each for itself or in these sequences, as `prepare` writes them."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(2)
    rows = [draw.integers(2, VOCABULARY, length, dtype=np.int32) for length in lengths]
    order = [number for these in sequences for number in these] if sequences else list(range(len(rows)))
    ends = np.cumsum([0, *(lengths[number] for number in order)], dtype=np.int64)
    tokens = np.concatenate([rows[number] for number in order])
    tensors: dict[str, np.ndarray[Any, Any]] = {"tokens": tokens, "mask": np.ones(len(tokens), np.uint8)}
    if sequences is None:
        tensors["offsets"] = ends
    else:
        tensors |= {"offsets": ends[np.cumsum([0, *(len(these) for these in sequences)])], "begins": ends[:-1]}
    write_tensors(folder / "rows-00000.safetensors", tensors)
    count = len(tensors["offsets"]) - 1
    index = {"files": [{"name": "rows-00000.safetensors", "rows": count}], "pad_token_id": 0}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def learn_order(rows: int, batch: int, *, packed: bool) -> LearnOrder:
    """Every row once."""
    steps = rows // batch
    return LearnOrder(
        tuning=TUNING,
        from_scratch=True,
        schedule=Schedule(kind="constant", learning_rate=1e-3, total_steps=steps),
        optimizer=Optimizer(),
        start_step=0,
        steps=steps,
        first_row=0,
        batch_size=batch,
        micro_batch_size=min(batch, MICRO),
        max_length=MAX_LENGTH,
        encoding="fp32",
        packed=packed,
    )


def turn(folder: Path, inputs: dict[str, Path], order: LearnOrder) -> dict[str, float]:
    """Tokens a second over all steps but the first, which warms up."""
    told: list[tuple[float, float]] = []
    trainer = TorchTrainer("cpu")
    context = ShardContext(
        inputs=inputs,
        seed=SEED,
        output_dir=folder,
        trainer_of=lambda: trainer,
        tell=lambda _fraction, _loss: told.append((time.process_time(), time.perf_counter())),
    )
    tokens = trainer.learn(order, context).metrics["tokens"]
    cpu, wall = (last - first for first, last in zip(told[0], told[-1], strict=True))
    timed = tokens * (order.steps - 1) / order.steps
    return {
        "tokens_a_second": round(timed / cpu, 1),
        "cpu_seconds": round(cpu, 3),
        "wall_seconds": round(wall, 3),
        "steps": float(order.steps),
        "tokens": tokens,
    }


def first_checkpoint(base: Path, folder: Path) -> Path:
    trainer = TorchTrainer("cpu")
    context = ShardContext(
        inputs={"base": base}, seed=SEED, output_dir=folder, trainer_of=lambda: trainer, tell=lambda *_: None
    )
    return trainer.init(InitOrder(tuning=TUNING, from_scratch=True), context).outputs["checkpoint"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--turns", type=int, default=2)
    given = parser.parse_args()
    lengths = row_lengths(given.rows)
    sequences = pack(lengths, MAX_LENGTH)
    random.Random(4).shuffle(sequences)
    plan = measured(Layout.PACKED, lengths, MAX_LENGTH, MICRO)
    assert plan is not None
    side = max(round(BATCH / plan.rows_a_sequence), 1)
    found: dict[str, list[dict[str, float]]] = {"padded": [], "packed": []}
    with tempfile.TemporaryDirectory() as place:
        here = Path(place)
        AutoConfig.for_model("llama", **SIZE).save_pretrained(base := here / "base")
        inputs = {"base": base, "checkpoint": first_checkpoint(base, here / "init")}
        rows = {
            "padded": (write_rows(here / "padded", lengths, None), learn_order(len(lengths), BATCH, packed=False)),
            "packed": (write_rows(here / "packed", lengths, sequences), learn_order(len(sequences), side, packed=True)),
        }
        for number in range(given.turns):
            for name, (train, order) in rows.items():
                found[name].append(turn(here / f"{name}-{number}", {**inputs, "train": train}, order))
    speed = {name: [each["tokens_a_second"] for each in turns] for name, turns in found.items()}
    ratios = [packed / padded for packed, padded in zip(speed["packed"], speed["padded"], strict=True)]
    result = {
        "plan": plan.to_json(),
        "sequences_a_step": side,
        "turns": found,
        "packed_to_padded": round(statistics.median(ratios), 3),
        "ratios": [round(each, 3) for each in ratios],
        "machine": {"cpus": os.cpu_count(), "torch": torch.__version__, "python": platform.python_version()},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
