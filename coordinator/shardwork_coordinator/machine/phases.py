"""Rounds and stages: a phase opens, closes, hands its outputs to the next; a round merges or is rolled back.

What a phase opens with is `planning`. Pure; called by `machine.step`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from shardwork.jobs.spec import STAGE_OUTPUT, JobSpec, StageSpec
from shardwork.recipes import recipe
from shardwork.recipes.base import (
    PEOPLE_PHASES,
    RoundKind,
    StageType,
)
from shardwork.recipes.checks import MEMORY_METRICS
from shardwork.recipes.continuing import CONTINUED_MOMENTS, CONTINUED_STEP, told
from shardwork.recipes.measure import under_declared
from shardwork.recipes.orders import EvaluateOrder
from shardwork.why import Why

from ..events import (
    Change,
    ExecutorFailed,
    ExecutorFinished,
    Follow,
    Note,
    PhaseDone,
    PublishDue,
    Slice,
    StageStarted,
    World,
)
from ..records import Round, RoundState, Stage, StageState
from . import people
from .choice import Choice, choose, no_candidate
from .endings import fail
from .moves import move, name
from .observing import IS_MEASURED, observed
from .patience import count_patience
from .planning import dump, facts_of, open_phase, round_state_of, spec_of
from .states import FINAL_JOB, FINAL_ROUND
from .verdicts import release_round

#: what is known of the stage's input begins with them
FIRST_PHASES = frozenset({"prepare", "split"})
#: reasons of the executor that spoil one round, not the job
ROUND_FAULTS = frozenset({"aggregate.too_few"})

HOUR_MS = 3_600_000
#: what an evaluation says of a candidate that decides; the rest is shown
LOSSES = frozenset({"selection_loss", "test_loss", "test_se"})

DIVERGED = Why(
    code="training.diverged",
    sentence="Every round that was tried was rolled back; nothing was learned.",
    next_step="Look at `shardwork job events`. If held-out loss rose, lower params.learning_rate, and check that "
    "training and held-out rows are of one kind.",
)


def stage_started(state: Slice, event: StageStarted, world: World) -> Change:
    hours = spec_of(state).timeout_hours
    deadline_ms = world.now_ms + int(hours * HOUR_MS) if hours is not None else 0
    stage = move(state.stage, StageState.RUNNING, artifacts_json=dump(event.artifacts), deadline_ms=deadline_ms)
    if event.numbers:
        numbers = {**json.loads(stage.numbers_json), **event.numbers}
        stage = replace(stage, numbers_json=json.dumps(numbers, sort_keys=True))
    change = Change(rows=[stage])
    change.notes.append(Note(kind="stage.running", subject=name(stage), sentence=f"Stage {stage.name} started."))
    return _open_round(replace(state, stage=stage), 0, RoundKind.SETUP, world, change)


def executor_finished(state: Slice, event: ExecutorFinished, world: World) -> Change:
    """The operator's executor finished a phase. A second answer, or one for a job that ended, changes nothing."""
    if state.round.phase != event.phase or state.round.state in FINAL_ROUND or state.job.state in FINAL_JOB:
        return Change()
    refused = under_declared(facts_of(state), event.metrics) if _is_measured(state, event.phase) else None
    if refused is not None:
        return fail(state, refused, world, Change())
    results = {**json.loads(state.round.results_json), **_renamed(event)}
    round_ = replace(state.round, results_json=dump(results))
    numbers = json.loads(state.stage.numbers_json)
    if event.phase in FIRST_PHASES:
        numbers |= dict(event.metrics)
    stage = replace(state.stage, numbers_json=json.dumps(numbers, sort_keys=True))
    if event.phase in FIRST_PHASES:
        stage = _keep(stage, {("base" if key == "skeleton" else key): value for key, value in event.outputs.items()})
    change = Change(rows=[round_, stage], notes=_what_was_left_out(event, round_))
    state = observed(replace(state, round=round_, stage=stage), [dict(event.metrics)], change)
    return _next_phase(state, world, change)


