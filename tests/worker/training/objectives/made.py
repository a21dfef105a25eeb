# pyright: standard
"""Pairs, labelled answers and rollouts for the tests of objectives, written as the phases before write them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shardwork.recipes.base import Computed
from shardwork.recipes.objectives import LearnObjective, PolicyObjective
from shardwork.recipes.orders import InitOrder, LearnOrder
from shardwork.tensors.checkpoint import write_checkpoint
from shardwork.tensors.file import read_tensors, write_tensors
from shardwork_worker.training.checkpoints import load_weights
from shardwork_worker.training.device import settle, use_threads
from shardwork_worker.training.model import Built, build
from shardwork_worker.training.trainer import TorchTrainer

from .. import tiny

STEPS, RATE, BATCH = 10, 2e-3, 4
#: longest answer
MOST_NEW = 12
ADAPTER: Mapping[str, Any] = {"rank": 4}


def answers_of(count: int, seed: int = 5) -> list[tuple[list[int], list[int]]]:
    """(prompt, answer) of 2 to 9 and 1 to 12 tokens."""
    draw = random.Random(seed)
    return [
        (
            [draw.randrange(2, 60) for _ in range(draw.randint(2, 9))],
            [draw.randrange(2, 60) for _ in range(draw.randint(1, 12))],
        )
        for _ in range(count)
    ]


def pairs_of(count: int, seed: int = 5) -> list[tuple[list[int], list[int], list[int]]]:
    """(prompt, chosen, rejected)"""
    one, other = answers_of(count, seed), answers_of(count, seed + 1)
    return [(prompt, chosen, rejected) for (prompt, chosen), (_, rejected) in zip(one, other, strict=True)]


def row(prompt: Sequence[int], answer: Sequence[int]) -> tiny.PreparedRow:
    return tiny.PreparedRow([*prompt, *answer], [0] * len(prompt) + [1] * len(answer))


def write_items(path: Path, rows: Sequence[tiny.PreparedRow], values: Sequence[float] | None) -> None:
    tiny.write_rows(path, rows)
    if values is not None:
        write_tensors(path, {**read_tensors(path), "values": np.array(values, dtype=np.float32)})


def write_train(
    folder: Path, rows: Sequence[tiny.PreparedRow], per_item: int, values: Sequence[float] | None = None
) -> Path:
    """In files of 8 items."""
    folder.mkdir(parents=True)
    files: list[dict[str, Any]] = []
    for start in range(0, len(rows), 8 * per_item):
        name = f"rows-{len(files):05}.safetensors"
        part = rows[start : start + 8 * per_item]
        items = slice(start // per_item, start // per_item + len(part) // per_item)
        write_items(folder / name, part, values[items] if values is not None else None)
        files.append({"name": name, "rows": len(part)})
    index = {"rows": len(rows), "files": files, "pad_token_id": 0, "eos_token_id": 1, "rows_per_item": per_item}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def write_pairs(folder: Path, pairs: Sequence[tuple[list[int], list[int], list[int]]], values: Any = None) -> Path:
    rows = [row(prompt, answer) for prompt, *both in pairs for answer in both]
    return write_train(folder, rows, 2, values)


def write_eval_pairs(folder: Path, pairs: Sequence[tuple[list[int], list[int], list[int]]], values: Any = None) -> Path:
    """The first half selects, the second half tests."""
    folder.mkdir(parents=True)
    half = len(pairs) // 2
    for name, part in (("selection", slice(half)), ("test", slice(half, None))):
        rows = [row(prompt, answer) for prompt, *both in pairs[part] for answer in both]
        write_items(folder / f"{name}.safetensors", rows, values[part] if values is not None else None)
    (folder / "index.json").write_text(json.dumps({"pad_token_id": 0, "rows_per_item": 2}))
    return folder


def order(method: str, objective: LearnObjective, head: str = "", **changes: Any) -> LearnOrder:
    """Ten steps of four items at a constant rate."""
    own = ADAPTER if method == "lora" else {}
    made = tiny.learn_order(method, **{"steps": STEPS, "batch_size": BATCH, "objective": objective, **changes})
    schedule = made.schedule.model_copy(update={"learning_rate": RATE})
    tuning = tiny.tuning(method, head=head, **own)
    return made.model_copy(update={"schedule": schedule, "tuning": tuning})


def started(this: LearnOrder, base: Path, into: Path, parent: Path | None = None) -> Path:
    """The checkpoint that phase init makes."""
    init = InitOrder(tuning=this.tuning, from_scratch=False, continues=parent is not None)
    inputs = {"base": base} | ({"parent": parent} if parent is not None else {})
    return TorchTrainer("cpu").init(init, tiny.context(into / "init", **inputs)).outputs["checkpoint"]


def learned(
    this: LearnOrder, base: Path, into: Path, checkpoint: Path | None = None, **inputs: Path
) -> tuple[list[float], dict[str, np.ndarray], Computed]:
    """Losses and final weights of a shard, through the phases as a worker runs them."""
    checkpoint = checkpoint or started(this, base, into)
    losses: list[float] = []
    context = tiny.context(into / "learn", base=base, checkpoint=checkpoint, **inputs)
    context = replace(context, tell=lambda _fraction, loss: losses.append(loss or 0.0))
    done = TorchTrainer("cpu").learn(this, context)
    return losses, read_tensors(done.outputs["delta"] / "delta.safetensors"), done


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    return read_tensors(folder / "weights.safetensors")


def write_rollouts(
    into: Path,
    rows: Sequence[tuple[list[int], list[int]]],
    objective: PolicyObjective,
    log_probs: Sequence[Sequence[float]],
    scores: Sequence[float],
) -> dict[str, Path]:
    """Inputs prompts, answers and scores. Row i answers prompt i // group."""
    for name in ("prompts", "answers", "scores"):
        (into / name).mkdir(parents=True)
    prompts = [prompt for prompt, _ in rows[:: objective.group]]
    write_tensors(
        into / "prompts" / "prompts.safetensors",
        {
            "tokens": np.array([token for prompt in prompts for token in prompt], dtype=np.int32),
            "offsets": np.cumsum([0, *(len(prompt) for prompt in prompts)], dtype=np.int64),
        },
    )
    index = {"prompts": len(prompts), "pad_token_id": 0, "eos_token_ids": [1]}
    (into / "prompts" / "index.json").write_text(json.dumps(index))
    write_tensors(
        into / "answers" / "answers.safetensors",
        {
            "tokens": np.array([token for _, answer in rows for token in answer], dtype=np.int32),
            "offsets": np.cumsum([0, *(len(answer) for _, answer in rows)], dtype=np.int64),
            "logprobs": np.array([one for told in log_probs for one in told], dtype=np.float32),
            "ended": np.array([answer[-1] == 1 for _, answer in rows], dtype=np.uint8),
        },
    )
    write_tensors(into / "scores" / "scores.safetensors", {"scores": np.array(scores, dtype=np.float32)})
    return {name: into / name for name in ("prompts", "answers", "scores")}


