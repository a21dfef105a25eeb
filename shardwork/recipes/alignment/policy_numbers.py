"""What a policy's rounds measured, and what follows: the best checkpoint, the price of KL, when it is enough.

The reward of a round is that of the checkpoint it began with. Where a `kl_budget` is set, the best is one of those that
are known to be within it, by what a policy is to raise: its reward less the price of its KL (Ziegler et al., arXiv
1909.08593, eq. 2). Pure; called by `policy`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ...jobs.spec import holds_out
from ...why import Why
from ..base import Observation, Observed, RoundKind
from .generate import drawn
from .guards import alarms

#: Ziegler et al., arXiv 1909.08593, 2.2: the error counts at most this much, either way
MOST_ERROR = 0.2
#: means over shards of what a learn phase reports, by the name that is shown
LEARNED = ("kl", "entropy", "clip_fraction", "value_loss", "explained_variance", "left_out", "length")


def observe_drawn(seen: Observed) -> Observation:
    """After answers were drawn: how long they are, and how many ended by themselves."""
    measures = drawn(seen.metrics)
    rang, numbers = alarms.of_answers(seen, measures)
    return Observation(measures=measures, numbers=numbers, alarms=tuple(rang))


def observe_reward(seen: Observed) -> Observation:
    """After rollouts were scored: the reward, and whether its checkpoint is the best so far."""
    rewards = _rewards(seen)
    if not rewards:
        return Observation()
    mean, error = _trial(rewards) if holds_out(seen.stage) else _pooled(rewards)
    measures = {"reward": mean, "reward_error": error}
    learned = _pooled(rewards[:-1]) if holds_out(seen.stage) and len(rewards) > 1 else None
    if learned is not None:
        measures["reward_seen"] = learned[0]
    rang = tuple(alarms.of_rewards(seen, (mean, error), learned))
    numbers = {"is_measured": 1.0, "reward": mean, "reward_error": error}
    numbers["reward_start"] = seen.numbers.get("reward_start", mean)
    if learned is not None:
        numbers |= {"reward_seen": learned[0], "reward_seen_error": learned[1]}
    rose = mean > seen.numbers.get("best_reward", -math.inf)
    found = Observation(numbers=numbers, measures=measures, alarms=() if rose else rang)
    # how far this checkpoint went is told by those who learn from its answers; the last one's nobody knows
    return found if seen.stage.params["kl_budget"] is not None else _compared(seen, found)


def _compared(seen: Observed, found: Observation) -> Observation:
    """With the checkpoint compared with the best so far: it is the best, or the round waited in vain."""
    told = {**seen.numbers, **found.numbers}
    mean, best, price = told["reward"], seen.numbers.get("best_reward"), _price(seen, found)
    if best is None or mean - price > best - seen.numbers.get("best_price", 0.0):
        numbers = {"best_reward": mean, "best_round": float(seen.round_number - 1), "rounds_without_best": 0.0}
        numbers |= {"best_reward_error": told["reward_error"], "best_price": price}
        if "reward_seen" in told:
            numbers |= {"best_seen": told["reward_seen"], "best_seen_error": told["reward_seen_error"]}
        return replace(found, numbers={**found.numbers, **numbers}, is_best=True)
    waited = seen.numbers.get("rounds_without_best", 0.0) + 1
    numbers = {**found.numbers, "rounds_without_best": waited}
    patience = seen.stage.params.get("patience")
    if patience is None or waited < patience or seen.kind is not RoundKind.LEARN:
        return replace(found, numbers=numbers)
    stop = Why(
        code="policy.no_gain",
        sentence=f"Stage {seen.stage.name} ends early: its reward did not rise for {int(waited)} rounds.",
        evidence={"reward": f"{mean:.4f}", "best": f"{best:.4f}", "patience": str(patience)},
    )
    return replace(found, numbers={**numbers, "last_round": float(seen.round_number)}, stop=stop)


def _price(seen: Observed, found: Observation) -> float:
    """Of the way from the reference, as the job prices it; 0 where nobody knows how far it is."""
    coefficient: float = seen.stage.params["kl_coefficient"]
    return coefficient * found.numbers.get("kl", 0.0)


def observe_learn(seen: Observed) -> Observation:
    """After the shards learned: how far the policy went, and what going further costs from now on."""
    measures = {name: _mean(seen.metrics, name) for name in LEARNED if any(name in one for one in seen.metrics)}
    kl, params = measures.get("kl"), seen.stage.params
    found, numbers = alarms.of_learning(seen, measures)
    rang = tuple(found)
    if kl is None or not math.isfinite(kl):
        return Observation(numbers=numbers, measures=measures, alarms=rang)
    numbers["kl"] = kl
    if params["kl_target"] is not None:
        before = seen.numbers.get("kl_coefficient", params["kl_coefficient"])
        error = min(max(kl / params["kl_target"] - 1, -MOST_ERROR), MOST_ERROR)
        numbers["kl_coefficient"] = measures["kl_coefficient"] = before * (1 + error)
    budget, learning = params["kl_budget"], Observation(numbers=numbers, measures=measures, alarms=rang)
    if budget is None:
        return learning
    if kl <= budget:
        return _compared(seen, learning) if "reward" in seen.numbers else learning
    stop = Why(
        code="policy.kl_budget",
        sentence=f"Stage {seen.stage.name} ends early: its policy went as far from its reference as it may.",
        evidence={"kl": f"{kl:.4f}", "budget": f"{budget:g}"},
        next_step="Nothing to do: the best checkpoint within it is published. A higher params.kl_budget lets it go "
        "further.",
    )
    numbers["last_round"] = float(seen.round_number)
    return Observation(numbers=numbers, measures=measures, stop=stop, alarms=rang)


def _rewards(seen: Observed) -> list[tuple[float, float, int]]:
    """(mean, deviation, rows) of each rollout in order, the trial last."""
    if seen.phase == "grade":
        told = seen.metrics[0]
        numbers = sorted(int(name.partition(".")[2]) for name in told if name.startswith("reward."))
        return [(told[f"reward.{i}"], told.get(f"deviation.{i}", 0.0), int(told.get(f"rows.{i}", 1))) for i in numbers]
    found: list[tuple[float, float, int]] = []
    for one in seen.metrics:
        values = [value for name, value in one.items() if name.startswith("score.")]
        mean = sum(values) / len(values)
        found.append((mean, math.sqrt(sum((value - mean) ** 2 for value in values) / len(values)), len(values)))
    return found


def _trial(rewards: Sequence[tuple[float, float, int]]) -> tuple[float, float]:
    mean, deviation, rows = rewards[-1]
    return mean, deviation / math.sqrt(max(rows, 1))


def _pooled(rewards: Sequence[tuple[float, float, int]]) -> tuple[float, float]:
    total = sum(rows for _, _, rows in rewards)
    mean = sum(one * rows for one, _, rows in rewards) / total
    spread = sum(rows * (deviation**2 + (one - mean) ** 2) for one, deviation, rows in rewards) / total
    return mean, math.sqrt(spread / total)


def _mean(metrics: Sequence[Mapping[str, float]], name: str) -> float:
    values = [one[name] for one in metrics if name in one]
    return sum(values) / len(values)
