"""A line for each time of a job's loop, and where it is shown."""

from __future__ import annotations

from typing import Any

import pytest

from shardwork.client.display.iterations import iterations, told
from shardwork.client.results import JobStatus, Report, Round, Stage, WinRate
from shardwork.why import Why

ALARM = Why(code="alarm.reward_hacking", sentence="It <b>loses</b>.")


def stage(name: str, iteration: int, state: str = "done", **more: Any) -> Stage:
    return Stage(name=name, recipe="x", state=state, planned_rounds=1, iteration=iteration, **more)


def policy(iteration: int, start: float, best: float, **more: Any) -> Stage:
    rounds = (
        Round(number=1, kind="learn", state="merged", measures={"kl": 0.5, "length": 9.0}),
        Round(number=2, kind="learn", state="merged", measures={"kl": 1.5}),
    )
    return stage(f"improve-{iteration}", iteration, rounds=rounds, reward_start=start, reward_best=best, **more)


def looped(*stages: Stage) -> JobStatus:
    return JobStatus(id="j", name="loop", state="running", stages=stages)


JOB = looped(
    stage("before", 0, spent_msat=7),
    stage("feedback-1", 1, spent_msat=500),
    policy(1, 0.2, 0.6, spent_msat=1000, win_rate=WinRate(value=0.3, low=0.2, high=0.4), alarms=(ALARM,)),
    stage("feedback-2", 2, spent_msat=400),
    policy(2, 0.5, 0.7),
    stage("feedback-3", 3, "skipped", why=Why(code="stage.gate_shut", sentence="Shut.")),
    stage("improve-3", 3, "skipped"),
)


def test_each_time_of_the_loop_is_a_line() -> None:
    first, second, third = iterations(JOB)
    assert (first.iteration, first.reward_start, first.reward_best, first.kl, first.length) == (1, 0.2, 0.6, 1.5, 9.0)
    assert (first.cost_msat, first.state, first.why) == (1500, "done", ALARM)
    assert first.win_rate == WinRate(value=0.3, low=0.2, high=0.4)
    assert (second.win_rate, second.cost_msat, second.why) == (None, 400, None)
    assert (third.state, third.reward_best, third.cost_msat) == ("skipped", None, 0)
    assert third.why is not None and third.why.code == "stage.gate_shut"
    assert told(first)["win"] == "30% (20% – 40%)"
    assert told(third) == {"reward": "–", "pairs": "–", "kl": "–", "length": "–", "win": "–", "cost": "0 sat"}


def test_a_loop_without_rewards_tells_its_held_out_loss_and_who_tells_pairs_apart() -> None:
    rounds = (
        Round(number=0, kind="setup", state="merged", eval_loss=0.7),
        Round(number=1, kind="learn", state="merged", eval_loss=0.4, measures={"accuracy": 0.75}),
        Round(number=2, kind="learn", state="merged", eval_loss=0.5, measures={"accuracy": 0.875}),
    )
    [only] = iterations(looped(stage("vote-1", 1), stage("dpo-1", 1, rounds=rounds, best_round=1)))
    assert (only.reward_best, only.loss_start, only.loss_best, only.accuracy) == (None, 0.7, 0.4, 0.875)
    assert (told(only)["reward"], told(only)["pairs"]) == ("loss 0.7 → 0.4", "88%")
    # beside a reward it would be the reward model's
    [both] = iterations(looped(stage("reward-1", 1, rounds=rounds, best_round=1), policy(1, 0.2, 0.6)))
    assert (both.loss_start, both.loss_best, both.accuracy) == (None, None, 0.875)


@pytest.mark.parametrize(
    ("states", "whole"),
    [
        ("done running waiting", "running"),
        ("done waiting waiting", "running"),
        ("waiting waiting", "waiting"),
        ("done failed waiting", "failed"),
        ("done cancelled", "cancelled"),
        ("done skipped", "done"),
    ],
)
def test_the_state_of_a_time_is_that_of_its_stages(states: str, whole: str) -> None:
    [only] = iterations(looped(*(stage(f"s{at}-1", 1, state) for at, state in enumerate(states.split()))))
    assert only.state == whole


def test_a_job_without_a_loop_has_none() -> None:
    assert iterations(looped(stage("one-1", 0), stage("two", 0))) == ()
    assert (
        "Iterations" not in Report(status=looped(stage("one", 0)), workers=(), payments=(), payments_left_out=0).html()
    )


def test_the_document_has_a_section_of_them() -> None:
    text = Report(status=JOB, workers=(), payments=(), payments_left_out=0).html()
    for part in ("Iterations", "0.2 → 0.6", "30% (20% – 40%)", "It &lt;b&gt;loses&lt;/b&gt;.", "alarm.reward_hacking"):
        assert part in text
