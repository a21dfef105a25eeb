"""What a policy's stage plans by itself: its rate by size and method, how often held-out prompts are answered, and how
closely answers must be what their checkpoint says."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from shardwork.jobs.spec import PlanSection, StageSpec
from shardwork.recipes import recipe
from shardwork.recipes.alignment.orders import GenerateOrder
from shardwork.recipes.base import PlanInput, StageFacts
from shardwork.recipes.objectives import PolicyObjective
from shardwork.recipes.orders import LearnOrder

SMALL, LARGE = 1_000_000, 7_000_000_000
KINDS: Mapping[str, Mapping[str, object]] = {
    "reward": {},
    "dpo": {},
    "ppo": {"rewards": {"exact": 1.0}},
    "grpo": {"rewards": {"exact": 1.0}},
}


def frozen(kind: str, size: int, method: str = "full", shards: int = 1) -> StageSpec:
    spec = StageSpec(
        name=kind,
        recipe=kind,
        base_model="base",
        data=["rows.jsonl"],
        eval_data=["held-out.jsonl"],
        params={**KINDS.get(kind, {}), "method": method, "allow_large": True},
        plan=PlanSection(rounds=4, shards_per_round=shards, inner_steps=8),
    )
    return recipe(kind).freeze(spec, StageFacts(rows=100, tokens=1000, run_params=size, trained_params=size))


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize(
    ("kind", "small", "large"), [("reward", 0.7, 0.25), ("dpo", 0.15, 0.1), ("ppo", 0.4, 0.05), ("grpo", 0.4, 0.05)]
)
def test_a_rate_is_the_measured_share_of_sfts_and_falls_to_the_published_one(
    kind: str, small: float, large: float, method: str
) -> None:
    shares = [
        frozen(kind, size, method).params["learning_rate"] / frozen("sft", size, method).params["learning_rate"]
        for size in (SMALL, 100_000_000, LARGE)
    ]
    assert shares[0] == pytest.approx(small, rel=0.01) and shares[2] == pytest.approx(large, rel=0.01)
    assert shares[0] > shares[1] > shares[2]


@pytest.mark.parametrize(("kind", "shards", "bears"), [("grpo", 4, 4), ("ppo", 2, 2), ("ppo", 4, 2)])
def test_shards_that_are_averaged_bear_a_higher_rate_and_of_ppo_no_more_than_two(
    kind: str, shards: int, bears: int
) -> None:
    alone, several = (frozen(kind, SMALL, shards=count).params["learning_rate"] for count in (1, shards))
    assert several == pytest.approx(alone * bears ** (2 / 3), rel=0.01)


@pytest.mark.parametrize(("held_out", "prompts", "answers"), [(1, 1, 96), (24, 24, 4), (96, 96, 1), (4000, 128, 1)])
def test_few_held_out_prompts_are_answered_several_times(held_out: int, prompts: int, answers: int) -> None:
    stage = frozen("grpo", SMALL)
    given = PlanInput(
        job_id="job",
        job_name="job",
        stage=stage,
        round_number=1,
        phase="rollout",
        facts=StageFacts(run_params=SMALL, trained_params=SMALL),
        artifacts={"base": "b", "checkpoint": "c", "train": "t", "eval": "e"},
        numbers={"eval_rows": float(held_out)},
    )
    trial = GenerateOrder.model_validate_json(recipe("grpo").plan(given)[-1].order_json)
    assert (trial.prompts, trial.answers) == (prompts, answers)


@pytest.mark.parametrize(("precision", "drift"), [("fp32", 0.005), ("bf16", 0.05)])
def test_answers_may_drift_as_far_as_their_precision_lets_honest_ones(precision: str, drift: float) -> None:
    stage = frozen("grpo", SMALL)
    given = PlanInput(
        job_id="job",
        job_name="job",
        stage=stage.model_copy(update={"params": {**stage.params, "precision": precision}}),
        round_number=1,
        phase="learn",
        facts=StageFacts(run_params=SMALL, trained_params=SMALL),
        artifacts={name: name for name in ("base", "checkpoint", "train", "answers-0", "scores-0")},
        numbers={},
    )
    objective = LearnOrder.model_validate_json(recipe("grpo").plan(given)[0].order_json).objective
    assert isinstance(objective, PolicyObjective) and objective.drift == drift
