"""A judge that made answers it is to judge is refused when the job is proposed, unless the job says it is meant."""

from __future__ import annotations

from typing import Any

import pytest

from shardwork.errors import InvalidInput
from shardwork.jobs.selfjudging import as_uploaded, refuse_self_judging
from shardwork.jobs.spec import BudgetSection, JobSpec, StageSpec, TrustSection
from shardwork_coordinator.rpc.proposal import parse_spec

ANSWER = StageSpec(
    name="answer", recipe="generate", base_model="./tuned", models={"other": "./other"}, data=["prompts.jsonl"]
)


def judge(base_model: str, data: str = "answer.rows", **params: Any) -> StageSpec:
    return StageSpec(name="judged", recipe="judge", base_model=base_model, data=[data], params=params)


def job(*stages: StageSpec) -> JobSpec:
    return JobSpec(
        name="a",
        stages=list(stages),
        trust=TrustSection.model_validate({"class": "public"}),
        budget=BudgetSection(max_sats=9),
    )


def proposed(*stages: StageSpec) -> JobSpec:
    return parse_spec(job(*stages).canonical_json())


@pytest.mark.parametrize("model", ["./tuned", "tuned", "./a/../tuned", "./other"])
def test_a_model_does_not_judge_its_own_answers(model: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        proposed(ANSWER, judge(model))
    why = caught.value.why
    assert why.code == "judge.judges_itself"
    assert why.evidence["key"] == "base_model" and why.evidence["stage"] == "judged"
    assert "params.judges_itself" in why.next_step


def test_unless_the_job_says_so() -> None:
    assert proposed(ANSWER, judge("./tuned", judges_itself=True)).stages[1].name == "judged"


def test_another_model_judges() -> None:
    assert proposed(ANSWER, judge("./judge")).stages[1].base_model == "./judge"


def test_answers_that_people_looked_through_are_still_the_models() -> None:
    seen = StageSpec(
        name="seen", recipe="people", data=["answer.rows"], params={"kind": "review", "title": "t", "pay_sats": 1}
    )
    with pytest.raises(InvalidInput, match="'answer'"):
        proposed(ANSWER, seen, judge("./tuned", "seen.rows"))


def test_what_a_stage_taught_is_known_by_its_reference() -> None:
    tune = StageSpec(name="tune", recipe="sft", base_model="./b", data=["a.jsonl"], params={"publish": "merged"})
    answer = ANSWER.model_copy(update={"base_model": "tune.model"})
    with pytest.raises(InvalidInput, match="'answer'"):
        proposed(tune, answer, judge("tune.model"))


def test_two_folders_with_one_content_are_one_model() -> None:
    inputs = {"answer.base_model": "aa", "answer.models.other": "bb", "judged.base_model": "bb"}
    refuse_self_judging(job(ANSWER, judge("./copy")))
    with pytest.raises(InvalidInput, match="'answer'"):
        refuse_self_judging(job(ANSWER, judge("./copy")), as_uploaded(inputs))


def test_a_judge_of_files_is_not_asked_where_they_come_from() -> None:
    assert proposed(judge("./tuned", "answers.jsonl")).stages[0].name == "judged"
