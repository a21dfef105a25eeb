"""Orders refuse what no worker could do: read before torch is imported, so that a lease fails with its reason."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from shardwork.errors import InvalidInput
from shardwork.recipes.base import Context
from shardwork.recipes.orders import LearnOrder, Method, Optimizer, Schedule, Tuning
from shardwork_worker.child import run_phase

NO_CONTEXT: Any = None


def order(**changes: Any) -> LearnOrder:
    made = LearnOrder(
        tuning=Tuning(method=Method.FULL),
        from_scratch=False,
        schedule=Schedule(learning_rate=1e-3, total_steps=10),
        optimizer=Optimizer(),
        start_step=0,
        steps=5,
        first_row=0,
        batch_size=4,
        micro_batch_size=4,
        max_length=64,
        encoding="int8",
    )
    return made.model_copy(update=changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"steps": 10**9},
        {"batch_size": 0},
        {"batch_size": 10**12},
        {"micro_batch_size": 0},
        # a negative one reads no row, and hands in a delta of nothing as work
        {"micro_batch_size": -3},
        {"first_row": -7},
        {"start_step": -1},
        {"max_length": 0},
        {"max_length": -5},
        # ended the process with a segmentation fault
        {"threads": 100_000},
        {"threads": 0},
        {"schedule": {"learning_rate": -1.0, "total_steps": 10}},
        {"optimizer": {"beta2": 1.0}},
        {"tuning": {"method": "lora", "rank": 10**7}},
    ],
    ids=str,
)
def test_an_order_that_no_worker_could_carry_out_is_refused(changes: dict[str, Any]) -> None:
    context: Context = NO_CONTEXT
    text = LearnOrder.model_construct(**{**order().model_dump(), **changes}).model_dump_json(warnings=False)
    with pytest.raises(InvalidInput) as caught:
        run_phase("learn", "sft", text, context)
    assert caught.value.code == "trainer.bad_order"


def test_numbers_that_are_not_finite_are_refused() -> None:
    text = order().canonical_json().replace('"learning_rate":0.001', '"learning_rate":Infinity')
    with pytest.raises(InvalidInput):
        run_phase("learn", "sft", text, NO_CONTEXT)
    with pytest.raises(ValueError, match="finite"):
        Schedule(learning_rate=math.nan, total_steps=1)


def test_an_order_that_asks_for_nothing_new_reads_as_the_first_release_wrote_it() -> None:
    known = {
        "alpha",
        "last_layers",
        "method",
        "rank",
        "target_modules",
        "train_final_norm",
        "train_head",
    }
    assert set(json.loads(order().canonical_json())["tuning"]) == known
    new = order(tuning=Tuning(method=Method.LORA, layers=(1, 3), dora=True))
    assert LearnOrder.model_validate_json(new.canonical_json()) == new
    assert set(json.loads(new.canonical_json())["tuning"]) == known | {"layers", "dora"}


@pytest.mark.parametrize("layers", ["top:0", "top:-1", "last", (-1,)])
def test_layers_are_named_in_one_of_three_ways(layers: Any) -> None:
    with pytest.raises(ValueError, match="layers"):
        Tuning(method=Method.LORA, layers=layers)
