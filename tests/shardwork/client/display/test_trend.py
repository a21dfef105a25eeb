"""The row of numbers that is shown of a job: whose it is, and whether it is better when it rises."""

from __future__ import annotations

from shardwork.client.display.trend import trend
from shardwork.client.results import JobStatus, Round, Stage


def rounds(*values: float | None, reward: bool = False) -> tuple[Round, ...]:
    return tuple(
        Round(
            number=number,
            kind="learn",
            state="merged",
            eval_loss=None if reward else value,
            measures={"reward": value} if reward and value is not None else {},
        )
        for number, value in enumerate(values)
    )


def job(*stages: tuple[Round, ...]) -> JobStatus:
    made = (
        Stage(name=f"s{at}", recipe="x", state="done", planned_rounds=1, rounds=each) for at, each in enumerate(stages)
    )
    return JobStatus(id="j", name="n", state="running", stages=tuple(made))


def test_a_loss_is_better_when_it_falls_and_of_the_newest_stage_that_has_one() -> None:
    known = trend(job(rounds(9.0, 8.0), rounds(4.0, 3.0), rounds(None)))
    assert known is not None and (known.label, known.values) == ("held-out loss", (4.0, 3.0))
    assert known.is_better and known.change == "−25.0 %"


def test_a_policy_is_told_by_its_reward_which_may_be_below_zero() -> None:
    known = trend(job(rounds(0.7, 0.3), rounds(None, -0.5, 1.25, reward=True)))
    assert known is not None and (known.label, known.values) == ("reward", (-0.5, 1.25))
    assert known.is_better and known.change == "+1.7500"
    fallen = trend(job(rounds(1.0, 0.5, reward=True)))
    assert fallen is not None and not fallen.is_better and fallen.change == "−0.5000"


def test_one_value_has_no_change_and_none_no_trend() -> None:
    one = trend(job(rounds(2.0)))
    assert one is not None and one.change == ""
    assert trend(job(rounds(None), ())) is None