def _what_was_left_out(event: ExecutorFinished, round_: Round) -> list[Note]:
    """Results that the executor did not use as they came."""
    notes: list[Note] = []
    screened = sum(1 for key, value in event.metrics.items() if key.startswith("kept.") and value == 0)
    if screened:
        sentence = f"{screened} of the round's deltas were screened out of the mean, and paid all the same."
        evidence = {key: f"{value:.4g}" for key, value in event.metrics.items()}
        notes.append(Note(kind="round.screened", subject=name(round_), sentence=sentence, evidence=evidence))
    if recounted := int(event.metrics.get("recounted", 0)):
        sentence = f"{recounted} of the round's results could not be believed and were made again by the coordinator."
        notes.append(Note(kind="round.recounted", subject=name(round_), sentence=sentence))
    return notes


def _is_measured(state: Slice, phase: str) -> bool:
    """Whether the phase measured what its requester declared. What an earlier stage makes can't be declared."""
    uploaded = not any(STAGE_OUTPUT.match(name) for name in spec_of(state).data_paths)
    return phase == "prepare" or (phase == "split" and uploaded)


def executor_failed(state: Slice, event: ExecutorFailed, world: World) -> Change:
    """Ends the job, except for a round whose deltas can't be averaged: that round is as good as one that taught
    nothing."""
    if state.round.phase != event.phase or state.round.state in FINAL_ROUND or state.job.state in FINAL_JOB:
        return Change()
    if event.why.code in ROUND_FAULTS:
        return _useless(state, event.why, world)
    # a reason of rows or files names none of the job's parts, and several read some
    why = replace(event.why, evidence={"stage": state.stage.name, **event.why.evidence})
    return fail(state, why, world, Change())


def publish_due(state: Slice, event: PublishDue, world: World) -> Change:
    return _open_round(state, state.round.number + 1, RoundKind.PUBLISH, world, Change())


def phase_done(state: Slice, event: PhaseDone, world: World) -> Change:
    """All shards of a leased phase are done: their outputs become the round's results."""
    change = Change()
    if state.round.phase in PEOPLE_PHASES:
        people.close(state, world, change)
        state = replace(state, round=move(state.round, RoundState.JUDGING))
        return _next_phase(state, world, change)
    results = json.loads(state.round.results_json)
    metrics: list[dict[str, float]] = []
    for shard in sorted(state.shards, key=lambda one: one.position):
        winner = state.replica(shard.id, shard.canonical)
        metrics.append(json.loads(winner.metrics_json))
        for output, artifact in json.loads(winner.outputs_json).items():
            results[_result_name(shard.phase, output, shard.position)] = artifact
    round_ = state.round
    if round_.state is RoundState.OPEN:
        round_ = move(round_, RoundState.JUDGING)
    round_ = replace(round_, results_json=dump(results))
    if round_.phase == "learn":
        round_ = replace(round_, train_loss=sum(one["train_loss"] for one in metrics) / len(metrics))
    change.rows.append(round_)
    state = observed(replace(state, round=round_), metrics, change)
    match round_.phase:
        case "init":
            stage = _keep(state.stage, {"checkpoint": results["checkpoint"]})
            stage = _continued(stage, metrics[0], change)
            change.rows.append(stage)
            return _next_phase(replace(state, stage=stage), world, change)
        case "evaluate":
            candidates = EvaluateOrder.model_validate_json(state.shards[0].order_json).candidates
            return _decide_round(state, candidates, metrics[0], world, change)
        case "publish":
            known = {key: value for key, value in metrics[0].items() if key in MEMORY_METRICS}
            numbers = json.loads(state.stage.numbers_json) | known
            stage = replace(state.stage, numbers_json=json.dumps(numbers, sort_keys=True))
            return _round_merged(replace(state, stage=stage), world, change)
        case _:
            return _next_phase(state, world, change)


