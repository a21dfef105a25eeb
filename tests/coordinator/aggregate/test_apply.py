"""The apply phase gives a worker's rebuild, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardwork.artifact import describe_folder
from shardwork.errors import Conflict
from shardwork.recipes.orders import ApplyOrder
from shardwork.tensors.checkpoint import apply_update
from shardwork_coordinator.aggregate import apply

from . import rounds


def merged(root: Path) -> dict[str, Path]:
    rounds.base(root)
    rounds.write_honest(root / "delta-0", 0, "int8")
    found = rounds.run(root, [root / "delta-0"], encoding="int8", rule="mean")
    return {
        "checkpoint": root / "checkpoint",
        "step": found.outputs["step-mean"],
        "moments": found.outputs["moments"],
    }


def test_the_executor_applies_what_a_worker_rebuilds(tmp_path: Path) -> None:
    inputs = merged(tmp_path)
    context = rounds.FolderContext(inputs, tmp_path / "applied")
    found = apply.compute(ApplyOrder(steps=rounds.STEPS, encoding="int8"), context)
    apply_update(inputs["checkpoint"], inputs["step"], inputs["moments"], tmp_path / "rebuilt")
    assert describe_folder(found.outputs["checkpoint"]).id == describe_folder(tmp_path / "rebuilt").id
    assert found.metrics == {"adam_step": rounds.STEPS, "round": 1}


@pytest.mark.parametrize(
    "order", [ApplyOrder(steps=3, encoding="int8"), ApplyOrder(steps=rounds.STEPS, encoding="fp32")]
)
def test_another_step_than_planned_is_refused(tmp_path: Path, order: ApplyOrder) -> None:
    with pytest.raises(Conflict) as caught:
        apply.compute(order, rounds.FolderContext(merged(tmp_path), tmp_path / "applied"))
    assert caught.value.code == "apply.order"
