"""The coordinator's own certificate authority and the certificate it serves gRPC with.

Owns the CA (P-256, made at first start, kept in one private file: its fingerprint is in every join line) and the leaf
(in memory only, made at every start, good for as long as the CA). P-256 because gRPC's TLS cannot serve Ed25519
certificates. The web server gets a leaf as well where nobody named another. Used by the app's composition root.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shardwork.clock import Clock, SystemClock
from shardwork.errors import InvalidInput
from shardwork.identity.private_file import create_private, read_private
from shardwork.ids import sha256_hex
from shardwork.protocol import COORDINATOR_NAME

FILE_NAME = "authority.pem"
#: long, because a new CA means a new join line for everybody
CA_LIFETIME = datetime.timedelta(days=20 * 365)
#: the web server's leaf; Apple's browsers take none with more than 825 days, even under a root that a person added
WEB_LEAF_LIFETIME = datetime.timedelta(days=820)
#: certificates are valid from a day ago, for machines whose clock is behind
BACKDATE = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Leaf:
    key_pem: bytes
    certificate_pem: bytes


class Authority:
    """A CA and its current leaf. `ca_pem` is what the join line's fingerprint is over, byte for byte."""

    def __init__(
        self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, names: Sequence[str], *, clock: Clock
    ) -> None:
        self._key = key
        self._certificate = certificate
        self._names = tuple(dict.fromkeys((COORDINATOR_NAME, *names)))
        self._clock = clock
        self.ca_pem: bytes = _certificate_pem(certificate)
        self.ca_sha256: str = sha256_hex(self.ca_pem)
        self._leaf = self._issue(CA_LIFETIME)

    @classmethod
    def load_or_create(cls, folder: Path, names: Sequence[str] = (), *, clock: Clock | None = None) -> Authority:
        """The CA in `folder`, made there at first start. `names`: further host names or addresses for the leaf.

        Raises NotAllowed "key.loose_mode" and InvalidInput "tls.damaged".
        """
        clock = clock or SystemClock()
        path = folder / FILE_NAME
        text = read_private(path)
        if text is None:
            create_private(path, _new_authority_pem(_now(clock)))
            text = read_private(path)
        key, certificate = _parse(path, text or b"")
        return cls(key, certificate, names, clock=clock)

    def server_credentials(self) -> grpc.ServerCredentials:
        """TLS for a gRPC server.

        Never a leaf that is exchanged while the server runs: gRPC then frees the old one under handshakes that still
        read it (grpc/grpc issue 36693), and six clients that enrol at once end the process. Measured, not feared.
        """
        return grpc.ssl_server_credentials([(self._leaf.key_pem, self._leaf.certificate_pem)])

    @property
    def leaf_pem(self) -> bytes:
        """The certificate that is served."""
        return self._leaf.certificate_pem

    def web_leaf(self, names: Sequence[str]) -> bytes:
        """Key and certificate, PEM, for the web server under these names and addresses; browsers trust it once they
        trust the authority."""
        leaf = self._issue(WEB_LEAF_LIFETIME, names)
        return leaf.key_pem + leaf.certificate_pem

    def _issue(self, lifetime: datetime.timedelta, further: Sequence[str] = ()) -> _Leaf:
        now, key = _now(self._clock), ec.generate_private_key(ec.SECP256R1())
        expires = min(now + lifetime, self._certificate.not_valid_after_utc)
        names = [_general_name(name) for name in (*self._names, *further)]
        builder = _builder("Shardwork coordinator", self._certificate.subject, key.public_key())
        certificate = (
            builder.not_valid_before(now - BACKDATE)
            .not_valid_after(expires)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _Leaf(_key_pem(key), _certificate_pem(certificate))


def _new_authority_pem(now: datetime.datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Shardwork authority")
    certificate = (
        _builder("Shardwork authority", name, key.public_key())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_ca_usage(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _key_pem(key) + _certificate_pem(certificate)


def _builder(subject: str, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(_name(subject)).issuer_name(issuer)
    return builder.public_key(public_key).serial_number(x509.random_serial_number())


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _parse(path: Path, text: bytes) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        key = serialization.load_pem_private_key(text, password=None)
        certificate = x509.load_pem_x509_certificate(text)
    except ValueError:
        raise _damaged(path) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise _damaged(path)
    return key, certificate


def _damaged(path: Path) -> InvalidInput:
    return InvalidInput(
        "tls.damaged",
        "The authority file does not hold a P-256 key and its certificate.",
        next_step="Restore it from a backup. Moving it away makes a new authority, and every join line changes.",
        path=path,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _now(clock: Clock) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(clock.now_ms() / 1000, tz=datetime.UTC)
