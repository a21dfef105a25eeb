"""What every recipe promises, of every recipe: exact cover, equal plans, strict checks, and nothing heavy on import."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from shardwork.jobs.spec import PlanSection, StageSpec, model_input
from shardwork.recipes import kinds, recipe
from shardwork.recipes.alignment.auditing import names_of, rows_of
from shardwork.recipes.alignment.consensus_orders import ConsensusOrder
from shardwork.recipes.alignment.guards.safety import ASKED, SAFETY_METRICS, Ask
from shardwork.recipes.alignment.orders import (
    AuditOrder,
    GenerateOrder,
    GradeOrder,
    JoinAnswersOrder,
    JudgeOrder,
    JudgePairsOrder,
    JudgeVerdictsOrder,
    PromptsOrder,
    ScoreOrder,
)
from shardwork.recipes.alignment.people_orders import AskOrder, ItemsOrder, VotesOrder
from shardwork.recipes.base import (
    EXECUTOR_PHASES,
    PEOPLE_PHASES,
    PlanInput,
    Reported,
    RoundKind,
    ShardPlan,
    StageFacts,
    StageType,
)
from shardwork.recipes.objectives import PolicyObjective
from shardwork.recipes.order import Order
from shardwork.recipes.orders import (
    ApplyOrder,
    CountOrder,
    EvaluateOrder,
    InitOrder,
    JoinOrder,
    LearnOrder,
    MergeOrder,
    PrepareOrder,
    PublishOrder,
    SplitOrder,
)
from shardwork.tensors.columns import columns_id

KINDS = kinds()
NOT_WORK = EXECUTOR_PHASES | PEOPLE_PHASES
ROUNDS, SHARDS, STEPS, BATCH = 3, 5, 7, 4
FACTS = StageFacts(rows=1_000, tokens=90_000, run_params=1_000_000, trained_params=70_000, input_bytes=123_456)
ORDERS: Mapping[str, type[Order]] = {
    "prepare": PrepareOrder,
    "init": InitOrder,
    "learn": LearnOrder,
    "merge": MergeOrder,
    "evaluate": EvaluateOrder,
    "apply": ApplyOrder,
    "publish": PublishOrder,
    "split": SplitOrder,
    "map": CountOrder,
    "join": JoinOrder,
    "rollout": GenerateOrder,
    "grade": GradeOrder,
    "score": ScoreOrder,
}
#: where a kind's own order has another phase's name
OWN_ORDERS: Mapping[tuple[str, str], type[Order]] = {
    ("people", "split"): ItemsOrder,
    ("people", "ask"): AskOrder,
    ("people", "join"): VotesOrder,
    ("generate", "split"): PromptsOrder,
    ("generate", "map"): GenerateOrder,
    ("generate", "join"): JoinAnswersOrder,
    ("judge", "split"): JudgePairsOrder,
    ("judge", "map"): JudgeOrder,
    ("judge", "join"): JudgeVerdictsOrder,
    ("consensus", "join"): ConsensusOrder,
}
#: what makes a stage of this kind valid
STAGES: Mapping[str, Mapping[str, Any]] = {
    "sft": {"base_model": "./base", "params": {"batch_size": BATCH, "max_length": 64}},
    "pretrain": {"params": {"preset": "tiny-1m", "batch_size": BATCH, "max_length": 64}},
    "count": {"params": {}},
    "reward": {"base_model": "./base", "params": {"batch_size": BATCH, "max_length": 64}},
    "dpo": {"base_model": "./base", "params": {"batch_size": BATCH, "max_length": 64}},
    "ppo": {"base_model": "./base", "params": {"batch_size": BATCH}, "models": {"reward": "./reward"}},
    "grpo": {"base_model": "./base", "params": {"batch_size": BATCH, "rewards": {"exact": 1.0}}},
    "generate": {"base_model": "./base", "models": {"other": "./other"}},
    "judge": {"base_model": "./judge"},
    "people": {"params": {"title": "which is better", "pay_sats": 5}},
    "consensus": {"data": ["people.votes", "judge.votes"]},
}


class Names(dict[str, str]):
    """Any artifact has an id that names it."""

    def __missing__(self, key: str) -> str:
        return f"id of {key}"


@dataclass(frozen=True, slots=True)
class Planned:
    round_number: int
    phase: str
    shards: tuple[ShardPlan, ...]


def stage_of(kind: str) -> StageSpec:
    plan = PlanSection(rounds=ROUNDS, shards_per_round=SHARDS, inner_steps=STEPS)
    given: dict[str, Any] = {"data": ["a.jsonl"], **STAGES[kind]}
    stage = StageSpec(name="one", recipe=kind, plan=plan, **given)
    return recipe(kind).freeze(stage, FACTS)


def artifacts_of(kind: str, phase: str) -> dict[str, str]:
    names = Names({"eval": "id of eval"} if kind != "count" else {})
    names |= {model_input(role): f"id of {role}" for role in STAGES[kind].get("models", {})}
    for index in range(SHARDS):
        if phase == "merge":
            names[f"delta-{index}"] = f"id of delta-{index}"
        if phase == "join":
            names |= {f"{name}-{index}": f"id of {name}-{index}" for name in ("output", "part")}
    if phase not in ("prepare", "split"):
        names["base"] = "id of base"
    return names


def whole_plan(kind: str) -> list[Planned]:
    """Every phase of every round, as the machine asks for it."""
    found, stage = recipe(kind), stage_of(kind)
    learn = RoundKind.LEARN if found.stage_type is StageType.ROUNDS else RoundKind.MAP
    rounds = [(0, RoundKind.SETUP), *((number, learn) for number in range(1, found.learn_rounds(stage) + 1))]
    if found.stage_type is StageType.ROUNDS:
        rounds.append((len(rounds), RoundKind.PUBLISH))
    made: list[Planned] = []
    for number, kind_of_round in rounds:
        for phase in found.phases(kind_of_round, artifacts_of(kind, "")):
            given = PlanInput(
                job_id="j",
                job_name="job",
                stage=stage,
                round_number=number,
                phase=phase,
                facts=FACTS,
                artifacts=artifacts_of(kind, phase),
                numbers={"rows": 900.0, "eval_rows": 50.0},
            )
            made.append(Planned(number, phase, tuple(found.plan(given))))
    return made


def worker_phases(kind: str) -> list[tuple[str, ShardPlan]]:
    """One shard of each phase that workers run."""
    first = {one.phase: one.shards[0] for one in reversed(whole_plan(kind)) if one.phase not in NOT_WORK}
    audits = ((phase, recipe(kind).audit(phase, plan, bytes(32), bytes(32))) for phase, plan in first.items())
    return sorted(first.items()) + [(f"audit of {phase}", audit) for phase, audit in audits if audit is not None]


ALL_WORK = [(kind, phase, plan.order_json) for kind in KINDS for phase, plan in worker_phases(kind)]
POLICIES = ("grpo", "ppo")


#: the orders of results that are answers, scores or verdicts
MAPPED: Mapping[tuple[str, str], type[GenerateOrder] | type[ScoreOrder] | type[JudgeOrder]] = {
    **{(kind, "rollout"): GenerateOrder for kind in POLICIES},
    **{(kind, "score"): ScoreOrder for kind in POLICIES},
    ("generate", "map"): GenerateOrder,
    ("judge", "map"): JudgeOrder,
}


def of_rows(kind: str, phase: str, order_json: str) -> Reported:
    """Answers, scores, verdicts or an audit of them, as an honest worker reports them."""
    audit = AuditOrder.model_validate_json(order_json) if phase.startswith("audit") else None
    of = audit.of if audit else MAPPED[kind, phase].model_validate_json(order_json)
    names = [name for row in (audit.rows if audit else range(rows_of(of))) for name in names_of(of, row)]
    metrics = {name: -3.0 if name.startswith("sum.") else 0.5 for name in names}
    drawn = isinstance(of, GenerateOrder)
    if drawn:
        metrics |= {"tokens": 2.0 * rows_of(of), "ended": 3.0}
    if audit is not None:
        shares = {f"{name}.{row}": 1.0 for name in ("drawn", "told") for row in audit.rows} if drawn else {}
        return Reported(outputs={}, output_bytes={}, output_files={}, metrics={**metrics, **shares})
    numbers = list(metrics.values())
    if drawn:
        metrics |= {"rows": float(rows_of(of))}
        name, artifact = "answers", "id of answers"
    elif isinstance(of, ScoreOrder):
        name, artifact = "scores", columns_id("scores.safetensors", {"scores": numbers})
    else:
        metrics |= {"tokens": 9.0}
        both = {"first": numbers[::2], "second": numbers[1::2]}
        name, artifact = "verdicts", columns_id("verdicts.safetensors", both)
    files = {name: {f"{name}.safetensors": 90}}
    return Reported(outputs={name: artifact}, output_bytes={name: 90}, output_files=files, metrics=metrics)


def honest(kind: str, phase: str, order_json: str) -> Reported:
    """A report as an honest worker makes it."""
    if phase.startswith("audit") or (kind, phase) in MAPPED:
        return of_rows(kind, phase, order_json)
    weights = {"weights.safetensors": 10, "state.json": 1}
    by_phase: dict[str, dict[str, dict[str, int]]] = {
        "init": {"checkpoint": weights},
        "learn": {"delta": dict.fromkeys(("delta.safetensors", "m.safetensors", "v.safetensors", "update.json"), 5)},
        "evaluate": {},
        "publish": {
            "model": {"model.safetensors": 9, "config.json": 1, "README.md": 1},
            "samples": {"samples.json": 1},
        },
        "map": {"counts": {"counts.json": 90}},
    }
    files = by_phase[phase]
    metrics: dict[str, float] = {
        "init": {"trained_params": 1.0},
        "learn": {"train_loss": 3.0, "loss_first": 3.5, "loss_last": 2.5, "tokens": 50.0},
        "publish": {"reload_difference": 0.0},
        "map": {"words": 10.0, "distinct": 5.0},
    }.get(phase, {})
    if phase == "publish" and PublishOrder.model_validate_json(order_json).safety:
        metrics |= {name: float(ASKED[Ask(name.split(".")[1])]) for name in SAFETY_METRICS}
    if phase == "evaluate":
        metrics = {"before.test_loss": 3.0}
        for name in EvaluateOrder.model_validate_json(order_json).candidates:
            metrics |= {f"{name}.selection_loss": 2.9, f"{name}.test_loss": 2.9, f"{name}.test_se": 0.01}
            if kind in ("reward", "dpo"):
                metrics |= {f"{name}.accuracy": 0.9, f"{name}.calibration_error": 0.02}
    return Reported(
        outputs={name: f"id of {name}" for name in files},
        output_bytes={name: sum(one.values()) for name, one in files.items()},
        output_files=files,
        metrics=metrics,
    )


def with_files(report: Reported, name: str, files: Mapping[str, int]) -> Reported:
    return replace(report, output_files={**report.output_files, name: files})


def may_be(name: str, value: float) -> bool:
    """Errors have no bound, nor have sums of log-probabilities below, logits and scores, which an audit compares."""
    if not math.isfinite(value):
        return False
    is_sum = name.startswith("sum.") and value < 0
    return (name.endswith("_se") and value > 0) or name.startswith(("score.", "peak.")) or is_sum


def tampered(phase: str, report: Reported) -> dict[str, Reported]:
    """Every way to bend this report that its check must see."""
    extra = replace(
        report,
        outputs={**report.outputs, "extra": "id"},
        output_files={**report.output_files, "extra": {"a.json": 1}},
        output_bytes={**report.output_bytes, "extra": 1},
    )
    found = {"an extra output": extra}
    for name in report.outputs:
        found[f"no {name}"] = replace(
            report,
            outputs={key: value for key, value in report.outputs.items() if key != name},
            output_files={key: value for key, value in report.output_files.items() if key != name},
        )
        files = report.output_files[name]
        for bad in ("weights.pkl", "pytorch_model.bin", "modeling.py", "run.sh", "lib.so"):
            found[f"{name} with {bad}"] = with_files(report, name, {**files, bad: 1})
        if name == "samples":
            found["samples of a gigabyte"] = with_files(report, name, {"samples.json": 1 << 30})
        else:
            found[f"{name} without files"] = with_files(report, name, {})
            largest = max(files, key=lambda path: files[path])
            found[f"{name} without {largest}"] = with_files(
                report, name, {path: size for path, size in files.items() if path != largest}
            )
    if phase in ("learn", "evaluate", "map", "rollout", "score", "audit"):
        for name in report.metrics:
            for value in (math.nan, math.inf, -math.inf, -1.0, 1e18):
                if not may_be(name, value):
                    found[f"{name} = {value}"] = replace(report, metrics={**report.metrics, name: value})
            less = {key: value for key, value in report.metrics.items() if key != name}
            found[f"no {name}"] = replace(report, metrics=less)
    if phase == "evaluate":
        found["a candidate of its own"] = replace(report, metrics={**report.metrics, "evil.selection_loss": 0.0})
    return found


def test_every_kind_is_tested_here() -> None:
    assert set(KINDS) == set(STAGES)
    assert {phase for kind in KINDS for phase in (one.phase for one in whole_plan(kind))} == set(ORDERS) | {
        phase for _, phase in OWN_ORDERS
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_input_gives_the_same_plan(kind: str) -> None:
    assert whole_plan(kind) == whole_plan(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_shards_are_numbered_from_zero_and_orders_survive_their_journey(kind: str) -> None:
    for planned in whole_plan(kind):
        # a policy's last round answers the held-out prompts alone, whose number is the last
        first = SHARDS if kind in POLICIES and planned.round_number > ROUNDS and planned.phase != "publish" else 0
        if planned.phase not in NOT_WORK:
            assert [shard.index for shard in planned.shards] == list(range(first, first + len(planned.shards)))
        for shard in planned.shards:
            model = OWN_ORDERS.get((kind, planned.phase)) or ORDERS[planned.phase]
            order = model.model_validate_json(shard.order_json)
            assert order.canonical_json() == shard.order_json
            assert shard.work_units >= 0 and shard.memory_bytes >= 0
            assert all(artifact for artifact in shard.inputs.values())


@pytest.mark.parametrize("kind", POLICIES)
def test_rollouts_take_every_prompt_once_over_all_rounds_and_are_learned_from_where_they_were_drawn(kind: str) -> None:
    spans: list[tuple[int, int]] = []
    firsts: list[int] = []
    for planned in whole_plan(kind):
        if planned.phase == "rollout" and planned.round_number <= ROUNDS:
            drawn = [GenerateOrder.model_validate_json(shard.order_json) for shard in planned.shards[:-1]]
            spans += [(order.first_prompt, order.first_prompt + order.prompts) for order in drawn]
            firsts = [order.first_prompt for order in drawn]
        if planned.phase == "learn":
            objectives = [LearnOrder.model_validate_json(shard.order_json).objective for shard in planned.shards]
            assert [one.first_prompt for one in objectives if isinstance(one, PolicyObjective)] == firsts
    assert len(spans) == ROUNDS * SHARDS and spans[0][0] == 0
    assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if recipe(kind).stage_type is StageType.ROUNDS and kind not in POLICIES]
)
def test_learn_shards_cover_their_rows_exactly_once_over_all_rounds(kind: str) -> None:
    spans: list[tuple[int, int]] = []
    for planned in whole_plan(kind):
        if planned.phase != "learn":
            continue
        for shard in planned.shards:
            order = LearnOrder.model_validate_json(shard.order_json)
            assert order.start_step == (planned.round_number - 1) * STEPS
            spans.append((order.first_row, order.first_row + order.steps * order.batch_size))
    assert len(spans) == ROUNDS * SHARDS
    assert spans[0][0] == 0 and spans[-1][1] == ROUNDS * SHARDS * STEPS * BATCH
    assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))


def test_votes_are_counted_by_the_coordinator_and_every_source_is_read_once() -> None:
    (planned,) = whole_plan("consensus")
    assert planned.phase == "join" and dict(planned.shards[0].inputs) == {
        "data": "id of data",
        "data-1": "id of data-1",
    }
    nothing = Reported(outputs={}, output_bytes={}, output_files={}, metrics={})
    assert not recipe("consensus").check("join", planned.shards[0].order_json, nothing).accepted


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if recipe(kind).stage_type is StageType.MAP and worker_phases(kind)]
)
def test_map_shards_take_every_part_exactly_once(kind: str) -> None:
    planned = {one.phase: one.shards for one in whole_plan(kind)}
    models = 2 if kind == "generate" else 1
    read = [artifact for shard in planned["map"] for name, artifact in shard.inputs.items() if name != "base"]
    assert sorted(read) == sorted(models * [f"id of part-{index}" for index in range(SHARDS)])
    assert json.loads(planned["split"][0].order_json)["parts"] == SHARDS
    joined = {f"part-{index}" for index in range(SHARDS)} | {f"output-{index}" for index in range(models * SHARDS)}
    assert set(planned["join"][0].inputs) - {"base"} == joined


@pytest.mark.parametrize(("kind", "phase", "order"), ALL_WORK, ids=lambda value: value[:12])
def test_an_honest_report_passes_and_every_bent_one_fails_with_a_reason(kind: str, phase: str, order: str) -> None:
    report, asked = honest(kind, phase, order), phase.partition(" ")[0]
    finding = recipe(kind).check(asked, order, report)
    assert finding.accepted, finding.why
    bent = tampered(asked, report)
    if kind in POLICIES and asked == "learn":
        # what a policy minimises has no zero below it
        bent = {name: one for name, one in bent.items() if not ("loss" in name and name.endswith(" = -1.0"))}
    passed = [name for name, one in bent.items() if recipe(kind).check(asked, order, one).accepted]
    assert passed == []
    for one in bent.values():
        why = recipe(kind).check(asked, order, one).why
        assert why is not None and why.code.startswith("check.") and why.sentence.endswith(".")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if worker_phases(kind)])
def test_no_worker_phase_of_another_name_is_accepted(kind: str) -> None:
    phase, order = worker_phases(kind)[0][0], worker_phases(kind)[0][1].order_json
    report = replace(honest(kind, phase, order), outputs={"other": "id"}, output_files={"other": {"a.json": 1}})
    assert not recipe(kind).check("prepare", order, report).accepted


@pytest.mark.parametrize("phase", sorted(PEOPLE_PHASES))
def test_nothing_that_a_worker_hands_in_for_people_is_accepted(phase: str) -> None:
    report = Reported(outputs={}, output_bytes={}, output_files={}, metrics={})
    assert not recipe("people").check(phase, "{}", report).accepted


def test_importing_the_recipes_loads_neither_torch_nor_numpy() -> None:
    heavy = ("torch", "numpy", "transformers", "peft", "safetensors")
    text = (
        f"import sys, shardwork.recipes, shardwork.recipes.measure; print([x for x in {heavy!r} if x in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", sorted(POLICIES))
def test_a_policy_is_sampled_from_held_out_prompts_and_not_from_nothing(kind: str) -> None:
    (published,) = [planned for planned in whole_plan(kind) if planned.phase == "publish"]
    (shard,) = published.shards
    assert shard.inputs["eval"] == "id of eval" and "train" not in shard.inputs
    assert PublishOrder.model_validate_json(shard.order_json).sample_prompts == ()


def test_a_policy_of_pairs_is_sampled_from_held_out_ones() -> None:
    (published,) = [planned for planned in whole_plan("dpo") if planned.phase == "publish"]
    assert published.shards[0].inputs["eval"] == "id of eval"
