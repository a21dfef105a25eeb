"""Votes between versions: whose win rate it is, and when a reward that rose is an alarm."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from shardwork.jobs.spec import BudgetSection, JobSpec, RepeatSection, RunIf, StageSpec, TrustSection
from shardwork_coordinator.machine.gates import why_skipped
from shardwork_coordinator.machine.observing import alarms_of
from shardwork_coordinator.machine.versions import WIN_RATE, compared
from shardwork_coordinator.records import Stage, StageState


def answer(time: int, base: str, **models: str) -> StageSpec:
    params = {"label": "policy"}
    return StageSpec(
        name=f"answer-{time}", recipe="generate", base_model=base, data=["p.jsonl"], params=params, models=models
    )


def job() -> JobSpec:
    """Twice [answer, feedback, improve]; the second time answers of the first version and of the start are compared,
    and at the end those of both versions and the start, by a judge and by people."""
    times = [
        spec
        for time, base in ((1, "./base"), (2, "improve-1.model"))
        for spec in (
            answer(time, base, **({"start": "./base"} if time > 1 else {})),
            StageSpec(name=f"feedback-{time}", recipe="people", data=[f"answer-{time}.rows"]),
            StageSpec(name=f"improve-{time}", recipe="ppo", base_model=base, data=["p.jsonl"], eval_fraction=0.1),
        )
    ]
    last = answer(9, "improve.model", before="improve-1.model", start="./base").model_copy(update={"name": "last"})
    return JobSpec(
        name="loop",
        stages=[
            *times,
            last,
            StageSpec(name="asked", recipe="people", data=["last.rows"]),
            StageSpec(name="blend", recipe="consensus", data=["asked.votes"]),
        ],
        repeat=RepeatSection(stages=["answer", "feedback", "improve"], times=2),
        trust=TrustSection(data_class="public"),
        budget=BudgetSection(max_sats=1000),
    )


def stages(until: str, **numbers: dict[str, float]) -> list[Stage]:
    """Those of the job, done up to one of them."""
    specs = job().stages
    last = [spec.name for spec in specs].index(until)
    return [
        Stage(
            job_id="j",
            name=spec.name,
            position=position,
            recipe=spec.recipe,
            state=StageState.DONE if position <= last else StageState.WAITING,
            planned_rounds=1,
            spec_json=spec.model_dump_json(),
            numbers_json=json.dumps(numbers.get(spec.name.replace("-", "_"), {})),
        )
        for position, spec in enumerate(specs)
    ]


def wins(a: str, b: str, value: float, half: float = 0.1) -> dict[str, float]:
    return {f"win.{a}.{b}": value, f"win_low.{a}.{b}": value - half, f"win_high.{a}.{b}": value + half}


ROSE = {"reward_start": 0.2, "best_reward": 0.6}


def rows(found: list[Stage]) -> dict[str, Any]:
    change = compared(found, job())
    return {
        row.name: ([json.loads(row.numbers_json)[name] for name in WIN_RATE], [why.code for why in alarms_of(row)])
        for row in change.rows
        if isinstance(row, Stage)
    }


@pytest.mark.parametrize(
    ("value", "rings"), [(0.7, []), (0.45, []), (0.41, []), (0.39, ["alarm.reward_hacking"])], ids=str
)
def test_votes_of_the_second_time_are_about_the_first_version(value: float, rings: list[str]) -> None:
    found = stages("feedback-2", feedback_2=wins("policy", "start", value), improve_1=ROSE)
    assert rows(found) == {"improve-1": (pytest.approx([value, value - 0.1, value + 0.1]), rings)}


def test_the_rate_is_the_later_versions_whichever_label_comes_first() -> None:
    votes = wins("before", "policy", 0.9)
    found = stages("asked", asked=votes, improve_2=ROSE)
    assert rows(found) == {"improve-2": (pytest.approx([0.1, 0.0, 0.2]), ["alarm.reward_hacking"])}


def test_a_blend_of_votes_is_about_the_same_answers() -> None:
    found = stages("blend", blend=wins("before", "policy", 0.9), improve_2=ROSE)
    assert set(rows(found)) == {"improve-2"}


def test_of_several_the_version_just_before_counts() -> None:
    votes = wins("before", "policy", 0.3) | wins("policy", "start", 0.2) | wins("before", "start", 0.6)
    found = rows(stages("asked", asked=votes, improve_1=ROSE, improve_2=ROSE))
    assert found["improve-2"] == (pytest.approx([0.7, 0.6, 0.8]), [])
    assert found["improve-1"] == (pytest.approx([0.6, 0.5, 0.7]), [])


def test_losing_without_a_reward_that_rose_is_no_hacking() -> None:
    fell = {"reward_start": 0.6, "best_reward": 0.6}
    assert rows(stages("feedback-2", feedback_2=wins("policy", "start", 0.1), improve_1=fell))["improve-1"][1] == []
    assert rows(stages("feedback-2", feedback_2=wins("policy", "start", 0.1)))["improve-1"][1] == []


def test_an_alarm_is_told_once_whatever_else_ends() -> None:
    found = stages("feedback-2", feedback_2=wins("policy", "start", 0.1), improve_1=ROSE)
    change = compared(found, job())
    assert [note.kind for note in change.notes] == ["stage.alarm"]
    assert change.notes[0].evidence["votes_of"] == "feedback-2"
    [rung] = [row for row in change.rows if isinstance(row, Stage)]
    again = compared([rung if one.name == rung.name else one for one in found], job())
    assert not again.rows and not again.notes


@pytest.mark.parametrize("until", ["answer-1", "feedback-1", "improve-2", "last"])
def test_where_no_votes_compare_versions_nothing_is_said(until: str) -> None:
    found = stages(until, improve_1=ROSE, feedback_1=wins("policy", "start", 0.1))
    assert not rows(found)


def test_labels_of_an_uploaded_file_are_of_no_version() -> None:
    found = stages("feedback-2", feedback_2=wins("policy", "start", 0.1), improve_1=ROSE)
    at = next(number for number, one in enumerate(found) if one.name == "feedback-2")
    uploaded = StageSpec(name="feedback-2", recipe="people", data=["rows.jsonl"])
    found[at] = replace(found[at], spec_json=uploaded.model_dump_json())
    assert not rows(found)


def gate(**more: Any) -> RunIf:
    return RunIf(stage="improve-1", improved_by=0.0, **more)


def test_a_loop_may_end_when_the_alarm_rang() -> None:
    found = stages("feedback-2", feedback_2=wins("policy", "start", 0.1), improve_1=ROSE)
    [rung] = [row for row in compared(found, job()).rows if isinstance(row, Stage)]
    earlier = [rung if one.name == rung.name else one for one in found[:5]]
    spec = job().stages[5].model_copy(update={"run_if": gate(no_alarm=True)})
    why = why_skipped(spec, job(), earlier)
    assert why is not None and why.code == "stage.gate_alarm"
    assert why_skipped(spec, job(), found[:5]) is None, "nothing rang"
    assert why_skipped(spec.model_copy(update={"run_if": gate()}), job(), earlier) is None


def test_a_gate_that_does_not_ask_for_it_is_written_as_before() -> None:
    assert "no_alarm" not in gate().model_dump_json()
    assert gate(no_alarm=True).model_dump()["no_alarm"] is True
