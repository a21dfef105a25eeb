"""Which checkpoint of a policy is the best: by its reward, and with a budget only where its KL is known to be in it."""

from __future__ import annotations

import pytest

from shardwork.recipes.base import Observation

from .guards.test_alarms import Rounds


def round_of(rounds: Rounds, reward: float, kl: float) -> tuple[bool, Observation]:
    """Whether this round's checkpoint, with such answers, is the best; and what its learning told."""
    rollouts = [{"reward.0": reward, "rows.0": 32.0, "deviation.0": 0.4, "reward.1": reward, "rows.1": 96.0}]
    scored = rounds.observe("grade", rollouts)
    rounds.numbers |= dict(scored.numbers)
    learned = rounds.observe("learn", [{"kl": kl, "entropy": 1.0}])
    rounds.numbers |= dict(learned.numbers)
    rounds.round += 1
    return scored.is_best or learned.is_best, learned


def test_without_a_budget_the_best_reward_is_the_best() -> None:
    rounds = Rounds()
    assert [round_of(rounds, reward, 20.0 * reward)[0] for reward in (0.2, 0.5, 0.4, 0.9)] == [True, True, False, True]
    assert (rounds.numbers["best_reward"], rounds.numbers["best_round"]) == (0.9, 3.0)
    assert rounds.numbers["reward_start"] == 0.2


def test_a_checkpoint_beyond_the_budget_is_never_the_best_whatever_its_reward() -> None:
    rounds = Rounds(kl_budget=5.0)
    found = [round_of(rounds, reward, kl) for reward, kl in ((0.2, 0.0), (0.5, 2.0), (0.9, 12.0))]
    assert [best for best, _ in found] == [True, True, False]
    stop = found[-1][1].stop
    assert stop is not None and stop.code == "policy.kl_budget" and stop.evidence["kl"] == "12.0000"
    assert (rounds.numbers["best_reward"], rounds.numbers["best_round"]) == (0.5, 1.0)
    assert rounds.numbers["best_seen"] == 0.5
    assert rounds.numbers["last_round"] == 3.0


def test_within_the_budget_a_little_more_reward_does_not_pay_for_a_long_way() -> None:
    rounds = Rounds(kl_budget=5.0, kl_coefficient=0.02)
    # 0.60 less 0.085 is below 0.57 less 0.012, and 0.7 less 0.09 above it
    told = ((0.05, 0.0), (0.57, 0.6), (0.60, 4.25), (0.7, 4.5))
    assert [round_of(rounds, reward, kl)[0] for reward, kl in told] == [True, True, False, True]


def test_what_was_never_measured_is_not_published_under_a_budget() -> None:
    """The last checkpoint is answered with once more, but nobody learns from it: its KL is unknown."""
    rounds = Rounds(kl_budget=5.0)
    round_of(rounds, 0.2, 0.0)
    last = rounds.observe("grade", [{"reward.0": 0.9, "rows.0": 96.0}])
    assert not last.is_best and last.measures["reward"] == 0.9
    assert round_of(rounds, 0.9, float("nan"))[0] is False


@pytest.mark.parametrize("budget", [None, 50.0])
def test_patience_counts_rounds_that_were_not_better(budget: float | None) -> None:
    rounds = Rounds(kl_budget=budget, patience=2)
    rollouts = [{"reward.0": 0.5, "rows.0": 32.0, "reward.1": 0.5, "rows.1": 96.0}]
    codes: list[str] = []
    for _ in range(3):
        for phase, told in (("grade", rollouts), ("learn", [{"kl": 1.0}])):
            found = rounds.observe(phase, told)
            rounds.numbers |= dict(found.numbers)
            codes += [found.stop.code] if found.stop else []
        rounds.round += 1
    assert codes == ["policy.no_gain"] and rounds.numbers["last_round"] == 3.0
