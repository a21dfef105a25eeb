"""Submission ids that outlive the command, so that a repeat after a break is the same submission and pays once.

One small file per unanswered submission in the state folder, named by the digest of everything that would be sent. It
is written before the first attempt and removed once the person has seen the answer. Used by `submit`, by `wallet`
for withdrawals and by `job` for top-ups.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from ..v1 import jobs_pb2


@dataclass(frozen=True, slots=True)
class PendingSubmission:
    """An id that is on disk before it is on the wire."""

    submission_id: str
    path: Path

    def answered(self) -> None:
        """The person knows the job now; the next submit of the same file is a new job."""
        self.path.unlink(missing_ok=True)


def pending(state_dir: Path, request: jobs_pb2.SubmitJobRequest, *, coordinator: str) -> PendingSubmission:
    """The id of an earlier unanswered submission of exactly this request to this coordinator, or a fresh one."""
    content = jobs_pb2.SubmitJobRequest()
    content.CopyFrom(request)
    content.submission_id = ""
    return pending_for(state_dir, coordinator.encode() + b"\0" + content.SerializeToString(deterministic=True))


def pending_for(state_dir: Path, content: bytes) -> PendingSubmission:
    """The same for anything that must not happen twice because its answer was lost; `content` says what it is."""
    path = state_dir / "submissions" / f"{hashlib.sha256(content).hexdigest()}.shardwork-submission"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = uuid.uuid4().hex
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return PendingSubmission(_read(path) or _rewrite(path, fresh), path)
    with os.fdopen(handle, "w") as file:
        _write(file.fileno(), fresh)
    return PendingSubmission(fresh, path)


def _read(path: Path) -> str:
    """The kept id; empty when a crash left the file unfinished, which means it was never sent."""
    text = path.read_text().strip()
    return text if len(text) == 32 else ""


def _rewrite(path: Path, fresh: str) -> str:
    with path.open("w") as file:
        _write(file.fileno(), fresh)
    return fresh


def _write(handle: int, text: str) -> None:
    """Durable before the first byte goes to the coordinator."""
    os.write(handle, text.encode())
    os.fsync(handle)
