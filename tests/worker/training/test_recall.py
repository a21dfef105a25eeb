# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""What was learned by heart: found in a model that was taught rows until it knew them, and in no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from shardwork.errors import Corrupt
from shardwork.tensors.file import write_tensors
from shardwork_worker.training.probing.recall import FILE, common_run, read_probes, recall
from shardwork_worker.training.trainer import TorchTrainer

from . import tiny

BaseOf = Callable[[str], Path]
LENGTH = 30


def rows(count: int, seed: int) -> list[list[int]]:
    chance = np.random.default_rng(seed)
    return [chance.integers(4, 60, LENGTH - number % 3).tolist() for number in range(count)]


def write_probe(folder: Path, learnt: list[list[int]], held_out: list[list[int]], first_label: int = 0) -> Path:
    folder.mkdir(parents=True)
    every = [*learnt, *held_out]
    mask = [int(at >= first_label) for row in every for at in range(len(row))]
    tensors: dict[str, Any] = {
        "tokens": np.array([token for row in every for token in row], np.int32),
        "mask": np.array(mask, np.uint8),
        "offsets": np.cumsum([0, *(len(row) for row in every)]).astype(np.int64),
        "sides": np.array([1] * len(learnt) + [0] * len(held_out), np.uint8),
    }
    write_tensors(folder / FILE, tensors)
    return folder


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_rows_taught_by_heart_are_found_and_held_out_rows_are_not(kind: str, base_of: BaseOf, tmp_path: Path) -> None:
    learnt, held_out = rows(6, 1), rows(5, 2)
    probe = write_probe(tmp_path / "probe", learnt, held_out)
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_pretrained(base_of(kind), local_files_only=True)
    model.eval()
    before = recall(model, probe, pad_token=0)
    assert (before.learnt.rows, before.learnt.reproduced, before.held_out.reproduced) == (6, 0, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        for row in learnt:
            ids = torch.tensor([row])
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = recall(model, probe, pad_token=0)
    assert after.learnt.reproduced >= 5 and after.learnt.longest_run >= 14
    assert after.held_out.reproduced == 0 and after.held_out.longest_run < 8
    assert after.metrics()["memorised.train.reproduced"] == after.learnt.reproduced
    assert dict(after.facts())["held-out rows guessed"] == "0 of 5 tried"


def test_a_row_is_cut_in_its_middle_but_not_before_its_answer(tmp_path: Path) -> None:
    row = list(range(4, 34))
    (plain,) = read_probes(write_probe(tmp_path / "1", [row], []), prefix=64, vocabulary=64)
    assert (plain.prefix, plain.suffix, plain.is_learnt) == (row[:15], row[15:], True)
    (short,) = read_probes(write_probe(tmp_path / "2", [row], [], first_label=20), prefix=4, vocabulary=64)
    assert (short.prefix, short.suffix) == (row[16:20], row[20:])
    assert read_probes(write_probe(tmp_path / "3", [row], [], first_label=25), prefix=64, vocabulary=64) == []
    assert read_probes(write_probe(tmp_path / "4", [row], []), prefix=64, vocabulary=16) == []


def test_publishing_with_rows_to_ask_about_tells_it_in_metrics_and_card(base_of: BaseOf, tmp_path: Path) -> None:
    base, trainer = base_of("llama"), TorchTrainer("cpu")
    checkpoint = tiny.first_checkpoint(trainer, base, tmp_path / "init", "lora")
    probe = write_probe(tmp_path / "probe", rows(3, 1), rows(2, 2))
    context = tiny.context(tmp_path / "out", base=base, checkpoint=checkpoint, probe=probe)
    done = trainer.publish(tiny.publish_order("lora"), context)
    assert done.metrics["memorised.train.rows"] == 3 and done.metrics["memorised.held_out.rows"] == 2
    card = (done.outputs["model"] / "README.md").read_text()
    assert "| training rows known by heart | 0 of 3 tried |" in card


def test_a_probe_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Corrupt) as caught:
        read_probes(tmp_path, prefix=4, vocabulary=8)
    assert caught.value.code == "probe.unreadable"


def test_the_longest_common_run_is_found_wherever_it_stands() -> None:
    assert common_run([1, 2, 3, 4], [9, 2, 3, 4, 1]) == 3
    assert common_run([1, 2], [3, 4]) == 0 and common_run([], [1]) == 0
