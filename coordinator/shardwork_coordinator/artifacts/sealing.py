"""Sealing: encryption at rest, leaf by leaf, so that ranges can still be read and uploads still resume.

AES-256-GCM with a random 96-bit nonce each (NIST SP 800-38D: below 2^32 leaves, 4 PiB, of one key); artifact id and
leaf number are associated data, so a leaf that lies in another's place does not open. The sealed manifest names its
key, hence content of older keys, and from before there was one, is read as it was written. A store remembers which
keys it needs, so a wrong or missing one is found at start. Owns the key file: one key of 64 hex digits a line, the
first one seals. Used by `store` and `staging`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shardwork.errors import Conflict, Corrupt, InvalidInput
from shardwork.identity.private_file import create_private, read_private
from shardwork.ids import ArtifactId

NONCE_BYTES = 12
TAG_BYTES = 16
#: how much longer a sealed leaf is
OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES
KEY_BYTES = 32
ID_BYTES = 8
MAGIC = b"shardwork.sealed.v1\n"
#: the manifest's place among the leaves of the associated data
_MANIFEST = 2**64 - 1
#: what a store remembers
NOTE = "encryption"


@dataclass(frozen=True, slots=True)
class Seal:
    """One artifact's: seals and opens its leaves under one key."""

    artifact_id: ArtifactId
    key_id: bytes
    cipher: AESGCM

    def seal(self, leaf: int, data: bytes | memoryview) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self.cipher.encrypt(nonce, data, self._bound_to(leaf))

    def open(self, leaf: int, data: bytes | memoryview) -> bytes:
        """Raises Corrupt "artifact.bad_seal" for anything but what was sealed at this place."""
        view = memoryview(data)
        try:
            return self.cipher.decrypt(view[:NONCE_BYTES], view[NONCE_BYTES:], self._bound_to(leaf))
        except (InvalidTag, ValueError) as error:
            raise Corrupt(
                "artifact.bad_seal",
                "An encrypted leaf does not open.",
                next_step="It is damaged or lies in another's place: restore it from a backup, or send it again.",
                artifact=self.artifact_id,
            ) from error

    def _bound_to(self, leaf: int) -> bytes:
        return bytes.fromhex(self.artifact_id) + leaf.to_bytes(8, "big")


class Sealer:
    """The keys of one store. `seals`: whether new content is encrypted, with the first key."""

    def __init__(self, keys: list[bytes], *, seals: bool = True) -> None:
        self._ciphers = {key_id(key): AESGCM(key) for key in keys}
        self._current = key_id(keys[0]) if seals and keys else None

    @classmethod
    def load(cls, path: Path, *, seals: bool = True) -> Sealer:
        """Raises InvalidInput "storage.bad_key_file" and what `read_private` raises for a file that others may read."""
        data = read_private(path)
        lines = (data or b"").split()
        try:
            keys = [bytes.fromhex(line.decode()) for line in lines]
        except (ValueError, UnicodeDecodeError):
            keys = []
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise InvalidInput(
                "storage.bad_key_file",
                "The storage key file does not hold one key of 64 hex digits a line.",
                next_step="Bring the right file back; without it, what was encrypted stays unreadable.",
                file=path,
            )
        return cls(keys, seals=seals)

    @classmethod
    def load_or_create(cls, path: Path) -> Sealer:
        create_private(path, secrets.token_hex(KEY_BYTES).encode() + b"\n")
        return cls.load(path)

    @property
    def ids(self) -> list[str]:
        return [found.hex() for found in self._ciphers]

    @property
    def current(self) -> str:
        """Id of the key that seals; empty when nothing is sealed any more."""
        return self._current.hex() if self._current else ""

    def new(self, artifact_id: ArtifactId) -> Seal | None:
        """For new content; None when it stays in plain."""
        return self._seal(artifact_id, self._current) if self._current else None

    def seal_manifest(self, artifact_id: ArtifactId, data: bytes) -> bytes:
        seal = self.new(artifact_id)
        return data if seal is None else MAGIC + seal.key_id + seal.seal(_MANIFEST, data)

    def open_manifest(self, artifact_id: ArtifactId, data: bytes) -> tuple[bytes, Seal | None]:
        """The manifest's bytes, and how its leaves are sealed. Raises Conflict "storage.unknown_key"."""
        if not data.startswith(MAGIC):
            return data, None
        start = len(MAGIC) + ID_BYTES
        seal = self._seal(artifact_id, data[len(MAGIC) : start])
        return seal.open(_MANIFEST, data[start:]), seal

    def check(self, note: bytes | None) -> None:
        """Whether all keys are here that the store says it needs. Raises Conflict "storage.wrong_key"."""
        missing = sorted(set(needed_keys(note)) - set(self.ids))
        if missing:
            raise Conflict(
                "storage.wrong_key",
                "The storage key file lacks a key that this store was encrypted with.",
                next_step="Bring the right file back, or add its lines behind the ones that are there.",
                needed=", ".join(missing),
                found=", ".join(self.ids) or "none",
            )

    def note(self, old: bytes | None) -> bytes:
        """What the store has to remember from now on."""
        keys = [*needed_keys(old), self.current] if self.current else needed_keys(old)
        return json.dumps({"keys": sorted(set(keys))}).encode() + b"\n"

    def _seal(self, artifact_id: ArtifactId, which: bytes) -> Seal:
        cipher = self._ciphers.get(which)
        if cipher is None:
            raise Conflict(
                "storage.unknown_key",
                "This content was encrypted with a key that is not in the storage key file.",
                next_step="Bring the key back into the file, and start again.",
                key_id=which.hex(),
            )
        return Seal(artifact_id, which, cipher)


#: reads what is in plain, and says which key it lacks for anything else
PLAIN = Sealer([])


def needed_keys(note: bytes | None) -> list[str]:
    """Ids of the keys that a store was ever encrypted with."""
    if note is None:
        return []
    found: Mapping[str, list[str]] = json.loads(note)
    return list(found["keys"])


def key_id(key: bytes) -> bytes:
    """Names a key without telling it."""
    return hashlib.sha256(b"shardwork.storage.key.v1\n" + key).digest()[:ID_BYTES]
