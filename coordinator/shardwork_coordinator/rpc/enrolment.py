"""Enrolment: how a key becomes a known party with a token. The only calls that need no token.

Owns challenges and the checks of an answer; keeps parties through the store. Requesters and workers are welcome unless
`open_roles` says otherwise; the operator is the one key that `serve` wrote.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from shardwork.clock import Clock
from shardwork.errors import InvalidInput, LimitExceeded, NotAllowed, NotAuthenticated
from shardwork.identity.envelope import open_envelope
from shardwork.identity.keys import check_public_key
from shardwork.identity.role import Role, role_from_proto
from shardwork.ids import party_id
from shardwork.protocol import ENROLMENT_TYPE, PROTOCOL_VERSIONS, negotiate, software_version
from shardwork.v1 import enrolment_pb2, enrolment_pb2_grpc
from shardwork.wire import parse_strict

from ..records import Party
from ..store.base import Store, Transaction
from .auth import Context, Tokens, answer_errors, revoked

CHALLENGE_LIFETIME_S = 60
#: answered challenges that are remembered until they would have expired anyway
MAX_USED_CHALLENGES = 100_000
#: keys that nobody knows yet: each leaves a row for ever, and anybody can make a million of them
MOST_NEW_A_MINUTE = 2_000
MAX_NAME_LETTERS = 64
MAX_ADDRESS_LETTERS = 320
MAX_VERSION_LETTERS = 32


class Challenges:
    """Nonces bound to one key, good for one minute and one use.

    A nonce is 6 bytes of time, 10 random ones and a 16-byte MAC over them and the key, so that asking for challenges
    costs the coordinator no memory; only answered ones are remembered. They end with the process.
    """

    def __init__(self, clock: Clock, *, max_used: int = MAX_USED_CHALLENGES) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._max_used = max_used
        #: nonce -> when it expires, oldest first
        self._used: dict[bytes, int] = {}

    def issue(self, public_key: bytes) -> bytes:
        expires_ms = self._clock.now_ms() + CHALLENGE_LIFETIME_S * 1000
        head = expires_ms.to_bytes(6, "big") + secrets.token_bytes(10)
        return head + self._mac(head, public_key)

    def redeem(self, nonce: bytes, public_key: bytes) -> None:
        """Raises NotAuthenticated "enrolment.stale_nonce" for anything but a live, unused nonce of this key."""
        now_ms, head = self._clock.now_ms(), nonce[:16]
        expires_ms = int.from_bytes(nonce[:6], "big")
        genuine = hmac.compare_digest(nonce[16:], self._mac(head, public_key))
        if not genuine or now_ms >= expires_ms or nonce in self._used:
            raise NotAuthenticated(
                "enrolment.stale_nonce",
                "The challenge has expired, was already answered, or is not this key's.",
                next_step="Ask for a new challenge.",
            )
        self._forget_expired(now_ms)
        if len(self._used) >= self._max_used:
            raise LimitExceeded(
                "enrolment.busy", "Too many keys enrol at the same time.", next_step="Try again in a minute."
            )
        self._used[nonce] = expires_ms

    def _mac(self, head: bytes, public_key: bytes) -> bytes:
        return hmac.new(self._secret, head + public_key, hashlib.sha256).digest()[:16]

    def _forget_expired(self, now_ms: int) -> None:
        # in order of answering, which is not quite the order of expiry: a few live a minute longer than they need to
        while self._used:
            oldest = next(iter(self._used))
            if self._used[oldest] > now_ms:
                return
            del self._used[oldest]


class Newcomers:
    """Lets so many new keys in per minute. Keys that are known already are never counted."""

    def __init__(self, most_a_minute: int = MOST_NEW_A_MINUTE) -> None:
        self._most = most_a_minute
        self._since_s = float("-inf")
        self._came = 0

    def admit(self, now_s: float) -> None:
        """Raises LimitExceeded "enrolment.too_many_new"."""
        if now_s - self._since_s >= 60.0:
            self._since_s, self._came = now_s, 0
        if self._came >= self._most:
            raise LimitExceeded(
                "enrolment.too_many_new",
                "Too many new keys enrol at the same time.",
                next_step="Try again in a minute.",
                most_a_minute=self._most,
            )
        self._came += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentDesk:
    """What the handlers need. `ca_pem` and its digest as in the join line."""

    ca_pem: bytes
    ca_sha256: str
    coordinator_public_key: bytes
    operator_public_key: bytes
    tokens: Tokens
    store: Store
    clock: Clock
    challenges: Challenges
    newcomers: Newcomers = field(default_factory=Newcomers)
    open_roles: frozenset[Role] = field(default=frozenset({Role.REQUESTER, Role.WORKER}))
    #: host:port of every coordinator of the cluster, this one first
    addresses: Callable[[], Sequence[str]] = tuple


async def get_authority(
    request: enrolment_pb2.GetAuthorityRequest, desk: EnrolmentDesk
) -> enrolment_pb2.GetAuthorityResponse:
    return enrolment_pb2.GetAuthorityResponse(
        ca_pem=desk.ca_pem,
        coordinator_version=software_version(),
        protocol_versions=PROTOCOL_VERSIONS,
        coordinator_public_key=desk.coordinator_public_key,
    )


async def get_challenge(
    request: enrolment_pb2.GetChallengeRequest, desk: EnrolmentDesk
) -> enrolment_pb2.GetChallengeResponse:
    check_public_key(request.public_key)
    return enrolment_pb2.GetChallengeResponse(nonce=desk.challenges.issue(request.public_key))


async def enrol(request: enrolment_pb2.EnrolRequest, desk: EnrolmentDesk) -> enrolment_pb2.EnrolResponse:
    """Checks signature, nonce, coordinator, version, role and texts, in this order; then keeps the party."""
    public_key = request.envelope.public_key
    answer = parse_strict(enrolment_pb2.Enrolment, open_envelope(request.envelope, ENROLMENT_TYPE))
    desk.challenges.redeem(answer.nonce, public_key)
    _check_audience(answer, desk)
    version = negotiate(answer.protocol_versions, PROTOCOL_VERSIONS)
    role = role_from_proto(answer.role)
    _check_role(role, public_key, desk)
    _check_text("name", answer.name, MAX_NAME_LETTERS)
    _check_text("payout_address", answer.payout_address, MAX_ADDRESS_LETTERS)
    _check_text("software_version", answer.software_version, MAX_VERSION_LETTERS)
    known = await desk.store.read(lambda tx: tx.get(Party, party_id(public_key)))
    if known is None and role is not Role.OPERATOR:
        desk.newcomers.admit(desk.clock.monotonic())
    party = await _keep(public_key, role, answer, desk)
    token = desk.tokens.issue(public_key, role)
    return enrolment_pb2.EnrolResponse(
        token=token.text,
        expires_unix_ms=token.expires_ms,
        party_id=party.id,
        protocol_version=version,
        addresses=desk.addresses(),
    )


async def _keep(public_key: bytes, role: Role, answer: enrolment_pb2.Enrolment, desk: EnrolmentDesk) -> Party:
    """The party as stored. Raises NotAllowed "auth.revoked"."""
    now_ms, party = desk.clock.now_ms(), party_id(public_key)

    def work(tx: Transaction) -> Party:
        known = tx.get(Party, party)
        if known is None:
            known = Party(id=party, public_key=public_key, roles="", name="", created_ms=now_ms, last_seen_ms=now_ms)
        if known.revoked:
            raise revoked(known)
        kept = _updated(known, role, answer, now_ms)
        tx.put(kept)
        return kept

    return await desk.store.write(work)


def _updated(known: Party, role: Role, answer: enrolment_pb2.Enrolment, now_ms: int) -> Party:
    """Roles add up; a text that the answer leaves empty stays as it was."""
    roles = {Role(name) for name in known.roles.split(",") if name} | {role}
    return replace(
        known,
        roles=",".join(sorted(roles)),
        name=answer.name or known.name,
        payout_address=answer.payout_address or known.payout_address,
        software_version=answer.software_version,
        last_seen_ms=now_ms,
    )


def _check_audience(answer: enrolment_pb2.Enrolment, desk: EnrolmentDesk) -> None:
    """A proof made for another coordinator must not work here: somebody in the middle may be passing it on."""
    if not hmac.compare_digest(answer.ca_sha256.encode(), desk.ca_sha256.encode()):
        raise NotAuthenticated(
            "enrolment.wrong_coordinator",
            "The enrolment was signed for another coordinator.",
            next_step="Check the join line; something may sit between you and the coordinator.",
        )


def _check_role(role: Role, public_key: bytes, desk: EnrolmentDesk) -> None:
    if role is Role.OPERATOR:
        if not hmac.compare_digest(public_key, desk.operator_public_key):
            raise NotAllowed(
                "enrolment.not_operator",
                "This key is not the operator's.",
                next_step="Use the key that the coordinator wrote into its data folder.",
            )
    elif role not in desk.open_roles:
        raise NotAllowed(
            "enrolment.closed", f"This coordinator takes no new {role}.", next_step="Ask the operator.", role=role
        )


def _check_text(field_name: str, text: str, limit: int) -> None:
    if len(text) > limit or not text.isprintable():
        raise InvalidInput(
            "enrolment.bad_text",
            f"{field_name} must have at most {limit} printable letters.",
            next_step="Give a shorter one, without line breaks.",
            field=field_name,
            letters=len(text),
        )


class EnrolmentServicer(enrolment_pb2_grpc.EnrolmentServiceServicer):
    def __init__(self, desk: EnrolmentDesk) -> None:
        self._desk = desk

    async def GetAuthority(
        self, request: enrolment_pb2.GetAuthorityRequest, context: Context
    ) -> enrolment_pb2.GetAuthorityResponse:
        async with answer_errors(context):
            return await get_authority(request, self._desk)

    async def GetChallenge(
        self, request: enrolment_pb2.GetChallengeRequest, context: Context
    ) -> enrolment_pb2.GetChallengeResponse:
        async with answer_errors(context):
            return await get_challenge(request, self._desk)

    async def Enrol(self, request: enrolment_pb2.EnrolRequest, context: Context) -> enrolment_pb2.EnrolResponse:
        async with answer_errors(context):
            return await enrol(request, self._desk)
