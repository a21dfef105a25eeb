"""Whom to trust: the join line, and the step from its fingerprint to a channel that only that coordinator can answer.

A join line carries SHA-256 of the coordinator's CA certificate. The CA itself is fetched over a connection that is
trusted with nothing: a bare TLS handshake shows the leaf certificate, gRPC connects with that leaf as its only root and
asks for the CA. Only when its digest equals the join line's does anything else get sent, over a new channel whose only
root is that CA. Used by `shardwork.session`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

import grpc
import grpc.aio

from ..errors import InvalidInput, NotAuthenticated, ShardworkError, Unreachable
from ..protocol import COORDINATOR_NAME, MAX_MESSAGE_BYTES
from ..v1 import enrolment_pb2, enrolment_pb2_grpc
from ..wire import error_from_rpc, unreachable

SCHEME = "shardwork"
_UNTIL_THE_PATH = re.compile(r"[^/?#]*")
CONNECT_TIMEOUT_S = 10.0
#: coordinators of one cluster that a join line names
MOST_ADDRESSES = 16

CHANNEL_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.ssl_target_name_override", COORDINATOR_NAME),
    # measured: the bandwidth probe grows buffers to +377 MB on 1 MiB frames
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # the CA is fetched over a direct connection, so calls must not take another way
    ("grpc.enable_http_proxy", 0),
    # a coordinator that restarts is found again within seconds
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # finds a dead peer behind a silent network; servers refuse pings more often than every 5 minutes
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # one connection per session: sessions in one process must not share fate or counters
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class JoinLine:
    """Where a coordinator answers and how to recognise it."""

    host: str
    port: int
    #: SHA-256 of the CA certificate's PEM bytes, 64 lower-case hex digits
    ca_sha256: str
    #: host:port of further coordinators of the same cluster, which the same authority vouches for
    others: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """host:port, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of them, the first first."""
        return (self.address, *self.others)

    def text(self) -> str:
        return f"{SCHEME}://{','.join(self.addresses)}?ca={self.ca_sha256}"

    @classmethod
    def of(cls, addresses: Sequence[str], ca_sha256: str) -> JoinLine:
        """The join line of these host:port, without repetitions. Raises InvalidInput "join.bad_address"."""
        (host, port), *others = [_host_and_port(one, one) for one in dict.fromkeys(addresses)]
        return cls(host, port, ca_sha256, tuple(cls(*one, ca_sha256).address for one in others))

    def at(self, address: str) -> JoinLine:
        """The same cluster, asked at this address first."""
        return JoinLine.of((address, *self.addresses), self.ca_sha256)

    def knowing(self, addresses: Sequence[str]) -> JoinLine:
        """With further addresses behind those that it has. What can't be one is left out: a coordinator said it."""
        good: list[str] = []
        for one in addresses:
            with contextlib.suppress(InvalidInput):
                host, port = _host_and_port(one, one)
                good.append(JoinLine(host, port, "").address)
        return JoinLine.of(tuple(dict.fromkeys((*self.addresses, *good)))[:MOST_ADDRESSES], self.ca_sha256)

    @classmethod
    def parse(cls, text: str) -> JoinLine:
        """Inverse of text(). Raises InvalidInput "join.…" naming what is wrong."""
        scheme, _, rest = text.strip().partition("://")
        if scheme.lower() != SCHEME:
            raise _bad_join("wrong_scheme", f"A join line starts with {SCHEME}://.", text)
        addresses = _UNTIL_THE_PATH.match(rest)
        listed = addresses.group() if addresses else ""
        places = [_host_and_port(one, text) for one in listed.split(",")]
        # without the addresses: a list of them is no netloc
        parts = urlsplit(f"//host{rest[len(listed) :]}")
        if parts.path not in ("", "/") or parts.fragment:
            raise _bad_join("unknown_part", "The join line has more than an address and ?ca=.", text)
        if len(places) > MOST_ADDRESSES:
            raise _bad_join("bad_address", f"A join line has at most {MOST_ADDRESSES} addresses.", text)
        fingerprint = _fingerprint(parts.query, text)
        return cls.of([cls(host, port, "").address for host, port in places], fingerprint)


