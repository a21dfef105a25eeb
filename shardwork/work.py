"""The bytes that bind a worker to a lease and to a result: lease digest, output root, and the three signed payloads.

Pure. The agent seals commitments and submissions and opens offers; the coordinator the other way round.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from .errors import InvalidInput
from .identity.envelope import open_envelope, seal
from .identity.keys import SigningKey
from .v1 import types_pb2, work_pb2
from .wire import parse_strict

LEASE_TYPE = "shardwork.lease.v1"
COMMITMENT_TYPE = "shardwork.commit.v1"
SUBMISSION_TYPE = "shardwork.submission.v1"


def lease_sha256(offer_payload: bytes) -> bytes:
    """32 bytes over the exact payload bytes of a signed offer; commitments and submissions name the lease by it."""
    return hashlib.sha256(offer_payload).digest()


def output_root(outputs: Mapping[str, str], metrics: Mapping[str, float]) -> bytes:
    """32 bytes that fix a result: SHA-256 over canonical JSON of artifact ids and metrics by name.

    Floats enter as Python's shortest repr, which gives equal text exactly for equal doubles.
    """
    content = {
        "outputs": dict(outputs),
        "metrics": {name: repr(float(value)) for name, value in metrics.items()},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).digest()


def open_offer(envelope: types_pb2.Envelope, coordinator_public_key: bytes) -> work_pb2.LeaseOffer:
    """Raises as `open_envelope` and `parse_strict` do: NotAuthenticated when the coordinator's key did not sign it."""
    return parse_strict(work_pb2.LeaseOffer, open_envelope(envelope, LEASE_TYPE, expected_key=coordinator_public_key))


def seal_commitment(key: SigningKey, commitment: work_pb2.Commitment) -> types_pb2.Envelope:
    return seal(key, COMMITMENT_TYPE, commitment.SerializeToString(deterministic=True))


def open_commitment(envelope: types_pb2.Envelope, worker_public_key: bytes) -> work_pb2.Commitment:
    commitment = parse_strict(
        work_pb2.Commitment, open_envelope(envelope, COMMITMENT_TYPE, expected_key=worker_public_key)
    )
    _require_digest("lease_sha256", commitment.lease_sha256)
    _require_digest("output_root", commitment.output_root)
    return commitment


def seal_submission(key: SigningKey, submission: work_pb2.Submission) -> types_pb2.Envelope:
    return seal(key, SUBMISSION_TYPE, submission.SerializeToString(deterministic=True))


def open_submission(envelope: types_pb2.Envelope, worker_public_key: bytes) -> work_pb2.Submission:
    """Raises also InvalidInput "work.repeated_name" when an output or a metric occurs twice."""
    submission = parse_strict(
        work_pb2.Submission, open_envelope(envelope, SUBMISSION_TYPE, expected_key=worker_public_key)
    )
    _require_digest("lease_sha256", submission.lease_sha256)
    _require_distinct("output", [output.name for output in submission.outputs])
    _require_distinct("metric", [metric.name for metric in submission.metrics])
    return submission


def submission_root(submission: work_pb2.Submission) -> bytes:
    """The output root of what a submission names; equals its commitment's, or the result is refused."""
    return output_root(
        {output.name: output.artifact_id for output in submission.outputs},
        {metric.name: metric.value for metric in submission.metrics},
    )


def _require_digest(field: str, value: bytes) -> None:
    if len(value) != 32:
        raise InvalidInput("work.bad_digest", f"{field} must have 32 bytes.", field=field, bytes=len(value))


def _require_distinct(kind: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise InvalidInput("work.repeated_name", f"The {kind} {repeated[0]!r} occurs twice.", kind=kind)