def told_by(model: Any, prompt: Sequence[int], answer: Sequence[int], temperature: float = 1.0) -> torch.Tensor:
    """Log-probability of each of the answer's tokens, one row at a time and without padding."""
    logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].float() / temperature
    spread = logits.log_softmax(-1)
    return torch.stack([spread[len(prompt) - 1 + place, token] for place, token in enumerate(answer)])


def rollout_rows(groups: int, each: int, seed: int = 11, prompt: int = 5) -> list[tuple[list[int], list[int]]]:
    """(prompt, answer): `each` answers of 1 to `MOST_NEW` tokens to each of `groups` prompts of one length; some end by
    themselves, with token 1, and the others are cut off."""
    draw = random.Random(seed)
    rows: list[tuple[list[int], list[int]]] = []
    for _ in range(groups):
        asked = [draw.randrange(2, 60) for _ in range(prompt)]
        for _ in range(each):
            length = draw.randint(0, MOST_NEW)
            answer = [draw.randrange(2, 60) for _ in range(length)]
            rows.append((asked, answer if length == MOST_NEW else [*answer, 1]))
    return rows


def moved(checkpoint: Path, into: Path, by: float = 0.02) -> Path:
    """A later checkpoint, without moments: its weights are not the base's any more."""
    state = json.loads((checkpoint / "state.json").read_text())
    draw = np.random.default_rng(1)
    weights = {
        name: (array + by * draw.standard_normal(array.shape)).astype(np.float32)
        for name, array in weights_of(checkpoint).items()
    }
    write_checkpoint(into, weights, m=None, v=None, method=state["method"], adam_step=0, round=1)
    return into


def model_at(this: LearnOrder, base: Path, checkpoint: Path) -> Built:
    """The model of an order with a checkpoint's weights, without dropout."""
    settle("cpu")
    use_threads(1)
    built = build(base, this.tuning, from_scratch=False, seed=tiny.SEED, device=torch.device("cpu"))
    load_weights(built, checkpoint)
    return built
