"""A signed lease offer: checked once when it arrives, and kept with the exact bytes that a commitment binds.

Called by the agent for every offer from the stream and for the one in the journal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from shardwork import work
from shardwork.errors import Corrupt, NotAllowed
from shardwork.v1 import types_pb2, work_pb2

SEED_BYTES = 32


@dataclass(frozen=True, slots=True)
class SignedOffer:
    #: serialised Envelope, for the journal
    envelope: bytes
    lease: work_pb2.LeaseOffer
    #: SHA-256 of the payload's exact bytes
    digest: bytes

    @property
    def lease_id(self) -> str:
        return self.lease.lease_id

    @property
    def inputs(self) -> Mapping[str, str]:
        """Input name -> artifact id."""
        return {given.name: given.artifact_id for given in self.lease.inputs}


def open_offer(envelope: types_pb2.Envelope, *, coordinator_key: bytes, worker_id: str) -> SignedOffer:
    """Checks signature, signer, addressee and form.

    Raises what `shardwork.work.open_offer` raises, NotAllowed "offer.not_for_us", Corrupt "offer.bad_form".
    """
    lease = work.open_offer(envelope, coordinator_key)
    if lease.worker_id != worker_id:
        sentence = "A lease offer for another worker was refused."
        raise NotAllowed("offer.not_for_us", sentence, lease=lease.lease_id, worker=lease.worker_id)
    _check_form(lease)
    return SignedOffer(envelope.SerializeToString(), lease, work.lease_sha256(envelope.payload))


def _check_form(lease: work_pb2.LeaseOffer) -> None:
    """What becomes a folder name or goes to the child must have its form, even from a coordinator we trust."""
    names = [given.name for given in lease.inputs]
    problems = {
        "an input's id is not 64 hex digits": any(not _is_artifact_id(given.artifact_id) for given in lease.inputs),
        "an input is named twice": len(set(names)) != len(names),
        "the seed has not 32 bytes": len(lease.seed) != SEED_BYTES,
        "the lease or its phase has no name": not lease.lease_id or not lease.phase,
        "the parameters are not JSON": not _is_json(lease.params_json),
    }
    for problem, is_there in problems.items():
        if is_there:
            raise Corrupt("offer.bad_form", "A lease offer is malformed.", lease=lease.lease_id, problem=problem)


def _is_artifact_id(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
