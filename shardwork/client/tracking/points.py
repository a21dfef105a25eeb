"""What a tracker is told of a round: losses, pace, bytes and cost, with the round's number as the step. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..results import JobStatus, Report, Round

#: rounds whose numbers stand still; a rolled-back one keeps its losses, and its step shows that it was tried
_STATES = ("merged", "rolled_back")
_KINDS = ("setup", "learn", "map")


@dataclass(frozen=True, slots=True)
class Point:
    """One round of one stage."""

    stage: str
    step: int
    scalars: Mapping[str, float]

    @property
    def key(self) -> str:
        """What tells it from every other point of the job: "sft/3"."""
        return f"{self.stage}/{self.step}"


def points(job: JobStatus) -> list[Point]:
    """A point for every round that is over, without its cost. Names begin with the stage where there are several."""
    found: list[Point] = []
    for stage in job.stages:
        prefix = f"{stage.name}/" if len(job.stages) > 1 else ""
        for each in stage.rounds:
            if each.state in _STATES and each.kind in _KINDS:
                scalars = {f"{prefix}{name}": value for name, value in _scalars(each).items()}
                found.append(Point(stage.name, each.number, scalars))
    return found


def priced(point: Point, report: Report) -> Point:
    """The point with what the round's workers were paid, as far as the report lists its payments."""
    part = f"{report.status.id}/{point.stage}/r{point.step}/"
    msat = sum(paid.msat for paid in report.payments if paid.shard.startswith(part))
    prefix = f"{point.stage}/" if len(report.status.stages) > 1 else ""
    return Point(point.stage, point.step, {**point.scalars, f"{prefix}cost_sats": msat / 1000})


def _scalars(each: Round) -> dict[str, float]:
    measured = {
        "train_loss": each.train_loss,
        "eval_loss": each.eval_loss,
        "seconds": each.seconds,
        "results_per_second": each.accepted / each.seconds if each.seconds else None,
        "bytes_up": float(each.bytes_up),
        "bytes_down": float(each.bytes_down),
        "rejected": float(each.rejected),
        **each.measures,
    }
    return {name: value for name, value in measured.items() if value is not None and math.isfinite(value)}
