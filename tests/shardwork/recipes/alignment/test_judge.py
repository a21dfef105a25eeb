"""What a judge's stage plans."""

from __future__ import annotations

import pytest

from shardwork.jobs.spec import StageSpec
from shardwork.recipes import recipe
from shardwork.recipes.alignment.orders import JudgePairsOrder
from shardwork.recipes.base import PlanInput, StageFacts


@pytest.mark.parametrize("knew", [True, False])
def test_a_stage_that_was_frozen_before_appeals_were_known_asks_about_all(knew: bool) -> None:
    facts = StageFacts(rows=4, tokens=100, run_params=1000)
    stage = recipe("judge").freeze(StageSpec(name="judge", recipe="judge", base_model="b", data=["d"]), facts)
    if not knew:
        kept = {name: value for name, value in stage.params.items() if name != "leave_out_appeals"}
        stage = stage.model_copy(update={"params": kept})
    given = PlanInput(
        job_id="job",
        job_name="job",
        stage=stage,
        round_number=0,
        phase="split",
        facts=facts,
        artifacts={"base": "b", "data": "d"},
        numbers={},
    )
    order = JudgePairsOrder.model_validate_json(recipe("judge").plan(given)[0].order_json)
    assert order.leave_out_appeals is knew
