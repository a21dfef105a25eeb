"""Names of things and how they are derived: job, shard, lease and party ids, digests and seeds.

Pure. Used by every component. Randomness enters once, in the submission id that a client chooses.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NewType

JobId = NewType("JobId", str)
ShardId = NewType("ShardId", str)
PartyId = NewType("PartyId", str)
ArtifactId = NewType("ArtifactId", str)


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def job_id(owner: str, submission_id: str) -> JobId:
    """12 hex digits from who submits and the id that the submitter chose: a retry names the same job, and a repeated
    run with the same key and id draws the same seeds."""
    return JobId(derive_seed("job", owner, submission_id).hex()[:12])


def party_id(public_key: bytes) -> PartyId:
    """16 hex digits of SHA-256 over the Ed25519 public key; one key is one party, whatever roles it plays."""
    return PartyId(hashlib.sha256(b"shardwork party\0" + public_key).hexdigest()[:16])


def shard_id(job: str, stage: str, round_number: int, phase: str, index: int) -> ShardId:
    """Readable and unique: "3f2a…/tune/r2/learn/s0"."""
    return ShardId(f"{job}/{stage}/r{round_number}/{phase}/s{index}")


@dataclass(frozen=True, slots=True)
class LeaseId:
    """(shard, replica, epoch): what a lease is fenced by. Text form "<shard>#<replica>.<epoch>"."""

    shard: ShardId
    replica: int
    epoch: int

    def __str__(self) -> str:
        return f"{self.shard}#{self.replica}.{self.epoch}"

    @classmethod
    def parse(cls, text: str) -> LeaseId:
        """Inverse of str(). Raises ValueError on anything else."""
        shard, _, tail = text.rpartition("#")
        replica, _, epoch = tail.partition(".")
        if not shard or not replica.isdigit() or not epoch.isdigit():
            raise ValueError(f"not a lease id: {text!r}")
        return cls(ShardId(shard), int(replica), int(epoch))


def derive_seed(*parts: str | int) -> bytes:
    """32 bytes from H(job, stage, round, phase, shard, …); never of worker or attempt, so a retry repeats the work.

    Parts are length-prefixed: ("a", "bc") and ("ab", "c") give different seeds.
    """
    digest = hashlib.sha256(b"shardwork seed v1")
    for part in parts:
        text = str(part).encode()
        digest.update(len(text).to_bytes(8, "big") + text)
    return digest.digest()


def seed_int(seed: bytes) -> int:
    """The first 63 bits of a seed as a non-negative integer, the form torch and numpy take."""
    return int.from_bytes(seed[:8], "big") >> 1
