"""Envelopes: committed vectors, an independent verifier, and no single bit that may change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from shardwork.errors import Corrupt, InvalidInput, NotAuthenticated, ShardworkError
from shardwork.identity.envelope import open_envelope, seal, signed_bytes
from shardwork.identity.keys import SigningKey
from shardwork.v1 import types_pb2
from shardwork.wire import parse_strict

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "envelope.json").read_text("utf-8"))
VALID: list[dict[str, str]] = VECTORS["valid"]
KEY = SigningKey(b"\x01" * 32)


@pytest.mark.parametrize("vector", VALID, ids=lambda vector: vector["name"])
def test_envelopes_match_the_committed_vectors(vector: dict[str, str]) -> None:
    key, payload = SigningKey(bytes.fromhex(vector["seed"])), bytes.fromhex(vector["payload"])
    envelope = seal(key, vector["payload_type"], payload)
    assert signed_bytes(vector["payload_type"], payload).hex() == vector["signed_bytes"]
    assert envelope.public_key.hex() == vector["public_key"]
    assert envelope.signature.hex() == vector["signature"]
    assert open_envelope(envelope, vector["payload_type"]) == payload


@pytest.mark.parametrize("vector", VALID, ids=lambda vector: vector["name"])
def test_another_library_accepts_the_vectors(vector: dict[str, str]) -> None:
    verifier = Ed25519PublicKey.from_public_bytes(bytes.fromhex(vector["public_key"]))
    verifier.verify(bytes.fromhex(vector["signature"]), bytes.fromhex(vector["signed_bytes"]))


def test_the_encoding_is_the_one_of_the_dsse_specification() -> None:
    # the example of the protocol document of DSSE v1
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert signed_bytes("http://example.com/HelloWorld", b"hello world") == expected


def test_every_single_bit_of_the_serialised_envelope_counts() -> None:
    raw = seal(KEY, "shardwork.lease.v1", b"forty bytes of payload").SerializeToString()
    for position in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[position] ^= 1 << bit
            with pytest.raises(ShardworkError):
                open_envelope(parse_strict(types_pb2.Envelope, bytes(changed)), "shardwork.lease.v1")


@pytest.mark.parametrize("field", ["payload", "signature"])
def test_a_changed_byte_is_told_as_corruption(field: str) -> None:
    envelope = seal(KEY, "a", b"payload")
    value = bytearray(getattr(envelope, field))
    value[-1] ^= 1
    setattr(envelope, field, bytes(value))
    with pytest.raises(Corrupt) as caught:
        open_envelope(envelope, "a")
    assert caught.value.code == "envelope.bad_signature"


def test_a_payload_never_passes_as_another_type() -> None:
    envelope = seal(KEY, "shardwork.commit.v1", b"payload")
    with pytest.raises(InvalidInput) as caught:
        open_envelope(envelope, "shardwork.submission.v1")
    assert caught.value.code == "envelope.wrong_type"
    envelope.payload_type = "shardwork.submission.v1"
    with pytest.raises(Corrupt):
        open_envelope(envelope, "shardwork.submission.v1")


def test_only_the_expected_key_may_sign() -> None:
    envelope = seal(KEY, "a", b"payload")
    assert open_envelope(envelope, "a", expected_key=KEY.public_key) == b"payload"
    with pytest.raises(NotAuthenticated) as caught:
        open_envelope(envelope, "a", expected_key=SigningKey.generate().public_key)
    assert caught.value.code == "envelope.wrong_key"


@pytest.mark.parametrize("key", VECTORS["refused_public_keys"])
def test_keys_of_small_order_are_refused_even_where_their_signature_would_hold(key: str) -> None:
    # with the identity as key, R = identity and S = 0 satisfy the equation for every message
    signature = (b"\x01" + b"\x00" * 31) + b"\x00" * 32
    envelope = types_pb2.Envelope(
        payload_type="a", payload=b"any message", public_key=bytes.fromhex(key), signature=signature
    )
    with pytest.raises(InvalidInput) as caught:
        open_envelope(envelope, "a")
    assert caught.value.code == "key.invalid_point"


def test_a_signature_with_the_group_order_added_is_refused() -> None:
    envelope = seal(KEY, "a", b"payload")
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(envelope.signature[32:], "little") + order
    envelope.signature = envelope.signature[:32] + scalar.to_bytes(32, "little")
    with pytest.raises(Corrupt):
        open_envelope(envelope, "a")


def test_nothing_can_be_smuggled_beside_the_signed_fields() -> None:
    raw = seal(KEY, "a", b"payload").SerializeToString() + b"\x2a\x04evil"
    with pytest.raises(InvalidInput) as caught:
        open_envelope(types_pb2.Envelope.FromString(raw), "a")
    assert caught.value.code == "wire.unknown_field"
    assert caught.value.why.evidence["field"] == "5"


@given(kinds=st.tuples(st.text(), st.text()), payloads=st.tuples(st.binary(), st.binary()))
def test_different_contents_never_share_signed_bytes(kinds: tuple[str, str], payloads: tuple[bytes, bytes]) -> None:
    same = (kinds[0], payloads[0]) == (kinds[1], payloads[1])
    assert (signed_bytes(kinds[0], payloads[0]) == signed_bytes(kinds[1], payloads[1])) == same
