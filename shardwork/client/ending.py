"""How a job ends: its final states, and the error of one that did not succeed."""

from __future__ import annotations

from ..errors import JobFailed
from ..v1 import jobs_pb2
from ..why import Why

FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})


def judge(job: jobs_pb2.JobView) -> None:
    """Raises JobFailed, with the job's own why where it has one, unless the job succeeded."""
    if job.state == "succeeded":
        return
    told = bool(job.why.code)
    raise JobFailed.from_why(
        Why(
            code=job.why.code if told else f"job.{job.state}",
            sentence=job.why.sentence if told else f"The job ended as {job.state}.",
            evidence={"job": job.id, "state": job.state, **job.why.evidence},
            next_step=job.why.next_step or f"See what happened with:  shardwork job report {job.id}",
        )
    )