# ---- phases and rounds ----------------------------------------------------------------------------------------------


def _next_phase(state: Slice, world: World, change: Change) -> Change:
    kind = recipe(state.stage.recipe)
    phases = kind.phases(RoundKind(state.round.kind), json.loads(state.stage.artifacts_json))
    at = phases.index(state.round.phase) + 1
    if at == len(phases):
        return _round_merged(state, world, change)
    if phases[at] == "apply" and "chosen_step" not in json.loads(state.round.results_json):
        # nothing was held out, so nothing was chosen by measurement: the only candidate is applied
        state = _choose(state, _only_candidate(state))
        change.rows.append(state.round)
    return open_phase(state, phases[at], world, change)


def _open_round(state: Slice, number: int, kind: RoundKind, world: World, change: Change) -> Change:
    first = recipe(state.stage.recipe).phases(kind, json.loads(state.stage.artifacts_json))[0]
    round_ = Round(
        job_id=state.job.id,
        stage=state.stage.name,
        number=number,
        kind=kind,
        # a round that only joins is open to nobody
        state=round_state_of(first),
        phase="",
        started_ms=world.now_ms,
    )
    return open_phase(replace(state, round=round_, shards=(), replicas=()), first, world, change)


def _decide_round(
    state: Slice, candidates: tuple[str, ...], metrics: dict[str, float], world: World, change: Change
) -> Change:
    """Takes the outer step that held-out rows liked best, or rolls the round back."""
    numbers = json.loads(state.stage.numbers_json)
    before = metrics["before.test_loss"]
    # the best so far, or small rises that are each excused would add up
    best: float = min(before, numbers.get("best_loss", before))
    choice = choose(metrics, candidates, best, int(numbers.get("rollbacks_in_a_row", 0)))
    numbers.setdefault("eval_loss_start", before)
    loss = before if choice.rolled_back else choice.test_loss
    numbers["eval_loss"] = loss
    numbers["rollbacks_in_a_row"] = numbers.get("rollbacks_in_a_row", 0) + 1 if choice.rolled_back else 0
    numbers["stopped"] = 1.0 if choice.stop else 0.0
    stage = replace(state.stage, numbers_json=json.dumps(numbers, sort_keys=True))
    improved = not choice.rolled_back and choice.test_loss is not None and choice.test_loss < best
    stage, notes = count_patience(stage, spec_of(state), improved=improved)
    change.notes += notes
    round_ = replace(state.round, eval_loss=loss, outer=choice.candidate, measures_json=_measured(choice, metrics))
    state = replace(state, stage=stage, round=round_)
    change.rows += [stage, state.round]
    if not choice.rolled_back:
        state = _choose(state, choice.candidate)
        change.rows.append(state.round)
        return _next_phase(state, world, change)
    return _roll_back(state, choice.why, world, change)


def _measured(choice: Choice, metrics: Mapping[str, float]) -> str:
    """What else the evaluation said of the candidate that was chosen: accuracy and calibration, of pairs."""
    of = f"{choice.candidate}."
    known = {name.removeprefix(of): value for name, value in metrics.items() if name.startswith(of)}
    return json.dumps({name: value for name, value in known.items() if name not in LOSSES}, sort_keys=True)


def _useless(state: Slice, why: Why, world: World) -> Change:
    """A round that gave nothing to evaluate counts as one that made the model worse: two in a row stop the stage."""
    numbers = json.loads(state.stage.numbers_json)
    choice = no_candidate(why, int(numbers.get("rollbacks_in_a_row", 0)))
    numbers |= {
        "rollbacks_in_a_row": numbers.get("rollbacks_in_a_row", 0) + 1,
        "stopped": 1.0 if choice.stop else 0.0,
    }
    stage = replace(state.stage, numbers_json=json.dumps(numbers, sort_keys=True))
    stage, notes = count_patience(stage, spec_of(state), improved=False)
    return _roll_back(replace(state, stage=stage), choice.why, world, Change(rows=[stage], notes=notes))


