"""Iterations: what each time of a job's loop brought: reward, KL, length, win rate and cost. Pure.

The reward and what goes with it are of the last stage of the iteration that measured one, or else its held-out loss;
the win rate may be known only when a later stage's votes came. Used by `job report`, the document and the dashboard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ... import money
from ...why import Why
from ..results import JobStatus, Stage, WinRate

#: of the states of an iteration's stages, the one that says most of it
_FIRST = ("failed", "cancelled", "running", "waiting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    iteration: int
    reward_start: float | None
    reward_best: float | None
    #: on held-out rows, where no stage of it has a reward
    loss_start: float | None
    loss_best: float | None
    #: of held-out pairs, told right by the last stage that learned from pairs
    accuracy: float | None
    #: nats an answer
    kl: float | None
    #: tokens of an answer
    length: float | None
    win_rate: WinRate | None
    cost_msat: int
    #: failed, cancelled, running, waiting, skipped, done
    state: str
    #: why it was skipped or ended early, or the first alarm of it
    why: Why | None


def iterations(job: JobStatus) -> tuple[Iteration, ...]:
    """In order; none of a job without a loop, or from an older coordinator."""
    numbers = sorted({stage.iteration for stage in job.stages if stage.iteration})
    return tuple(_iteration(number, [one for one in job.stages if one.iteration == number]) for number in numbers)


def _iteration(number: int, stages: Sequence[Stage]) -> Iteration:
    policy = next((one for one in reversed(stages) if one.reward_best is not None), None)
    learner = None if policy else next((one for one in reversed(stages) if _losses(one)), None)
    losses = _losses(learner) if learner else {}
    reasons = [stage.why for stage in stages if stage.why is not None]
    reasons += [why for stage in stages for why in stage.alarms]
    return Iteration(
        iteration=number,
        reward_start=policy.reward_start if policy else None,
        reward_best=policy.reward_best if policy else None,
        loss_start=losses.get(0),
        loss_best=losses.get(learner.best_round) if learner and learner.best_round else None,
        accuracy=next((value for one in reversed(stages) if (value := _last(one, "accuracy")) is not None), None),
        kl=_last(policy or learner, "kl"),
        length=_last(policy or learner, "length"),
        win_rate=next((one.win_rate for one in reversed(stages) if one.win_rate is not None), None),
        cost_msat=sum(stage.spent_msat for stage in stages),
        state=_state([stage.state for stage in stages]),
        why=reasons[0] if reasons else None,
    )


def _losses(stage: Stage) -> dict[int, float]:
    """On held-out rows, by round; of round 0, before it learned."""
    return {each.number: each.eval_loss for each in stage.rounds if each.eval_loss is not None}


def _last(stage: Stage | None, measure: str) -> float | None:
    told = [each.measures[measure] for each in (stage.rounds if stage else ()) if measure in each.measures]
    return told[-1] if told else None


def _state(states: Sequence[str]) -> str:
    if all(state == "skipped" for state in states):
        return "skipped"
    if "waiting" in states and "done" in states and "running" not in states:
        # between two of its stages, or paused there
        return next((state for state in _FIRST[:2] if state in states), "running")
    return next((state for state in _FIRST if state in states), "done")


def told(each: Iteration) -> dict[str, str]:
    """The figures of a row as they are shown."""
    reward = "–"
    if each.reward_start is not None and each.reward_best is not None:
        reward = f"{each.reward_start:.4g} → {each.reward_best:.4g}"
    elif each.loss_start is not None:
        best = "–" if each.loss_best is None else f"{each.loss_best:.4g}"
        reward = f"loss {each.loss_start:.4g} → {best}"
    rate = each.win_rate
    return {
        "reward": reward,
        "kl": "–" if each.kl is None else f"{each.kl:.3g}",
        "length": "–" if each.length is None else f"{each.length:.1f}",
        "pairs": "–" if each.accuracy is None else f"{each.accuracy:.0%}",
        "win": "–" if rate is None else f"{rate.value:.0%} ({rate.low:.0%} – {rate.high:.0%})",
        "cost": money.show(each.cost_msat),
    }
