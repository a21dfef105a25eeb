"""What a job file already says of stages that feed others: enough answers to compare, and a side that counts."""

from __future__ import annotations

from typing import Any

import pytest

from shardwork.errors import InvalidInput
from shardwork.jobs.spec import BudgetSection, JobSpec, StageSpec, TrustSection
from shardwork.jobs.upstream import refuse_too_little

ASK: dict[str, Any] = {"title": "Which is better", "pay_sats": 1, "items": 5}


def stage(name: str, recipe: str, data: str, /, models: int = 1, **params: Any) -> StageSpec:
    """`data`: with commas between several; `models`: how many answer."""
    others = {f"m{number}": f"./m{number}" for number in range(1, models)}
    return StageSpec(name=name, recipe=recipe, data=[*data.split(",")], params=params, models=others)


def job(*stages: StageSpec) -> JobSpec:
    return JobSpec(
        name="fed",
        stages=list(stages),
        trust=TrustSection(data_class="public"),
        budget=BudgetSection(max_sats=10),
    )


def refusal(*stages: StageSpec) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        refuse_too_little(job(*stages))
    return caught.value


RANKED: dict[str, Any] = {**ASK, "kind": "rank", "answers": 4}
FEW: dict[str, tuple[dict[str, Any], StageSpec, str]] = {
    "one for a judge": ({"answers": 1}, stage("r", "judge", "answer.rows"), "2 answers to a prompt, and stage 'answ"),
    "one for people": ({"answers": 1}, stage("r", "people", "answer.rows", **ASK), "stage 'answer' makes 1."),
    "two to rank as four": ({}, stage("r", "people", "answer.rows", **RANKED), "compares 4 answers to a prompt"),
    "eight that are one": (
        {"answers": 8, "temperature": 0},
        stage("r", "judge", "answer.rows"),
        "stage 'answer' makes 1 that differ.",
    ),
}


@pytest.mark.parametrize("name", FEW)
def test_too_few_answers_are_refused_where_they_are_made(name: str) -> None:
    made, reader, sentence = FEW[name]
    error = refusal(stage("answer", "generate", "p.jsonl", **made), reader)
    assert error.code == "job.few_answers"
    assert sentence in error.why.sentence
    assert (error.why.evidence["stage"], error.why.evidence["key"]) == ("answer", "params.answers")
    assert "params.answers" in error.why.next_step and "models" in error.why.next_step


ONE = stage("answer", "generate", "p.jsonl", answers=1, temperature=0)
TAKEN = {
    "one answer of each of two models": (
        stage("answer", "generate", "p.jsonl", models=2, answers=1, temperature=0),
        stage("judged", "judge", "answer.rows"),
    ),
    "single answers to look through": (ONE, stage("looked", "people", "answer.rows", **ASK, kind="review")),
    "rows of a file": (stage("judged", "judge", "rows.jsonl"),),
    "one of two sides left out": (
        stage("asked", "people", "rows.jsonl", **ASK),
        stage("judged", "judge", "rows.jsonl"),
        stage("agreed", "consensus", "asked.votes,judged.votes", weights={"people": 0.0, "judge": 1.0}),
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_may_be_enough_is_taken(name: str) -> None:
    spec = job(*TAKEN[name])
    refuse_too_little(spec)
    assert [one.name for one in spec.stages] == [one.name for one in TAKEN[name]]


@pytest.mark.parametrize("side", ["people", "judge"])
def test_a_blend_of_one_side_that_has_no_weight_is_refused(side: str) -> None:
    weights = {"people": 1.0, "judge": 1.0, side: 0.0}
    source = stage("asked", side, "rows.jsonl", **(ASK if side == "people" else {}))
    blend = stage("agreed", "consensus", "asked.votes", weights=weights, conflict="weighted")
    error = refusal(source, blend)
    assert error.code == "blend.nobody_counts"
    assert f"votes of {side} alone" in error.why.sentence
    assert (error.why.evidence["stage"], error.why.evidence["key"]) == ("agreed", "params.weights")