def _roll_back(state: Slice, why: Why, world: World, change: Change) -> Change:
    round_ = move(state.round, RoundState.ROLLED_BACK, ended_ms=world.now_ms)
    state = replace(state, round=round_)
    change.rows.append(round_)
    change.movements.append(release_round(state, "end"))
    change.notes.append(_note_why("round.rolled_back", name(round_), why))
    return _after_round(state, world, change)


def _round_merged(state: Slice, world: World, change: Change) -> Change:
    round_ = move(state.round, RoundState.MERGED, ended_ms=world.now_ms)
    stage = _with_checkpoint(state) if round_.kind == RoundKind.LEARN else state.stage
    state = replace(state, round=round_, stage=stage)
    change.rows += [round_, stage]
    change.movements.append(release_round(state, "end"))
    loss = "" if round_.eval_loss is None else f", held-out loss {round_.eval_loss:.4f}"
    change.notes.append(
        Note(
            kind="round.merged",
            subject=name(round_),
            sentence=f"Stage {stage.name}, round {round_.number} ({round_.kind}) is merged{loss}.",
            evidence={"outer": round_.outer} if round_.outer else {},
        )
    )
    return _after_round(state, world, change)


def _after_round(state: Slice, world: World, change: Change) -> Change:
    kind = recipe(state.stage.recipe)
    stopped = json.loads(state.stage.numbers_json).get("stopped", 0.0) == 1.0
    last = state.round.number >= kind.learn_rounds(spec_of(state)) or stopped
    if last and state.round.state is RoundState.ROLLED_BACK and not _has_learned(state):
        why = _nothing_learned(change)
        return _loop_over(state, why, change) if _is_a_later_time(state) else fail(state, why, world, change)
    if not last:
        next_kind = RoundKind.LEARN if kind.stage_type is StageType.ROUNDS else RoundKind.MAP
        return _open_round(state, state.round.number + 1, next_kind, world, change)
    if kind.stage_type is StageType.ROUNDS and state.round.kind != RoundKind.PUBLISH:
        change.follow = Follow.PUBLISH
        return change
    return _stage_done(state, change)


def _has_learned(state: Slice) -> bool:
    """Some round was merged: there is something to publish that the base was not."""
    return "best_checkpoint" in json.loads(state.stage.artifacts_json)


def _is_a_later_time(state: Slice) -> bool:
    """Of a loop: what the times before made is there, and what follows the loop reads it."""
    return JobSpec.model_validate_json(state.job.spec_json).time_of(state.stage.name) > 1


def _loop_over(state: Slice, why: Why, change: Change) -> Change:
    """No gain is how a loop ends, and no fault: what reads this stage is skipped with it."""
    stage = move(state.stage, StageState.SKIPPED, why_json=why.to_json())
    change.rows.append(stage)
    change.notes.append(Note.because("stage.skipped", name(stage), why))
    change.follow = Follow.NEXT_STAGE
    return change


def _nothing_learned(change: Change) -> Why:
    last = next(note for note in reversed(change.notes) if note.kind == "round.rolled_back")
    return replace(DIVERGED, evidence={"last_round": last.sentence, **last.evidence})


def _stage_done(state: Slice, change: Change) -> Change:
    results = json.loads(state.round.results_json)
    artifacts = json.loads(state.stage.artifacts_json)
    makes = recipe(state.stage.recipe).makes(spec_of(state))
    outputs: dict[str, dict[str, str]] = {}
    for output in ("model", "report", "samples", "rows", "votes"):
        if output in results:
            kind = makes["model"].value.replace(" ", "_") if output == "model" else output
            outputs[f"{state.stage.name}.{output}"] = {"artifact_id": results[output], "kind": kind}
    if "best_checkpoint" in artifacts:
        outputs[f"{state.stage.name}.checkpoint"] = {
            "artifact_id": artifacts["best_checkpoint"],
            "kind": "checkpoint",
        }
    stage = move(state.stage, StageState.DONE, outputs_json=json.dumps(outputs, sort_keys=True))
    change.rows.append(stage)
    change.notes.append(Note(kind="stage.done", subject=name(stage), sentence=f"Stage {stage.name} is done."))
    change.follow = Follow.NEXT_STAGE
    return change


