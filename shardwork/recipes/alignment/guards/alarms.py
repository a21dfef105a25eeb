"""Alarms: what the owner of a policy should look at before its numbers look bad, each as a reason with a next step.

Owns the bounds. None of them stops anything: a budget does (`policy_numbers`). What a measure is compared with is how
the stage began, kept among its numbers. Pure; called by `policy`, `policy_numbers` and `judge`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ....why import Why
from ...base import Observed

#: answers fewer than these say nothing of a mean
LEAST_ROWS = 16
#: mean length over that of the start's answers
LENGTH_ABOVE, LENGTH_BELOW = 2.0, 0.5
#: share of answers that end by themselves, over that of the start
ENDED_BELOW = 0.5
#: of params.kl_budget
KL_ABOVE = 0.5
#: entropy over that of the first round; a policy that repeats itself explores nothing
ENTROPY_BELOW = 0.1
#: share of answers whose log-probabilities were not those of the checkpoint they should come from
LEFT_OUT_ABOVE = 0.1
#: share of pairs in which a judge's two orders disagree: one that draws lots has a half
FLIPPED_ABOVE = 0.5
#: standard errors that a reward must have moved by
SIGMAS = 2.0

Numbers = Mapping[str, float]


def of_answers(seen: Observed, measures: Numbers) -> tuple[list[Why], dict[str, float]]:
    """After answers were drawn: (alarms about their length and their ends, what later rounds are compared with)."""
    if sum(one.get("rows", 0.0) for one in seen.metrics) < LEAST_ROWS or not {"length", "ended"} <= set(measures):
        return [], {}
    length, ended = measures["length"], measures["ended"]
    start = {f"{name}_start": seen.numbers.get(f"{name}_start", measures[name]) for name in ("length", "ended")}
    found: list[Why] = []
    before = start["length_start"]
    if before > 0 and not LENGTH_BELOW <= length / before <= LENGTH_ABOVE:
        found.append(
            Why(
                code="alarm.length",
                sentence=f"Answers of stage {seen.stage.name} are {'longer' if length > before else 'shorter'} by far "
                "than when it began.",
                evidence=_round(seen) | {"before": f"{before:.1f} tokens", "now": f"{length:.1f} tokens"},
                next_step="Read some of its answers. Where length is what pays, a `length` reward, a lower "
                "params.max_new_tokens or a length-controlled judge takes that away.",
            )
        )
    if start["ended_start"] > 0 and ended < ENDED_BELOW * start["ended_start"]:
        found.append(
            Why(
                code="alarm.unended",
                sentence=f"Answers of stage {seen.stage.name} no longer end by themselves.",
                evidence=_round(seen) | {"before": f"{start['ended_start']:.0%}", "now": f"{ended:.0%}"},
                next_step="Set params.unended_penalty, or raise params.max_new_tokens if answers need more room.",
            )
        )
    return found, start


def of_learning(seen: Observed, measures: Numbers) -> tuple[list[Why], dict[str, float]]:
    """After shards learned: KL, entropy, and answers that were not drawn from the checkpoint they name."""
    params = seen.stage.params
    found: list[Why] = []
    kl, budget = measures.get("kl", 0.0), params["kl_budget"]
    if budget is not None and kl > KL_ABOVE * budget:
        found.append(
            Why(
                code="alarm.kl",
                sentence=f"Stage {seen.stage.name} used up half of its KL budget.",
                evidence=_round(seen) | {"kl": f"{kl:.4f}", "budget": f"{budget:g}"},
                next_step="It ends when the budget is used up. A kl_target, a higher kl_coefficient or a lower rate "
                "makes each step smaller.",
            )
        )
    start: dict[str, float] = {}
    if "entropy" in measures:
        before = start["entropy_start"] = seen.numbers.get("entropy_start", measures["entropy"])
        if measures["entropy"] < ENTROPY_BELOW * before:
            found.append(
                Why(
                    code="alarm.entropy",
                    sentence=f"The policy of stage {seen.stage.name} is nearly sure of every token: it finds nothing "
                    "new any more.",
                    evidence=_round(seen)
                    | {"before": f"{before:.4g} nats", "now": f"{measures['entropy']:.4g} nats a token"},
                    next_step="Set params.entropy_coefficient, raise the temperature, or stop here if it is good.",
                )
            )
    share = _left_out(seen, params)
    if share > LEFT_OUT_ABOVE:
        found.append(
            Why(
                code="alarm.left_out",
                sentence=f"Stage {seen.stage.name} left out many answers: they were too long, or not drawn from the "
                "checkpoint that they name.",
                evidence=_round(seen) | {"left_out": f"{share:.0%}"},
                next_step="See `shardwork job logs` for who drew them; precision bf16 drifts more than fp32.",
            )
        )
    return found, start


def of_rewards(seen: Observed, held_out: tuple[float, float], learned: tuple[float, float] | None) -> list[Why]:
    """After rewards came, as (mean, standard error) on held-out prompts and on those learned from: over-fitting, when
    since the best round one fell and the other rose, both by more than chance explains."""
    names = ("best_reward", "best_reward_error", "best_seen", "best_seen_error")
    if learned is None or not set(names) <= set(seen.numbers):
        return []
    best, best_error, then, then_error = (seen.numbers[name] for name in names)
    fell = best - held_out[0] > SIGMAS * math.hypot(best_error, held_out[1])
    rose = learned[0] - then > SIGMAS * math.hypot(then_error, learned[1])
    if not (fell and rose):
        return []
    return [
        Why(
            code="alarm.overfitting",
            sentence=f"Stage {seen.stage.name} gains on the prompts it learns from and loses on held-out ones.",
            evidence=_round(seen)
            | {
                "learned_from": f"{then:.4f} to {learned[0]:.4f}",
                "held_out": f"{best:.4f} to {held_out[0]:.4f}",
            },
            next_step="Its best checkpoint is kept. Add prompts, set params.patience, or raise kl_coefficient.",
        )
    ]


def of_verdicts(seen: Observed, told: Numbers) -> list[Why]:
    """After a judge spoke: it likes what stands first or second more than what it reads, or nothing was left."""
    pairs, rows, flipped = (int(told.get(name, 0)) for name in ("pairs", "rows", "flipped"))
    if rows and flipped <= FLIPPED_ABOVE * pairs:
        return []
    return [
        Why(
            code="alarm.no_preferences" if not rows else "alarm.flipped",
            sentence=f"The judge of stage {seen.stage.name} named another answer when the order was changed, in "
            f"{flipped} of {pairs} pairs; {rows} preferences are left.",
            evidence={"first_share": f"{told.get('first_share', 0.0):.0%}", "unsure": f"{told.get('unsure', 0.0):g}"},
            next_step="Take a better judge, say in params.rubric what counts, or lower params.least_confidence where "
            "many are unsure.",
        )
    ]


def _left_out(seen: Observed, params: Mapping[str, Any]) -> float:
    each: Sequence[float] = [one["left_out"] for one in seen.metrics if "left_out" in one]
    rows = params["prompts_per_shard"] * params["answers"] * len(each)
    return sum(each) / rows if rows else 0.0


def _round(seen: Observed) -> dict[str, str]:
    return {"round": str(seen.round_number)}
