"""Work bytes: the output root depends on content only, and signed payloads are read strictly."""

from __future__ import annotations

import hashlib
import math

import pytest

from shardwork.errors import InvalidInput, NotAuthenticated, ShardworkError
from shardwork.identity.envelope import seal
from shardwork.identity.keys import SigningKey
from shardwork.v1 import types_pb2, work_pb2
from shardwork.work import (
    COMMITMENT_TYPE,
    LEASE_TYPE,
    lease_sha256,
    open_commitment,
    open_offer,
    open_submission,
    output_root,
    seal_commitment,
    seal_submission,
    submission_root,
)

WORKER = SigningKey(b"\x02" * 32)
COORDINATOR = SigningKey(b"\x03" * 32)


def test_the_output_root_is_sha256_over_canonical_json() -> None:
    text = b'{"metrics":{"loss":"0.1","tokens":"7.0"},"outputs":{"delta":"aa","log":"bb"}}'
    root = output_root({"log": "bb", "delta": "aa"}, {"tokens": 7, "loss": 0.1})
    assert root == hashlib.sha256(text).digest()


@pytest.mark.parametrize(
    ("outputs", "metrics"),
    [
        ({"delta": "ab"}, {"loss": 0.1}),
        ({"delto": "aa"}, {"loss": 0.1}),
        ({"delta": "aa"}, {"loss": math.nextafter(0.1, 1)}),
        ({"delta": "aa"}, {"lost": 0.1}),
        ({"delta": "aa"}, {}),
    ],
)
def test_any_difference_gives_another_root(outputs: dict[str, str], metrics: dict[str, float]) -> None:
    assert output_root(outputs, metrics) != output_root({"delta": "aa"}, {"loss": 0.1})


def test_a_submission_has_the_root_it_was_committed_to() -> None:
    submission = work_pb2.Submission(
        lease_id="s#0.1",
        lease_sha256=lease_sha256(b"offer"),
        outputs=[types_pb2.NamedArtifact(name="delta", artifact_id="aa")],
        metrics=[types_pb2.Metric(name="loss", value=0.1)],
    )
    opened = open_submission(seal_submission(WORKER, submission), WORKER.public_key)
    assert opened == submission
    assert submission_root(opened) == output_root({"delta": "aa"}, {"loss": 0.1})


@pytest.mark.parametrize("kind", ["output", "metric"])
def test_a_name_that_occurs_twice_is_refused(kind: str) -> None:
    submission = work_pb2.Submission(lease_sha256=bytes(32))
    for _ in range(2):
        if kind == "output":
            submission.outputs.add(name="x")
        else:
            submission.metrics.add(name="x")
    with pytest.raises(InvalidInput) as caught:
        open_submission(seal_submission(WORKER, submission), WORKER.public_key)
    assert (caught.value.code, caught.value.why.evidence["kind"]) == ("work.repeated_name", kind)


def test_another_worker_cannot_commit_for_this_one() -> None:
    commitment = work_pb2.Commitment(lease_id="s#0.1", lease_sha256=bytes(32), output_root=bytes(32))
    assert open_commitment(seal_commitment(WORKER, commitment), WORKER.public_key) == commitment
    with pytest.raises(NotAuthenticated):
        open_commitment(seal_commitment(COORDINATOR, commitment), WORKER.public_key)


@pytest.mark.parametrize("field", ["lease_sha256", "output_root"])
def test_a_commitment_needs_whole_digests(field: str) -> None:
    commitment = work_pb2.Commitment(lease_id="s#0.1", lease_sha256=bytes(32), output_root=bytes(32))
    setattr(commitment, field, bytes(31))
    with pytest.raises(InvalidInput) as caught:
        open_commitment(seal_commitment(WORKER, commitment), WORKER.public_key)
    assert caught.value.why.evidence["field"] == field


def test_a_signed_payload_with_an_unknown_field_is_refused() -> None:
    raw = work_pb2.Commitment(lease_id="s#0.1", lease_sha256=bytes(32), output_root=bytes(32)).SerializeToString()
    with pytest.raises(InvalidInput) as caught:
        open_commitment(seal(WORKER, COMMITMENT_TYPE, raw + b"\x22\x01x"), WORKER.public_key)
    assert caught.value.code == "wire.unknown_field"


def test_only_the_coordinator_offers_leases() -> None:
    offer = work_pb2.LeaseOffer(lease_id="s#0.1", price_msat=5).SerializeToString()
    assert open_offer(seal(COORDINATOR, LEASE_TYPE, offer), COORDINATOR.public_key).price_msat == 5
    with pytest.raises(ShardworkError):
        open_offer(seal(WORKER, LEASE_TYPE, offer), COORDINATOR.public_key)