def _host_and_port(address: str, text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _bad_join("bad_address", f"The join line's address is not valid: {error}.", text) from None
    is_more = parts.username is not None or parts.password is not None or parts.path or parts.query or parts.fragment
    if not host or is_more or any(map(str.isspace, host)):
        raise _bad_join("bad_address", "The join line needs a host and a port, and nothing before them.", text)
    if not port:
        raise _bad_join("missing_port", "The join line names no port.", text)
    return host, port


def _fingerprint(query: str, text: str) -> str:
    values = parse_qsl(query, keep_blank_values=True)
    unknown = [key for key, _ in values if key != "ca"]
    if unknown:
        raise _bad_join("unknown_part", f"The join line has an unknown part {unknown[0]!r}; only ca is known.", text)
    if len(values) != 1:
        raise _bad_join("missing_ca", "The join line needs the coordinator's fingerprint once, as ?ca=….", text)
    digest = values[0][1].lower()
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise _bad_join("bad_ca", "The fingerprint after ca= must have 64 hex digits.", text, digits=len(digest))
    return digest


def _bad_join(case: str, sentence: str, text: str, **evidence: object) -> InvalidInput:
    next_step = f"Copy the whole line that the coordinator printed: {SCHEME}://HOST:PORT?ca=FINGERPRINT"
    return InvalidInput(f"join.{case}", sentence, next_step=next_step, join=text[:200], **evidence)


def open_channel(join: JoinLine, root_pem: bytes) -> grpc.aio.Channel:
    """A channel that only holders of a certificate under `root_pem` can answer. Connects on first use."""
    credentials = grpc.ssl_channel_credentials(root_pem)
    return grpc.aio.secure_channel(join.address, credentials, options=CHANNEL_OPTIONS)


async def fetch_ca(join: JoinLine, *, timeout_s: float = CONNECT_TIMEOUT_S) -> bytes:
    """The CA certificate (PEM) whose SHA-256 the join line names. Sends nothing but the question.

    Raises Unreachable, or NotAuthenticated "authority.wrong_fingerprint".
    """
    leaf = await _peer_certificate(join, timeout_s)
    async with open_channel(join, leaf) as channel:
        answer = await ask_authority(channel, join, timeout_s=timeout_s)
    found = hashlib.sha256(answer.ca_pem).hexdigest()
    if not hmac.compare_digest(found, join.ca_sha256):
        raise NotAuthenticated(
            "authority.wrong_fingerprint",
            f"What answers at {join.address} is not the coordinator that the join line names. Nothing was sent to it.",
            next_step="Ask the operator for the current join line; a new one is printed when the coordinator starts.",
            address=join.address,
            expected=join.ca_sha256,
            found=found,
        )
    return answer.ca_pem


async def ask_authority(
    channel: grpc.aio.Channel, join: JoinLine, *, timeout_s: float = CONNECT_TIMEOUT_S
) -> enrolment_pb2.GetAuthorityResponse:
    """GetAuthority; trust the answer only as far as the channel's root."""
    stub = enrolment_pb2_grpc.EnrolmentServiceStub(channel)
    try:
        return await stub.GetAuthority(enrolment_pb2.GetAuthorityRequest(), timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error, join.address) from None


async def _peer_certificate(join: JoinLine, timeout_s: float) -> bytes:
    """The leaf certificate (PEM) that answers there, unverified: it only serves as the root of one question."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(
                join.host, join.port, ssl=context, server_hostname=COORDINATOR_NAME
            )
    except TimeoutError:
        raise unreachable(join.address, f"no answer within {timeout_s:g} s") from None
    except (ssl.SSLEOFError, ConnectionResetError) as error:
        raise Unreachable(
            "coordinator.hung_up",
            f"What answers at {join.address} hung up before it said who it is.",
            next_step="A coordinator with too many connections does so: try again in a minute. If it repeats, check "
            "the host and the port of the join line.",
            address=join.address,
            reason=str(error)[:300],
        ) from None
    except ssl.SSLError as error:
        raise _not_a_coordinator(join, str(error)) from None
    except OSError as error:
        raise unreachable(join.address, str(error)) from None
    try:
        certificate: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        # abort, not close: nothing is in flight, and a peer that never answers a close must not hold us up
        writer.transport.abort()
    if certificate is None:
        raise _not_a_coordinator(join, "it shows no certificate")
    return ssl.DER_cert_to_PEM_cert(certificate).encode()


def _not_a_coordinator(join: JoinLine, reason: str) -> ShardworkError:
    return Unreachable(
        "coordinator.not_a_coordinator",
        f"Something answers at {join.address}, but it is not a Shardwork coordinator.",
        next_step="Check the host and the port of the join line.",
        address=join.address,
        reason=reason[:300],
    )
