"""Envelopes: a signature over exact bytes together with their type.

The signed message is DSSE's pre-authentication encoding (Dead Simple Signing Envelope v1, "PAE"), so a payload of one
type can never pass as another. Verify first, parse afterwards, never re-serialise to verify. Used by enrolment, tokens,
lease offers, commitments and submissions. Test vectors: tests/shardwork/vectors/envelope.json.
"""

from __future__ import annotations

import hmac

from ..errors import Corrupt, InvalidInput, NotAuthenticated
from ..v1 import types_pb2
from ..wire import refuse_unknown_fields
from .keys import SigningKey, is_signed


def signed_bytes(payload_type: str, payload: bytes) -> bytes:
    """PAE: "DSSEv1 <len> <type> <len> <payload>" with decimal lengths in bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(key: SigningKey, payload_type: str, payload: bytes) -> types_pb2.Envelope:
    return types_pb2.Envelope(
        payload_type=payload_type,
        payload=payload,
        public_key=key.public_key,
        signature=key.sign(signed_bytes(payload_type, payload)),
    )


def open_envelope(envelope: types_pb2.Envelope, expected_type: str, *, expected_key: bytes | None = None) -> bytes:
    """The payload, exactly as signed. The signer is `envelope.public_key`; pass `expected_key` when only one may sign.

    Raises InvalidInput "envelope.wrong_type", "key.invalid_point" or "wire.unknown_field", NotAuthenticated
    "envelope.wrong_key", Corrupt "envelope.bad_signature".
    """
    refuse_unknown_fields(envelope)
    if envelope.payload_type != expected_type:
        raise InvalidInput(
            "envelope.wrong_type",
            f"A signed {expected_type} was expected.",
            expected=expected_type,
            found=envelope.payload_type[:80],
        )
    if expected_key is not None and not hmac.compare_digest(envelope.public_key, expected_key):
        raise NotAuthenticated(
            "envelope.wrong_key",
            f"The {expected_type} is signed by another key than the one that must sign it.",
            expected=expected_key.hex(),
            found=envelope.public_key.hex()[:80],
        )
    message = signed_bytes(envelope.payload_type, envelope.payload)
    if not is_signed(envelope.public_key, message, envelope.signature):
        raise Corrupt(
            "envelope.bad_signature",
            f"The signature of the {expected_type} does not match its bytes.",
            next_step="Send it again; if it repeats, something between the two sides changes bytes.",
            public_key=envelope.public_key.hex(),
        )
    return envelope.payload
