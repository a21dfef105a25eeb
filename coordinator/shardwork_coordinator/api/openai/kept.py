"""What is kept of a fine-tuning job beside the job itself: the client's own words and what "auto" became.

A row of first answers, written before the job is submitted; without one the job was no client's of this face. Reads and
writes rows; used by `creating`, `jobs`, `results` and `models`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from shardwork.errors import NotFound

from ...records import Answer, Job
from ...rpc.auth import Caller
from ...store.base import Transaction

#: how submission ids of this face begin
SUBMISSION = "ft-"
#: jobs of an owner that are read at once
PAGE = 200
_JOB = re.compile(r"ftjob-([0-9a-f]{12})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """As a client said them, for its eyes."""

    model: str
    training_file: str
    validation_file: str | None
    suffix: str
    seed: int
    metadata: dict[str, str]
    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float

    def to_row(self, job_id: str, digest: str, now_ms: int) -> Answer:
        text = json.dumps(asdict(self), sort_keys=True)
        return Answer(id=_row_id(job_id), request_sha256=digest, response=text.encode(), created_ms=now_ms)


def wishes_of(tx: Transaction, job: Job) -> Wishes | None:
    row = tx.get(Answer, _row_id(job.id)) if job.submission_id.startswith(SUBMISSION) else None
    if row is None:
        return None
    values: dict[str, Any] = json.loads(row.response)
    return Wishes(**values)


def own(tx: Transaction, named: str, caller: Caller) -> tuple[Job, Wishes]:
    """Raises NotFound "tuning.not_found", for another's as for none."""
    found = _JOB.fullmatch(named)
    job = tx.get(Job, found[1]) if found else None
    wishes = wishes_of(tx, job) if job is not None and job.owner == caller.party_id else None
    if job is None or wishes is None:
        raise NotFound(
            "tuning.not_found",
            f"You have no fine-tuning job {named[:60]!r}.",
            next_step="List your jobs.",
            param="fine_tuning_job_id",
        )
    return job, wishes


def every(tx: Transaction, caller: Caller, before: int | None = None, **equals: Any) -> Iterator[tuple[Job, Wishes]]:
    """The caller's, the newest first; rows are read as they are needed. `before`: only those created before it."""
    seen: set[str] = set()
    while True:
        page = tx.find(
            Job, owner=caller.party_id, order="created_ms", descending=True, limit=PAGE, after=before, **equals
        )
        for job in page:
            wishes = wishes_of(tx, job) if job.id not in seen else None
            seen.add(job.id)
            if wishes is not None:
                yield job, wishes
        if len(page) < PAGE:
            return
        # those of its millisecond come again, and are known
        last = page[-1].created_ms
        before = last + 1 if before is None or last + 1 < before else last


def job_name(job_id: str) -> str:
    return f"ftjob-{job_id}"


def model_name(job: Job, wishes: Wishes) -> str:
    return f"ft:{wishes.model.removeprefix('ft:').partition(':')[0]}:{wishes.suffix}:{job.id}"


def _row_id(job_id: str) -> str:
    return f"fine-tuning/{job_id}"