# ---- inside ---------------------------------------------------------------------------------------------------------


def _with_checkpoint(state: Slice) -> Stage:
    """The stage after an applied round: the new checkpoint, and the way to it from the old one."""
    results = json.loads(state.round.results_json)
    artifacts = json.loads(state.stage.artifacts_json)
    numbers = json.loads(state.stage.numbers_json)
    kept = {
        "parent_checkpoint": artifacts["checkpoint"],
        "step": results["chosen_step"],
        "moments": results["moments"],
        "checkpoint": results["new_checkpoint"],
        "outer": results["outer"],
    }
    best = numbers.get("best_loss")
    loss = state.round.eval_loss
    # a recipe that measures its checkpoints by itself has said which is the best (`observing`)
    if IS_MEASURED not in numbers and (loss is None or best is None or loss < best):
        kept["best_checkpoint"] = results["new_checkpoint"]
        numbers["best_round"] = float(state.round.number)
        if loss is not None:
            numbers["best_loss"] = loss
    return replace(_keep(state.stage, kept), numbers_json=json.dumps(numbers, sort_keys=True))


def _continued(stage: Stage, metrics: dict[str, float], change: Change) -> Stage:
    """The stage with what init told of the checkpoint that it continues from, and a note that says so."""
    spec = StageSpec.model_validate_json(stage.spec_json)
    if spec.continue_from is None:
        return stage
    found = {key: metrics.get(key, 0.0) for key in (CONTINUED_MOMENTS, CONTINUED_STEP)}
    numbers = json.loads(stage.numbers_json) | found
    sentence = f"Stage {stage.name} continues from {told(spec, numbers)}."
    if not found[CONTINUED_MOMENTS]:
        sentence += " Adam's moments begin anew: the checkpoint has none, or its stage learned by another method."
    change.notes.append(Note(kind="stage.continues", subject=name(stage), sentence=sentence))
    return replace(stage, numbers_json=json.dumps(numbers, sort_keys=True))


def _result_name(phase: str, output: str, position: int) -> str:
    """Shards of these phases each give one output of the same name; the round numbers them."""
    numbered = {"learn": "delta", "map": "output", "rollout": "answers", "score": "scores"}
    return f"{numbered[phase]}-{position}" if phase in numbered else output


def _renamed(event: ExecutorFinished) -> dict[str, str]:
    """apply's checkpoint is the round's new one; the stage still has the old one beside it."""
    if event.phase == "apply":
        return {"new_checkpoint": event.outputs["checkpoint"]}
    return dict(event.outputs)


def _choose(state: Slice, candidate: str) -> Slice:
    results = json.loads(state.round.results_json)
    results["chosen_step"] = results[f"step-{candidate}"]
    return replace(state, round=replace(state.round, results_json=dump(results), outer=candidate))


def _only_candidate(state: Slice) -> str:
    results: dict[str, str] = json.loads(state.round.results_json)
    names = [key for key in results if key.startswith("step-")]
    return names[0].removeprefix("step-")


def _keep(stage: Stage, artifacts: dict[str, str]) -> Stage:
    return replace(stage, artifacts_json=dump({**json.loads(stage.artifacts_json), **artifacts}))


def _note_why(kind: str, subject: str, why: Why | None) -> Note:
    if why is None:
        return Note(kind=kind, subject=subject, sentence="The round was rolled back.")
    return Note.because(kind, subject, why)
