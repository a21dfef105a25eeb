# pyright: standard
"""Families that no recipe was written for: what a plan says learns is what learns, and every part of it feels a step.

Mamba and its kin read weights past their layers, models of experts keep them in no linear layer, OPT lays rows and
positions into one and has its final norm before its blocks, MPT names its blocks as nobody else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shardwork.models.folder import inspect_model
from shardwork.recipes.measure import trained_params
from shardwork_worker.training.model import build

from . import tiny

BaseOf = Callable[[str], Path]
KINDS = ("mamba", "opt", "mpt", "qwen3_moe", "deepseek_v2")
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {}),
    "dora on the top layer": ("lora", {"layers": "top:1", "dora": True}),
    "partial": ("partial", {"last_layers": 1}),
}
WRITE = """
import sys, torch
from pathlib import Path
from tests.worker.training import tiny
from shardwork_worker.training.model import build
from shardwork_worker.training.publish import write_adapter
base, into = map(Path, sys.argv[1:])
built = build(base, tiny.tuning("lora"), from_scratch=False, seed=tiny.SEED, device=torch.device("cpu"))
write_adapter(built.model, into, "tiny")
"""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_counts_what_learns_and_gradients_reach_all_of_it(kind: str, method: str, base_of: BaseOf) -> None:
    how, changes = METHODS[method]
    base, tuning = base_of(kind), tiny.tuning(how, **changes)
    made = build(base, tuning, from_scratch=False, seed=tiny.SEED, device=torch.device("cpu"))
    assert trained_params(inspect_model(base), tuning) == sum(value.numel() for value in made.trainable.values())
    tokens = torch.arange(24).view(2, 12)
    made.model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    assert [name for name, value in made.trainable.items() if value.grad is None] == []


def test_dropout_of_a_layer_that_sees_rows_and_positions_as_one_drops_as_if_it_saw_each(base_of: BaseOf) -> None:
    """OPT: a row's loss does not change with the rows beside it, and dropping changes it."""
    tuning = tiny.tuning("lora", dropout=0.5, target_modules=("fc1", "fc2"))
    made = build(base_of("opt"), tuning, from_scratch=False, seed=tiny.SEED, device=torch.device("cpu"))
    assert made.dropping is not None
    with torch.no_grad():
        for name, value in made.trainable.items():
            if ".lora_B." in name:
                value.fill_(0.05)
    tokens, logits = torch.arange(24).view(2, 12), []
    with made.dropping.during(tiny.SEED):
        for rows in (tokens, tokens[1:]):
            made.dropping.look_at(rows, torch.ones_like(rows))
            logits.append(made.model(input_ids=rows, use_cache=False).logits[-1])
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(logits[0], made.model(input_ids=tokens, use_cache=False).logits[-1])


def test_two_workers_publish_the_same_bytes_of_an_adapter_whatever_order_their_sets_have(
    base_of: BaseOf, tmp_path: Path
) -> None:
    written: list[bytes] = []
    for seed in ("1", "2", "3"):
        command = [sys.executable, "-c", WRITE, str(base_of("qwen3_moe")), str(tmp_path / seed)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True)
        written.append((tmp_path / seed / "adapter_config.json").read_bytes())
    assert written[0] == written[1] == written[2]
    assert json.loads(written[0])["target_modules"]
