"""Gates: whether a stage whose turn has come is to run at all.

A stage with `run_if` runs only when the named stage's held-out loss fell far enough; a stage that reads a skipped
one's output is skipped with it. Pure; `engine` asks before it starts a stage.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from shardwork.jobs.spec import JobSpec, RunIf, StageSpec, references
from shardwork.why import Why

from ..events import Change, Follow, Note, Slice, StageSkipped, World
from ..records import Stage, StageState
from .moves import move, name
from .observing import alarms_of
from .versions import REWARD_HACKING


def why_skipped(spec: StageSpec, job: JobSpec, earlier: Sequence[Stage]) -> Why | None:
    """Why the stage must not run; None when it may. `earlier`: the job's stages before it, all ended."""
    by_name: dict[str, Stage] = {}
    for stage in earlier:
        for called in job.names_of(stage.name):
            # of a loop's stage, the plain name is that of the latest one that ran
            if called not in by_name or stage.state is not StageState.SKIPPED:
                by_name[called] = stage
    for reference in references(spec):
        if by_name[reference.partition(".")[0]].state is StageState.SKIPPED:
            return Why(
                code="stage.input_skipped",
                sentence=f"Stage {spec.name} was skipped: it reads {reference}, and that stage was skipped.",
                evidence={"reads": reference},
            )
    if spec.run_if is None:
        return None
    return _shut(spec.name, spec.run_if, by_name[spec.run_if.stage]) or _rang(spec, spec.run_if, earlier)


def stage_skipped(state: Slice, event: StageSkipped, world: World) -> Change:
    """Nothing of it is leased or paid; what was escrowed for it goes back when the job ends."""
    stage = move(state.stage, StageState.SKIPPED, why_json=event.why.to_json())
    change = Change(rows=[stage], follow=Follow.NEXT_STAGE)
    change.notes.append(Note.because("stage.skipped", name(stage), event.why))
    return change


def _shut(stage: str, gate: RunIf, source: Stage) -> Why | None:
    if source.state is StageState.SKIPPED:
        return Why(
            code="stage.gate_skipped",
            sentence=f"Stage {stage} was skipped: it waits for what stage {source.name} teaches, which was skipped.",
            evidence={"gate": source.name},
        )
    numbers = json.loads(source.numbers_json)
    if "best_reward" in numbers:
        return _no_gain(stage, gate, source.name, numbers["reward_start"], numbers["best_reward"])
    start, best = numbers.get("eval_loss_start"), numbers.get("best_loss")
    if start is None or best is None:
        return Why(
            code="stage.gate_unmeasured",
            sentence=f"Stage {stage} was skipped: stage {source.name} measured no held-out loss.",
            evidence={"gate": source.name},
            next_step="Hold out more rows of that stage.",
        )
    fell = (start - best) / start if start > 0 else 0.0
    if fell >= gate.improved_by:
        return None
    return Why(
        code="stage.gate_shut",
        sentence=f"Stage {stage} was skipped: held-out loss of {source.name} fell by {100 * fell:.2f} %, and at least "
        f"{100 * gate.improved_by:g} % was asked for.",
        evidence={"gate": source.name, "before": f"{start:.4f}", "after": f"{best:.4f}"},
        next_step=f"What {source.name} made is there. Look at its rows and rate, or lower run_if.improved_by.",
    )


def _rang(spec: StageSpec, gate: RunIf, earlier: Sequence[Stage]) -> Why | None:
    hacked = [stage.name for stage in earlier if any(why.code == REWARD_HACKING for why in alarms_of(stage))]
    if not gate.no_alarm or not hacked:
        return None
    return Why(
        code="stage.gate_alarm",
        sentence=f"Stage {spec.name} was skipped: the reward of {hacked[-1]} rose while votes went against it.",
        evidence={"gate": hacked[-1]},
        next_step=f"Look at the alarm of {hacked[-1]}; without run_if.no_alarm the job goes on all the same.",
    )


def _no_gain(stage: str, gate: RunIf, source: str, start: float, best: float) -> Why | None:
    """As `_shut`, of a stage that measures rewards: they rise."""
    gain = best - start
    if gain > 0 and gain >= gate.improved_by * abs(start):
        return None
    return Why(
        code="stage.gate_shut",
        sentence=f"Stage {stage} was skipped: the reward of {source} rose by {gain:.4g}, and more was asked for.",
        evidence={"gate": source, "before": f"{start:.4f}", "after": f"{best:.4f}"},
        next_step=f"What {source} made is there. More rounds, or a lower improved_by, let it go on.",
    )
