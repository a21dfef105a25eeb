"""Waiting for a job: what each change means as progress, and the error of a job that did not succeed."""

from __future__ import annotations

from ..errors import JobFailed
from ..why import Why
from .display import figures
from .progress import Progress
from .results import JobStatus, Round, Stage

_COUNTED = ("learn", "map")
_ENDED = ("merged", "rolled_back", "abandoned", "done")


def judge(job: JobStatus) -> None:
    """Raises JobFailed, with the job's own why where it has one, unless the job succeeded."""
    if job.state == "succeeded":
        return
    why = job.why
    raise JobFailed.from_why(
        Why(
            code=why.code if why else f"job.{job.state}",
            sentence=why.sentence if why else f"The job ended as {job.state}.",
            evidence={"job": job.id, "state": job.state, **(why.evidence if why else {})},
            next_step=(why.next_step if why else "") or f"See what happened with:  shardwork job report {job.id}",
        )
    )


def progress_of(job: JobStatus) -> Progress:
    """Rounds done of all rounds planned, and where the job is now."""
    total = sum(stage.planned_rounds for stage in job.stages)
    done = sum(
        stage.planned_rounds if stage.state in ("done", "skipped") else rounds_done(stage) for stage in job.stages
    )
    return Progress(job.name or job.id, done, max(total, 1), unit="rounds", note=_note(job))


def rounds_done(stage: Stage) -> int:
    """Rounds of work (not set-up, not publishing) that have ended."""
    return sum(each.kind in _COUNTED and each.state in _ENDED for each in stage.rounds)


def position(stage: Stage) -> str:
    """ "round 2 of 4 · learn", "setup · prepare", "4 rounds", "ended after 3 of 4 rounds, round 1 published"."""
    if stage.state == "skipped":
        return "its gate stayed shut" if stage.why and stage.why.code == "stage.gate_shut" else "not needed"
    # a list of jobs has no rounds
    if stage.state == "done" and stage.rounds and rounds_done(stage) < stage.planned_rounds:
        best = f", round {stage.best_round} published" if stage.best_round else ""
        return f"ended after {rounds_done(stage)} of {stage.planned_rounds} rounds{best}"
    if stage.state != "running" or not stage.rounds:
        rounds = "round" if stage.planned_rounds == 1 else "rounds"
        return f"{stage.planned_rounds} {rounds}"
    last = stage.rounds[-1]
    if last.kind not in _COUNTED:
        return last.kind if last.phase in ("", last.kind) else f"{last.kind} · {last.phase}"
    where = f"round {last.number} of {stage.planned_rounds}"
    return f"{where} · {last.phase}" if last.phase else where


def _note(job: JobStatus) -> str:
    running = [stage for stage in job.stages if stage.state == "running"]
    parts = [job.state if job.state != "running" or not running else position(running[0])]
    if len(job.stages) > 1 and running:
        parts[0] = f"{running[0].name}: {parts[0]}"
    losses = [each.eval_loss for stage in job.stages for each in _with_loss(stage)]
    if losses:
        parts.append(f"held-out loss {figures.loss(losses[-1])}")
    return ", ".join(parts)


def _with_loss(stage: Stage) -> list[Round]:
    return [each for each in stage.rounds if each.eval_loss is not None]
