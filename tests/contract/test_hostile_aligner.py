"""Who is paid without the work in alignment: workers that forge, auditors that copy or accuse. Real code, made-up rows.

What a model would find is a table here; the numbers with a real model are tested in tests/worker/training/generation.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shardwork.artifact import describe_folder
from shardwork.recipes import recipe
from shardwork.recipes.alignment.answers import Verdicts, write_scores, write_verdicts
from shardwork.recipes.alignment.auditing import names_of, rows_of
from shardwork.recipes.alignment.orders import AuditOrder, GenerateOrder, JudgeOrder, Sampling, ScoreOrder
from shardwork.recipes.base import Reported, ShardPlan
from shardwork.tensors.columns import columns_id

OF = GenerateOrder(
    tuning=None,
    first_prompt=0,
    prompts=16,
    answers=2,
    sampling=Sampling(max_new_tokens=20),
    max_length=64,
    batch_size=8,
)
SCORE = ScoreOrder(of=OF, max_length=84, batch_size=8)
JUDGE = JudgeOrder(pairs=32, max_length=64, batch_size=8)
#: (recipe, phase, order, output)
AUDITED = [
    ("generate", "map", OF, "answers"),
    ("ppo", "rollout", OF, "answers"),
    ("grpo", "score", SCORE, "scores"),
    ("judge", "map", JUDGE, "verdicts"),
]
IDS = [f"{kind} {phase}" for kind, phase, _, _ in AUDITED]
Audited = GenerateOrder | ScoreOrder | JudgeOrder


def claimed(of: Audited) -> dict[str, float]:
    """What an honest worker reports: a number of its own for each row."""
    found = {name: _number(name) for row in range(rows_of(of)) for name in names_of(of, row)}
    if isinstance(of, GenerateOrder):
        return found | {"rows": float(of.rows), "tokens": 7.0 * of.rows, "ended": 3.0}
    return found | ({"tokens": 900.0} if isinstance(of, JudgeOrder) else {})


def _number(name: str) -> float:
    kind, _, row = name.partition(".")
    # of float32, as in the files
    exact = (int(row) + 1) / 64
    return {"sum": -20 * exact, "peak": 9 + exact, "score": exact - 0.25}.get(kind, exact)


def artifact(of: Audited, metrics: dict[str, float]) -> str:
    match of:
        case GenerateOrder():
            return "ab" * 32
        case ScoreOrder():
            scores = [metrics[f"score.{row}"] for row in range(rows_of(of))]
            return columns_id("scores.safetensors", {"scores": scores})
        case JudgeOrder():
            both = {one: [metrics[f"{one}.{row}"] for row in range(of.pairs)] for one in ("first", "second")}
            return columns_id("verdicts.safetensors", both)


def reported(of: Audited, output: str, metrics: dict[str, float], made: str = "") -> Reported:
    return Reported(
        outputs={output: made or artifact(of, metrics)},
        output_bytes={output: 900},
        output_files={output: {f"{output}.safetensors": 900}},
        metrics=metrics,
    )


def audit_of(kind: str, phase: str, of: Audited, output: str) -> tuple[ShardPlan, AuditOrder]:
    inputs = {"base": "b", "prompts": "p", output: "made"}
    done = ShardPlan(index=0, order_json=of.canonical_json(), inputs=inputs, work_units=10**6, tokens=100)
    plan = recipe(kind).audit(phase, done, bytes(32), bytes(32))
    assert plan is not None
    return plan, AuditOrder.model_validate_json(plan.order_json)


def found_by_an_honest_auditor(order: AuditOrder, metrics: dict[str, float]) -> dict[str, float]:
    found = {name: metrics[name] for row in order.rows for name in names_of(order.of, row)}
    if isinstance(order.of, GenerateOrder):
        found |= {f"{name}.{row}": 1.0 for row in order.rows for name in ("drawn", "told")}
        found |= {name: metrics[name] for name in ("tokens", "ended")}
    return found


@pytest.mark.parametrize(("kind", "phase", "of", "output"), AUDITED, ids=IDS)
def test_honest_work_is_borne_out(kind: str, phase: str, of: Audited, output: str) -> None:
    metrics = claimed(of)
    assert recipe(kind).check(phase, of.canonical_json(), reported(of, output, metrics)).accepted
    plan, order = audit_of(kind, phase, of, output)
    found = found_by_an_honest_auditor(order, metrics)
    told = Reported(outputs={}, output_bytes={}, output_files={}, metrics=found)
    assert recipe(kind).check("audit", plan.order_json, told).accepted
    assert recipe(kind).audited(plan.order_json, metrics, found).accepted


@pytest.mark.parametrize(("kind", "phase", "of", "output"), AUDITED, ids=IDS)
def test_an_auditor_who_runs_no_model_has_no_number_to_copy(kind: str, phase: str, of: Audited, output: str) -> None:
    """It says that all is well from the files that it was given, and is not borne out."""
    metrics = claimed(of)
    plan, order = audit_of(kind, phase, of, output)
    if not isinstance(of, GenerateOrder):
        assert output not in plan.inputs, "the numbers that it is to find lie before it"
        copied = {name: 0.5 for row in order.rows for name in names_of(of, row)}
    else:
        assert plan.inputs[output] == "made"
        # log-probabilities stand in the file, so their sums and every share can be written off from it
        copied = found_by_an_honest_auditor(order, metrics)
        assert any(name.startswith("peak.") for name in copied)
        copied |= {f"peak.{row}": 9.0 for row in order.rows}
    told = Reported(outputs={}, output_bytes={}, output_files={}, metrics=copied)
    assert recipe(kind).check("audit", plan.order_json, told).accepted
    finding = recipe(kind).audited(plan.order_json, metrics, copied)
    assert finding.why is not None and finding.why.code == "audit.numbers_differ"


@pytest.mark.parametrize(("kind", "phase", "of", "output"), AUDITED[2:], ids=IDS[2:])
def test_a_file_of_other_numbers_than_were_told_is_refused_before_anybody_reads_it(
    kind: str, phase: str, of: Audited, output: str
) -> None:
    """Also in rows that no audit would have looked at."""
    metrics = claimed(of)
    last = names_of(of, rows_of(of) - 1)[0]
    forged = artifact(of, {**metrics, last: metrics[last] + 0.25})
    finding = recipe(kind).check(phase, of.canonical_json(), reported(of, output, metrics, forged))
    assert finding.why is not None and finding.why.code == "check.other_numbers"
    precise = {**metrics, last: metrics[last] + 1e-12}
    assert recipe(kind).check(phase, of.canonical_json(), reported(of, output, precise)).accepted


def test_the_file_that_numbers_stand_for_is_the_one_that_a_worker_writes(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for count in (1, 7, 512):
        first, second = draw.random((2, count)).astype(np.float32)
        folder = tmp_path / str(count)
        for name in ("scores", "verdicts"):
            (folder / name).mkdir(parents=True)
        write_scores(folder / "scores", first)
        write_verdicts(folder / "verdicts", Verdicts(first=first, second=second))
        scores = columns_id("scores.safetensors", {"scores": first.tolist()})
        assert scores == describe_folder(folder / "scores").id
        verdicts = columns_id("verdicts.safetensors", {"second": second.tolist(), "first": first.tolist()})
        assert verdicts == describe_folder(folder / "verdicts").id
    assert columns_id("scores.safetensors", {"scores": [1e300]}) == ""


@pytest.mark.parametrize(
    ("metric", "value"),
    [("tokens", 1e9), ("tokens", 1.0), ("tokens", 7.0 * 32 + 1), ("ended", 4.0), ("ended", 33.0), ("rows", 31.0)],
)
def test_tokens_that_nobody_drew_are_not_counted(metric: str, value: float) -> None:
    """What lies beyond the order at once, what only differs from the file by the audit."""
    metrics = {**claimed(OF), metric: value}
    light = recipe("generate").check("map", OF.canonical_json(), reported(OF, "answers", metrics))
    plan, order = audit_of("generate", "map", OF, "answers")
    found = found_by_an_honest_auditor(order, claimed(OF))
    assert not (light.accepted and recipe("generate").audited(plan.order_json, metrics, found).accepted)


@pytest.mark.parametrize(("kind", "phase", "of", "output"), AUDITED, ids=IDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused(kind: str, phase: str, of: Audited, output: str, value: float) -> None:
    metrics = claimed(of)
    for name in metrics:
        bad = reported(of, output, {**metrics, name: value}, "ab" * 32)
        assert not recipe(kind).check(phase, of.canonical_json(), bad).accepted, name
    plan, order = audit_of(kind, phase, of, output)
    found = found_by_an_honest_auditor(order, metrics)
    for name in found:
        told = Reported(outputs={}, output_bytes={}, output_files={}, metrics={**found, name: value})
        assert not recipe(kind).check("audit", plan.order_json, told).accepted, name


@pytest.mark.parametrize(("kind", "phase", "of", "output"), AUDITED, ids=IDS)
def test_an_audit_names_no_row_that_the_shard_does_not_have(kind: str, phase: str, of: Audited, output: str) -> None:
    plan, order = audit_of(kind, phase, of, output)
    assert 2 <= len(order.rows) < rows_of(of) and max(order.rows) < rows_of(of)
    assert plan.work_units < 10**6
    other = replace(plan, order_json=json.dumps({**json.loads(plan.order_json), "rows": []}))
    with pytest.raises(ValueError, match="rows"):
        AuditOrder.model_validate_json(other.order_json)
