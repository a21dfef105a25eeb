"""Iterations: a job's loop time by time: reward, KL, length, win rate and cost of each, and why one was skipped.

Read from the stages `name-1`, `name-2` … (`shardwork.jobs.loop`) and what they measured. Called by `job`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardwork.jobs.spec import JobSpec
from shardwork.why import Why

from ....records import Job, Round, Stage, StageState
from .reports import Known

#: win rates of one time that are told
MOST_RATES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A stage of one time."""

    name: str
    state: str
    why: Why | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    number: int
    parts: Sequence[Part]
    #: at its start, and the best of it: of the reward, or else of held-out loss
    what: str
    start: float | None
    best: float | None
    kl: float | None
    length: float | None
    #: of pairs, by its reward model
    accuracy: float | None
    #: "B over A 62 % (54 to 70 %)"
    win_rates: Sequence[str]
    cost_msat: int

    @property
    def state(self) -> str:
        """Of its stages, the one that says most."""
        states = [one.state for one in self.parts]
        return next(
            (name for name in ("failed", "cancelled", "running", "skipped", "waiting") if name in states), "done"
        )


def iterations(job: Job, stages: Sequence[Stage], rounds: Sequence[Round], reports: Known) -> list[Iteration]:
    """Empty for a job without a loop."""
    spec = JobSpec.model_validate_json(job.spec_json) if len(job.spec_json) > 2 else None
    if spec is None or spec.repeat is None:
        return []
    by_name, found = {one.name: one for one in stages}, list[Iteration]()
    for number in range(1, spec.repeat.times + 1):
        mine = [by_name[name] for plain in spec.repeat.stages if (name := f"{plain}-{number}") in by_name]
        if mine:
            found.append(_iteration(number, mine, rounds, reports))
    return found


def _iteration(number: int, stages: Sequence[Stage], rounds: Sequence[Round], reports: Known) -> Iteration:
    names = {one.name for one in stages}
    mine = [one for one in rounds if one.stage in names]
    measures: dict[str, float] = {}
    for one in sorted(mine, key=lambda one: (one.started_ms, one.number)):
        measures |= json.loads(one.measures_json)
    what, start, best = _gain(stages)
    return Iteration(
        number=number,
        parts=[_part(one) for one in stages],
        what=what,
        start=start,
        best=best,
        kl=measures.get("kl"),
        length=measures.get("length"),
        accuracy=measures.get("accuracy"),
        win_rates=[rate for one in stages for rate in _rates(reports.get(one.name, {}))][:MOST_RATES],
        cost_msat=sum(one.paid_msat + one.fees_msat for one in mine),
    )


def _gain(stages: Sequence[Stage]) -> tuple[str, float | None, float | None]:
    for what, first, best in (
        ("reward", "reward_start", "best_reward"),
        ("held-out loss", "eval_loss_start", "best_loss"),
    ):
        for stage in reversed(stages):
            numbers: Mapping[str, float] = json.loads(stage.numbers_json)
            if first in numbers:
                return what, numbers[first], numbers.get(best)
    return "", None, None


def _part(stage: Stage) -> Part:
    # of a stage that is done, why it ended early is told among the stages
    told = stage.state is StageState.SKIPPED and stage.why_json
    return Part(name=stage.name, state=str(stage.state), why=Why.from_json(stage.why_json) if told else None)


def _rates(report: Mapping[str, Any]) -> list[str]:
    return [
        f"{one['model']} over {one['against']} {100 * one['rate']:.0f} % ({100 * one['low']:.0f} to "
        f"{100 * one['high']:.0f} %)"
        for one in report.get("win_rates", ())
    ]
