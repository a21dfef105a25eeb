"""Versions: what votes say of the policies that a job's stages made, and whether a reward rose while they got worse.

When a stage of votes ends, whose answers were compared is known from the stage that drew them: each label is a model of
an earlier stage, or what the job began with. The later policy keeps its win rate among its numbers; where it loses for
certain although its reward rose, that is an alarm (Gao et al., arXiv 2210.10760, call it overoptimisation). Pure;
called by `engine` between two stages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from shardwork.feedback.intervals import Share
from shardwork.jobs.spec import STAGE_OUTPUT, JobSpec, StageSpec
from shardwork.recipes.alignment.guards.wins import win_of, wins_among
from shardwork.why import Why

from ..events import Change
from ..records import Stage, StageState
from .observing import rung

#: kinds whose model is a version of a policy
POLICIES = frozenset({"ppo", "grpo", "dpo"})
REWARD_HACKING = "alarm.reward_hacking"
#: of the numbers of a policy's stage
WIN_RATE = ("win_rate", "win_rate_low", "win_rate_high")


def compared(stages: Sequence[Stage], job: JobSpec) -> Change:
    """The stages that the votes of the one that just ended say something new of; all in the order of the job."""
    ended = [stage for stage in stages if stage.state is StageState.DONE][-1:]
    change = Change()
    if not ended or not wins_among(json.loads(ended[0].numbers_json)):
        return change
    known = {called: stage for stage in stages if stage.position < ended[0].position for called in _names(stage, job)}
    models = _models(ended[0], known)
    for stage, against, rate in _newer(json.loads(ended[0].numbers_json), models, known):
        numbers = json.loads(stage.numbers_json) | dict(zip(WIN_RATE, (rate.value, rate.low, rate.high), strict=True))
        row = replace(stage, numbers_json=json.dumps(numbers, sort_keys=True))
        why = _hacked(row, against, rate, ended[0])
        row = rung(row, [why] if why is not None else [], change)
        if row != stage:
            change.rows.append(row)
    return change


def _names(stage: Stage, job: JobSpec) -> tuple[str, ...]:
    return job.names_of(stage.name) if stage.state is not StageState.SKIPPED else ()


def _models(votes: Stage, known: Mapping[str, Stage]) -> Mapping[str, str]:
    """label -> what the model was read from, of the answers that were judged; empty where no stage drew them."""
    stage: Stage | None = votes
    for _ in known:
        if stage is None:
            break
        spec = StageSpec.model_validate_json(stage.spec_json)
        if spec.recipe == "generate":
            return {spec.params["label"]: spec.base_model or "", **spec.models}
        # a consensus reads votes, which were of the same answers
        stage = known.get(spec.data_paths[0].partition(".")[0]) if spec.data_paths else None
    return {}


def _newer(
    numbers: Mapping[str, float], models: Mapping[str, str], known: Mapping[str, Stage]
) -> list[tuple[Stage, str, Share]]:
    """(the stage of the later version, label of the earlier one, win rate of the later), the nearest pair last."""
    made = {label: _policy(reference, known) for label, reference in models.items()}
    found: list[tuple[int, Stage, str, Share]] = []
    for label, stage in made.items():
        for other, before in made.items():
            since = -1 if before is None else before.position
            rate = win_of(numbers, label, other)
            if stage is not None and rate is not None and stage.position > since:
                found.append((since, stage, other, rate))
    # what the last one says stays: of several, the version just before
    nearest: dict[str, tuple[int, Stage, str, Share]] = {}
    for one in sorted(found, key=lambda each: each[0]):
        nearest[one[1].name] = one
    return [(stage, other, rate) for _, stage, other, rate in nearest.values()]


def _policy(reference: str, known: Mapping[str, Stage]) -> Stage | None:
    """The stage that made a version; None: it is no policy of this job, so it is what the job began with."""
    stage = known.get(reference.partition(".")[0]) if STAGE_OUTPUT.match(reference) else None
    return stage if stage is not None and stage.recipe in POLICIES else None


def _hacked(policy: Stage, against: str, rate: Share, votes: Stage) -> Why | None:
    numbers = json.loads(policy.numbers_json)
    start, best = numbers.get("reward_start"), numbers.get("best_reward")
    if start is None or best is None or best <= start or rate.high >= 0.5:
        return None
    return Why(
        code=REWARD_HACKING,
        sentence=f"The reward of stage {policy.name} rose, and its answers lose against those from before it.",
        evidence={
            "reward": f"{start:.4f} to {best:.4f}",
            "win_rate": f"{rate.value:.1%} ({rate.low:.1%} to {rate.high:.1%}) against {against}",
            "votes_of": votes.name,
        },
        next_step="Read answers of both with `shardwork job samples`. Train the reward model on comparisons of the new "
        "answers, raise kl_coefficient, or use the model from before.",
    )
