"""Ed25519 keys: a party's identity, kept in a private file, and the check of public keys of others.

Owns key material; never prints or sends it. Used by `envelope`, `shardwork.session` and the
coordinator.
"""

from __future__ import annotations

from pathlib import Path

from nacl.bindings import crypto_core_ed25519_is_valid_point
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey as NaclSigningKey
from nacl.signing import VerifyKey

from ..errors import InvalidInput, ShardworkError
from .private_file import create_private, read_private

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
SEED_BYTES = 32


class SigningKey:
    """A secret Ed25519 key. Its repr shows the public half only."""

    __slots__ = ("_secret", "public_key")

    def __init__(self, seed: bytes) -> None:
        """`seed`: 32 secret bytes, RFC 8032."""
        self._secret = NaclSigningKey(seed)
        self.public_key: bytes = bytes(self._secret.verify_key)

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(bytes(NaclSigningKey.generate()))

    def sign(self, message: bytes) -> bytes:
        """64 bytes over exactly `message`."""
        return self._secret.sign(message).signature

    def to_text(self) -> str:
        """The secret seed as hex; only for the private file."""
        return bytes(self._secret).hex()

    def __repr__(self) -> str:
        return f"SigningKey(public_key={self.public_key.hex()})"


def load_or_create(path: Path) -> SigningKey:
    """The key in the private file `path`, made there when there is none.

    Raises NotAllowed "key.loose_mode" and "key.wrong_owner", InvalidInput "key.not_a_file" and "key.damaged".
    """
    text = read_private(path)
    if text is None:
        create_private(path, SigningKey.generate().to_text().encode() + b"\n")
        # read back even if we created it: another process may have been first, and its key is the one that counts
        text = read_private(path)
    return _parse(path, text or b"")


def check_public_key(public_key: bytes) -> None:
    """Raises InvalidInput "key.invalid_point" for anything but a point of the prime-order group.

    With a small-order key one signature verifies for many messages, so it proves nothing.
    """
    if len(public_key) != PUBLIC_KEY_BYTES or not crypto_core_ed25519_is_valid_point(public_key):
        raise InvalidInput(
            "key.invalid_point",
            "The public key is not a usable Ed25519 key.",
            next_step="Make a new key.",
            public_key=public_key.hex()[:80],
        )


def is_signed(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is `public_key`'s over exactly `message`. Raises InvalidInput for an unusable key."""
    check_public_key(public_key)
    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        VerifyKey(public_key).verify(message, signature)
    except BadSignatureError:
        return False
    return True


def _parse(path: Path, text: bytes) -> SigningKey:
    try:
        seed = bytes.fromhex(text.decode("ascii").removesuffix("\n"))
    except ValueError:
        raise _damaged(path) from None
    if len(seed) != SEED_BYTES:
        raise _damaged(path)
    return SigningKey(seed)


def _damaged(path: Path) -> ShardworkError:
    return InvalidInput(
        "key.damaged",
        "The key file does not hold 64 hex digits.",
        next_step="Restore it from a backup. Moving it away makes a new identity on the next start.",
        path=path,
    )
