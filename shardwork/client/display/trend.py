"""Trend: the one row of numbers that says how a job is doing. Pure.

Of the newest stage that measured anything: a policy's reward, which is better when it rises, or a held-out loss. Used
by `job show`, `watch` and `report`, and by the document.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..results import JobStatus
from . import figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    label: str
    #: in the order of rounds, at least one
    values: tuple[float, ...]
    rises: bool

    @property
    def is_better(self) -> bool:
        first, last = self.values[0], self.values[-1]
        return last >= first if self.rises else last <= first

    @property
    def change(self) -> str:
        """Since it began: of a loss as a share, of a reward, which may be below zero, as a difference."""
        first, last = self.values[0], self.values[-1]
        if len(self.values) == 1 or not (math.isfinite(first) and math.isfinite(last)):
            return ""
        if self.rises:
            return f"{'−' if last < first else '+'}{figures.loss(abs(last - first))}"
        return figures.change(first, last)


def trend(job: JobStatus) -> Trend | None:
    """None before the first value."""
    for stage in reversed(job.stages):
        rewards = tuple(each.measures["reward"] for each in stage.rounds if "reward" in each.measures)
        if rewards:
            return Trend(label="reward", values=rewards, rises=True)
        losses = tuple(each.eval_loss for each in stage.rounds if each.eval_loss is not None)
        if losses:
            return Trend(label="held-out loss", values=losses, rises=False)
    return None
