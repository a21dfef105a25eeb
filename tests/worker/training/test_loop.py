# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""The schedule and the rule of which parameters decay."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers.trainer_pt_utils import get_parameter_names

from shardwork.recipes.orders import Schedule
from shardwork_worker.training.loop import decay_names, rate_at
from shardwork_worker.training.model import build

from . import tiny


def schedule(kind: str, **changes: float) -> Schedule:
    return Schedule.model_validate(
        {"kind": kind, "learning_rate": 1.0, "warmup_steps": 4, "total_steps": 14, "min_ratio": 0.1, **changes}
    )


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
def test_warm_up_rises_evenly_from_the_first_step(kind: str) -> None:
    assert [rate_at(schedule(kind), step) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


@pytest.mark.parametrize(
    ("kind", "middle", "end"), [("cosine", 0.55, 0.1), ("linear", 0.55, 0.1), ("constant", 1.0, 1.0)]
)
def test_the_rate_falls_to_its_floor_and_stays_there(kind: str, middle: float, end: float) -> None:
    rates = [rate_at(schedule(kind), step) for step in (9, 14, 20)]
    assert rates == pytest.approx([middle, end, end])


def test_a_schedule_without_warm_up_starts_at_its_peak() -> None:
    assert rate_at(schedule("cosine", warmup_steps=0), 0) == 1.0


def test_a_schedule_that_is_all_warm_up_has_no_division_by_zero() -> None:
    assert rate_at(schedule("cosine", warmup_steps=14), 14) == pytest.approx(1.0)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("kind", tiny.SIZES)
def test_what_decays_is_what_transformers_lets_decay(kind: str, method: str, base_of: Callable[[str], Path]) -> None:
    device = torch.device("cpu")
    built = build(base_of(kind), tiny.tuning(method), from_scratch=False, seed=tiny.SEED, device=device)
    patterns = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
    theirs = set(get_parameter_names(built.model, [torch.nn.LayerNorm], patterns)) & set(built.trainable)
    assert decay_names(built) == theirs and theirs


def test_wsd_stays_at_the_peak_and_falls_over_the_last_fifth() -> None:
    schedule = Schedule(kind="wsd", learning_rate=1.0, warmup_steps=10, total_steps=110)
    rates = [rate_at(schedule, step) for step in range(111)]
    assert rates[9:90] == [1.0] * 81
    assert rates[100] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)
    assert all(after < before for before, after in itertools.pairwise(rates[90:]))
