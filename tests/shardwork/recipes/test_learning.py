"""What the planner of learning stages writes into orders."""

from __future__ import annotations

import pytest

from shardwork.jobs.spec import PlanSection, StageSpec
from shardwork.recipes.averaging import gain_of
from shardwork.recipes.base import PlanInput, StageFacts
from shardwork.recipes.orders import EvaluateOrder, LearnOrder, MergeOrder
from shardwork.recipes.pretrain import Pretrain
from shardwork.recipes.sft import Sft

FACTS = StageFacts(rows=1_000, tokens=90_000, run_params=1_000_000, trained_params=1_000_000)
RECIPE = Pretrain()


def stage(**params: object) -> StageSpec:
    made = StageSpec(
        name="one",
        recipe="pretrain",
        data=["a.jsonl"],
        plan=PlanSection(rounds=3, shards_per_round=4, inner_steps=5),
        params={"preset": "tiny-1m", **params},
    )
    return RECIPE.freeze(made, FACTS)


def planned(stage: StageSpec, phase: str, *names: str, aggregate: str = "auto") -> str:
    given = PlanInput(
        job_id="job",
        job_name="job",
        stage=stage,
        round_number=1,
        phase=phase,
        facts=FACTS,
        artifacts=dict.fromkeys(names, "id"),
        numbers={},
        aggregate=aggregate,
    )
    return RECIPE.plan(given)[0].order_json


@pytest.mark.parametrize(
    ("params", "most"),
    [
        ({"batch_size": 64, "micro_batch_size": 2}, 2),
        ({"batch_size": 4, "micro_batch_size": 4096}, 4),
        ({"batch_size": 512}, 16),
    ],
)
def test_evaluating_takes_no_more_rows_at_once_than_learning_did(params: dict[str, object], most: int) -> None:
    """Or a job whose rows just fit the device learns, and fails when it is to be measured."""
    steps = ("step-mean", "step-nesterov", "step-mean1.5", "step-mean2")
    order = EvaluateOrder.model_validate_json(planned(stage(**params), "evaluate", "eval", *steps))
    assert order.batch_size == most


@pytest.mark.parametrize(
    ("aggregate", "shards", "rule"),
    [("auto", 3, "mean"), ("auto", 4, "screened_mean"), ("mean", 8, "mean"), ("screened_mean", 2, "screened_mean")],
)
def test_deltas_are_averaged_by_the_rule_that_the_job_asks_for(aggregate: str, shards: int, rule: str) -> None:
    deltas = [f"delta-{index}" for index in range(shards)]
    text = planned(stage(), "merge", "checkpoint", *deltas, aggregate=aggregate)
    assert MergeOrder.model_validate_json(text).rule == rule


@pytest.mark.parametrize(("millions", "published"), [(125, 6e-4), (350, 3e-4), (1300, 2e-4), (6700, 1.2e-4)])
def test_the_automatic_rate_is_near_the_published_ones(millions: int, published: float) -> None:
    """GPT-3's table 2.1: what large runs took, where nothing of ours was measured."""
    found = RECIPE.auto_rate({}, StageFacts(run_params=millions * 10**6))
    assert published / 1.35 < found < published * 1.35


@pytest.mark.parametrize(("method", "usual"), [("full", 2e-5), ("lora", 2e-4)])
def test_tuning_a_large_model_takes_a_usual_rate(method: str, usual: float) -> None:
    found = Sft().auto_rate({"method": method}, StageFacts(run_params=7 * 10**9))
    assert usual / 1.5 < found < usual * 1.5


def test_a_small_model_is_not_held_back() -> None:
    """At 1M parameters 2e-3 left 0.3 nats of 5 on the table after 150 steps."""
    assert RECIPE.auto_rate({}, StageFacts(run_params=10**6)) == 4e-3


def with_shards(shards: int, **params: object) -> StageSpec:
    plan = PlanSection(rounds=3, shards_per_round=shards, inner_steps=5)
    made = StageSpec(name="one", recipe="pretrain", data=["a"], plan=plan, params={"preset": "tiny-1m", **params})
    return RECIPE.freeze(made, FACTS)


@pytest.mark.parametrize(("shards", "times"), [(1, 1.0), (4, 1.59), (8, 2.0), (64, 2.0)])
def test_the_automatic_rate_grows_with_the_shards_that_are_averaged(shards: int, times: float) -> None:
    """Of weights that start at random; learned ones bear more."""
    found = with_shards(shards).params["learning_rate"] / with_shards(1).params["learning_rate"]
    assert found == pytest.approx(times, rel=0.01)


@pytest.mark.parametrize(
    ("shards", "steps", "fresh", "learned"),
    [(8, 10, 2.0, 4.0), (8, 25, 1.47, 2.17), (4, 1, 1.59, 2.52), (8, 10**6, 1.0, 1.0), (1, 500, 1.0, 1.0)],
)
def test_longer_rounds_bear_less_of_that_and_never_less_than_one_machine(
    shards: int, steps: int, fresh: float, learned: float
) -> None:
    assert gain_of(shards, steps, from_scratch=True) == pytest.approx(fresh, rel=0.01)
    assert gain_of(shards, steps, from_scratch=False) == pytest.approx(learned, rel=0.01)


def test_a_rate_that_was_asked_for_is_taken_as_it_is() -> None:
    assert with_shards(8, learning_rate=1e-3).params["learning_rate"] == 1e-3


@pytest.mark.parametrize(("shards", "params", "left"), [(1, {}, 0.1), (4, {}, 0.5), (4, {"final_rate": 0.0}, 0.0)])
def test_the_rate_falls_less_where_averaging_takes_out_the_noise(
    shards: int, params: dict[str, object], left: float
) -> None:
    order = LearnOrder.model_validate_json(planned(with_shards(shards, **params), "learn", "checkpoint", "train"))
    assert order.schedule.min_ratio == left


def test_a_job_that_an_earlier_version_froze_goes_on_with_the_schedule_it_had() -> None:
    frozen = with_shards(4)
    before = {name: value for name, value in frozen.params.items() if name != "final_rate"}
    text = planned(frozen.model_copy(update={"params": before}), "learn", "checkpoint", "train")
    assert LearnOrder.model_validate_json(text).schedule.min_ratio == 0.1


def test_weights_decay_no_faster_where_the_rate_is_higher() -> None:
    """AdamW takes the rate times the decay from each weight, every step."""
    alone, averaged = with_shards(1).params, with_shards(8).params
    taken = [params["learning_rate"] * params["weight_decay"] for params in (alone, averaged)]
    assert taken[0] == pytest.approx(taken[1], rel=0.01)
    assert (alone["beta2"], averaged["beta2"]) == (0.95, 0.98)


@pytest.mark.parametrize(
    ("outer", "number", "shards", "offered"),
    [
        ("auto", 3, 4, True),
        ("auto", 2, 4, False),  # it would hold back what is still learning
        ("mean", 3, 4, False),
        ("auto", 3, 1, False),  # one shard a round is exact
    ],
)
def test_only_the_last_round_may_settle_on_the_average_of_the_last_ones(
    outer: str, number: int, shards: int, offered: bool
) -> None:
    assert ("settled" in RECIPE.candidates(with_shards(shards, outer=outer), {"eval": ""}, number)) is offered


def test_without_held_out_rows_nothing_is_offered_beside_the_mean() -> None:
    assert RECIPE.candidates(with_shards(4), {}, 3) == ("mean",)
