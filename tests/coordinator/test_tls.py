"""The authority: made once, private, its leaf serving the fixed name and renewed in time."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import ipaddress
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from shardwork.clock import ManualClock
from shardwork.errors import InvalidInput, NotAllowed
from shardwork.identity.authority import ask_authority, fetch_ca, open_channel
from shardwork.protocol import COORDINATOR_NAME
from shardwork.session import JoinLine
from shardwork_coordinator.tls import FILE_NAME, Authority
from tests.enrolment_stand import Stand


def certificate(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def test_the_authority_is_made_once_and_keeps_its_fingerprint(tmp_path: Path) -> None:
    first, second = (Authority.load_or_create(tmp_path / "tls") for _ in range(2))
    assert first.ca_pem == second.ca_pem
    assert first.ca_sha256 == second.ca_sha256 == hashlib.sha256(first.ca_pem).hexdigest()


def test_its_key_is_private(tmp_path: Path) -> None:
    Authority.load_or_create(tmp_path / "tls")
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "tls" / FILE_NAME).stat().st_mode) == 0o600
    (tmp_path / "tls" / FILE_NAME).chmod(0o644)
    with pytest.raises(NotAllowed, match="chmod 600"):
        Authority.load_or_create(tmp_path / "tls")


def test_the_ca_signs_certificates_but_no_further_authority(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path / "tls")
    ca = certificate(authority.ca_pem)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints).value
    key = ca.public_key()
    assert (constraints.ca, constraints.path_length) == (True, 0)
    assert isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1"
    assert b"PRIVATE" not in authority.ca_pem


def test_the_leaf_carries_the_fixed_name_and_the_given_ones(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path / "tls", ["gpu.example.org", "::1", COORDINATOR_NAME])
    leaf = certificate(authority.leaf_pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [COORDINATOR_NAME, "gpu.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("::1")]
    leaf.verify_directly_issued_by(certificate(authority.ca_pem))


def test_the_leaf_lasts_as_long_as_its_authority_and_not_longer(tmp_path: Path) -> None:
    clock = ManualClock()
    Authority.load_or_create(tmp_path / "tls", clock=clock)
    clock.advance(10 * 365 * 86_400)
    authority = Authority.load_or_create(tmp_path / "tls", clock=clock)
    assert certificate(authority.leaf_pem).not_valid_after_utc == certificate(authority.ca_pem).not_valid_after_utc


def test_the_leaf_of_the_web_server_is_one_that_every_browser_takes(tmp_path: Path) -> None:
    leaf = certificate(Authority.load_or_create(tmp_path / "tls").web_leaf(["gpu.example.org"]))
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= datetime.timedelta(days=825)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_damaged_authority_is_refused_and_left_alone(tmp_path: Path, keep: int) -> None:
    Authority.load_or_create(tmp_path / "tls")
    path = tmp_path / "tls" / FILE_NAME
    text = path.read_bytes()[:keep] if keep >= 0 else path.read_bytes().partition(b"-----BEGIN CERTIFICATE")[0]
    path.write_bytes(text)
    with pytest.raises(InvalidInput) as caught:
        Authority.load_or_create(tmp_path / "tls")
    assert caught.value.code == "tls.damaged"
    assert path.read_bytes() == text


def test_a_key_that_is_not_the_certificates_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Authority.load_or_create(tmp_path / name)
    paths = [tmp_path / name / FILE_NAME for name in ("one", "two")]
    key = paths[0].read_bytes().partition(b"-----BEGIN CERTIFICATE")[0]
    paths[1].write_bytes(key + b"".join(paths[1].read_bytes().partition(b"-----BEGIN CERTIFICATE")[1:]))
    with pytest.raises(InvalidInput):
        Authority.load_or_create(tmp_path / "two")


async def test_the_leaf_alone_suffices_as_root_to_ask_for_the_ca(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand:
        async with open_channel(stand.join, stand.authority.leaf_pem) as channel:
            answer = await ask_authority(channel, stand.join)
        assert answer.ca_pem == stand.authority.ca_pem
        assert answer.coordinator_public_key == stand.key.public_key
        assert await fetch_ca(stand.join) == stand.authority.ca_pem


async def test_a_crowd_that_comes_at_once_is_let_in(tmp_path: Path) -> None:
    """gRPC crashed here while the leaf was one that may change: within the first thirty handshakes, most times."""
    async with Stand(tmp_path) as stand:

        async def come() -> set[bytes]:
            return {await fetch_ca(stand.join) for _ in range(40)}

        found = await asyncio.gather(*(come() for _ in range(8)))
        assert set().union(*found) == {stand.authority.ca_pem}


async def test_a_coordinator_on_ipv6_is_joined(tmp_path: Path) -> None:
    stand = Stand(tmp_path, host="::1")
    try:
        await stand.start()
    except RuntimeError:
        stand.store.close()
        pytest.skip("this machine has no IPv6 loopback")
    assert stand.join.text().startswith("shardwork://[::1]:")
    assert await fetch_ca(JoinLine.parse(stand.join.text())) == stand.authority.ca_pem
    await stand.stop()
    stand.store.close()
