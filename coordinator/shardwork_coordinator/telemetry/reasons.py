"""Reasons: the short list of codes that a label may name.

A worker says in its own words why it gives a shard back, and a label with any text has any number of series. What is
not listed counts as `other`, or `worker` where it is the worker's word. Used by `verdicts`.
"""

from __future__ import annotations

OTHER, WORKER = "other", "worker"

#: said by the coordinator's own checks, or acted upon when a worker says it
KNOWN = frozenset(
    {
        "audit.impossible",
        "audit.not_drawn",
        "audit.numbers_differ",
        "audit.unreadable",
        "check.files",
        "check.loss_range",
        "check.metrics",
        "check.not_finite",
        "check.outputs",
        "check.tokens",
        "check.too_large",
        "check.unknown_phase",
        "job.cancelled",
        "job.timed_out",
        "lease.past_deadline",
        "lease.silent",
        "result.disagrees",
        "stage.timed_out",
        "trainer.interrupted",
        "trainer.out_of_memory",
        "trainer.unexpected",
        "training.diverged",
        "worker.below_minimum",
        "worker.disk_full",
        "worker.draining",
        "worker.finished",
        "worker.gave_back",
        "worker.paused",
        "worker.stopping",
    }
)
#: how the codes begin that only workers give
WORKERS_OWN = ("worker.", "trainer.")


def label_of(code: str) -> str:
    """A code as a label's value: one of few, whatever a worker says."""
    if code in KNOWN:
        return code
    return WORKER if code.startswith(WORKERS_OWN) else OTHER
