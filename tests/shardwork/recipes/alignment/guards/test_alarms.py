"""Alarms of a policy: what rings, what does not, and what an older stage without the numbers does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from shardwork.jobs.spec import PlanSection, StageSpec
from shardwork.recipes.alignment.grpo import Grpo
from shardwork.recipes.alignment.judge import Judge
from shardwork.recipes.base import Observation, Observed, RoundKind, StageFacts

FACTS = StageFacts(rows=500, tokens=50_000, run_params=1_000_000, trained_params=70_000)


def stage(**params: Any) -> StageSpec:
    given = StageSpec(
        name="policy",
        recipe="grpo",
        base_model="./base",
        data=["prompts.jsonl"],
        eval_fraction=0.1,
        params={"rewards": {"exact": 1.0}, "answers": 4, "prompts_per_shard": 8, **params},
        plan=PlanSection(rounds=4, shards_per_round=1, inner_steps=2),
    )
    return Grpo().freeze(given, FACTS)


class Rounds:
    """A stage's numbers, phase after phase."""

    def __init__(self, **params: Any) -> None:
        self.stage, self.numbers, self.round = stage(**params), dict[str, float](), 1

    def see(self, phase: str, *metrics: Mapping[str, float]) -> list[str]:
        """Codes of the alarms of a phase that told this."""
        seen = self.observe(phase, metrics)
        self.numbers |= dict(seen.numbers)
        for why in seen.alarms:
            assert why.sentence.endswith(".") and why.next_step.endswith(".")
            assert why.evidence["round"] == str(self.round)
        return [why.code for why in seen.alarms]

    def observe(self, phase: str, metrics: Sequence[Mapping[str, float]]) -> Observation:
        return Grpo().observe(
            Observed(
                stage=self.stage,
                round_number=self.round,
                kind=RoundKind.LEARN,
                phase=phase,
                metrics=metrics,
                numbers=self.numbers,
            )
        )


def answers(rows: int, length: float, ended: float) -> dict[str, float]:
    return {"rows": rows, "tokens": rows * length, "ended": rows * ended}


@pytest.mark.parametrize(
    ("length", "ended", "rings"),
    [
        (19.9, 0.9, []),
        (20.1, 0.9, ["alarm.length"]),
        (5.1, 0.9, []),
        (4.9, 0.9, ["alarm.length"]),
        (10, 0.41, []),
        (10, 0.39, ["alarm.unended"]),
        (30, 0, ["alarm.length", "alarm.unended"]),
    ],
)
def test_answers_that_drift_from_how_they_began(length: float, ended: float, rings: list[str]) -> None:
    rounds = Rounds()
    assert rounds.see("rollout", answers(32, 10, 0.8)) == []
    assert rounds.see("rollout", answers(32, length, ended)) == rings
    # the start stays the start
    assert rounds.see("rollout", answers(32, 10, 0.8)) == []


def test_a_handful_of_answers_says_nothing() -> None:
    rounds = Rounds()
    rounds.see("rollout", answers(32, 10, 1))
    assert rounds.see("rollout", answers(8, 100, 0)) == []
    assert rounds.see("rollout", answers(8, 100, 0), answers(8, 100, 0)) == ["alarm.length", "alarm.unended"]


def test_answers_that_never_ended_can_not_stop_to() -> None:
    rounds = Rounds()
    rounds.see("rollout", answers(32, 10, 0))
    assert rounds.see("rollout", answers(32, 10, 0)) == []


def test_half_of_the_kl_budget_rings_and_without_a_budget_nothing_does() -> None:
    rounds = Rounds(kl_budget=4.0)
    assert rounds.see("learn", {"kl": 1.9}) == []
    assert rounds.see("learn", {"kl": 2.1}) == ["alarm.kl"]
    assert Rounds().see("learn", {"kl": 100.0}) == []


def test_a_policy_that_is_sure_of_everything() -> None:
    rounds = Rounds()
    assert rounds.see("learn", {"entropy": 2.0, "kl": 0.0}) == []
    assert rounds.see("learn", {"entropy": 0.21, "kl": 0.0}) == []
    assert rounds.see("learn", {"entropy": 0.19, "kl": 0.0}) == ["alarm.entropy"]


def test_many_answers_left_out() -> None:
    rounds = Rounds()  # 32 answers a shard
    assert rounds.see("learn", {"left_out": 3.0}, {"left_out": 3.0}) == []
    assert rounds.see("learn", {"left_out": 0.0}, {"left_out": 7.0}) == ["alarm.left_out"]


def graded(learned: float, held_out: float) -> dict[str, float]:
    each = {0: (learned, 0.1, 100), 1: (held_out, 0.1, 100)}
    return {
        f"{name}.{i}": one[at] for i, one in each.items() for at, name in enumerate(("reward", "deviation", "rows"))
    }


def test_gaining_on_what_is_learned_from_while_losing_on_the_rest() -> None:
    rounds = Rounds()
    assert rounds.see("grade", graded(0.5, 0.5)) == []
    assert rounds.see("grade", graded(0.6, 0.6)) == []
    assert rounds.see("grade", graded(0.7, 0.59)) == [], "a fall that chance explains"
    assert rounds.see("grade", graded(0.61, 0.5)) == [], "a rise that chance explains"
    assert rounds.see("grade", graded(0.5, 0.5)) == [], "both fell"
    assert rounds.see("grade", graded(0.7, 0.5)) == ["alarm.overfitting"]


def test_a_stage_that_began_before_alarms_were_known_is_compared_with_what_it_has() -> None:
    rounds = Rounds()
    rounds.numbers |= {"reward_start": 0.4, "best_reward": 0.6, "best_round": 1.0}
    assert rounds.see("grade", graded(0.9, 0.1)) == []
    assert rounds.see("rollout", answers(32, 10, 0.8)) == []
    assert rounds.see("learn", {"entropy": 0.01, "kl": 0.0}) == []


@pytest.mark.parametrize(
    ("told", "codes"),
    [
        ({"pairs": 30, "rows": 0, "flipped": 30, "first_share": 0.9, "unsure": 0}, ["alarm.no_preferences"]),
        ({"pairs": 30, "rows": 0, "flipped": 2, "first_share": 0.5, "unsure": 28}, ["alarm.no_preferences"]),
        ({"pairs": 30, "rows": 12, "flipped": 16, "first_share": 0.7, "unsure": 2}, ["alarm.flipped"]),
        ({"pairs": 30, "rows": 13, "flipped": 15, "first_share": 0.5, "unsure": 2}, []),
    ],
)
def test_a_judge_that_reads_the_order_rings(told: dict[str, float], codes: list[str]) -> None:
    given = StageSpec(name="judged", recipe="judge", base_model="./judge", data=["answers.jsonl"])
    kind = RoundKind.MAP
    seen = Observed(
        stage=Judge().freeze(given, FACTS), round_number=1, kind=kind, phase="join", metrics=[told], numbers={}
    )
    alarms = Judge().observe(seen).alarms
    assert [why.code for why in alarms] == codes
    assert all(f"{told['flipped']:g} of 30 pairs" in why.sentence and why.next_step for why in alarms)
