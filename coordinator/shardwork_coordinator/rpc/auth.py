"""Who is calling: tokens, and the gate that every handler's servicer passes its call through.

A token is an envelope signed by the coordinator's own Ed25519 key over {audience, key, role, expiry}: nothing is
stored, and tokens outlive a restart. The gate verifies it, checks that the party is not revoked, and turns errors
raised by the handler into gRPC statuses. Tokens are issued by `rpc.enrolment` and renewed on live worker streams.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import traceback
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import grpc.aio

from shardwork.clock import Clock
from shardwork.errors import Internal, NotAllowed, NotAuthenticated, ShardworkError
from shardwork.identity.envelope import open_envelope, seal
from shardwork.identity.keys import SigningKey
from shardwork.identity.role import Role
from shardwork.ids import party_id
from shardwork.protocol import TOKEN_LIFETIME_S
from shardwork.v1 import types_pb2
from shardwork.why import Why
from shardwork.wire import abort_with, parse_strict

from ..records import Party
from ..store.base import Store, Transaction
from ..telemetry.logs import Log, request_id

TOKEN_TYPE = "shardwork.token.v1"
#: revocation takes effect within this time
PARTY_CACHE_S = 1.0
PARTY_CACHE_SIZE = 10_000

Context = grpc.aio.ServicerContext[Any, Any]

_log = Log("rpc")


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated party behind a call, in the one role that its token names."""

    party_id: str
    public_key: bytes
    role: Role


@dataclass(frozen=True, slots=True)
class Token:
    text: str
    expires_ms: int


class Tokens:
    """Issues and verifies tokens; stateless but for the coordinator's key."""

    def __init__(self, key: SigningKey, ca_sha256: str, clock: Clock) -> None:
        self._key = key
        self._audience = ca_sha256
        self._clock = clock

    def issue(self, public_key: bytes, role: Role) -> Token:
        expires_ms = self._clock.now_ms() + TOKEN_LIFETIME_S * 1000
        claims = {"aud": self._audience, "exp_ms": expires_ms, "key": public_key.hex(), "role": role.value}
        envelope = seal(self._key, TOKEN_TYPE, json.dumps(claims, sort_keys=True).encode())
        return Token(base64.urlsafe_b64encode(envelope.SerializeToString()).decode(), expires_ms)

    def verify(self, text: str) -> Caller:
        """Raises NotAuthenticated "auth.bad_token" or "auth.expired_token"."""
        try:
            envelope = parse_strict(types_pb2.Envelope, base64.b64decode(text, altchars=b"-_", validate=True))
            payload = open_envelope(envelope, TOKEN_TYPE, expected_key=self._key.public_key)
        except (binascii.Error, ValueError, ShardworkError):
            raise _refused("bad_token", "The token is not one of this coordinator's.") from None
        # signed by our own key, so the shape is what issue() wrote
        claims = json.loads(payload)
        if not hmac.compare_digest(claims["aud"], self._audience):
            raise _refused("bad_token", "The token is for another coordinator.")
        if self._clock.now_ms() >= claims["exp_ms"]:
            raise _refused("expired_token", "The token has expired.")
        public_key = bytes.fromhex(claims["key"])
        return Caller(party_id(public_key), public_key, Role(claims["role"]))


class Gate(Protocol):
    def admit(self, context: Context, *roles: Role) -> AbstractAsyncContextManager[Caller]:
        """The caller, if its token is good and its role is one of `roles` (none given: any role). A ShardworkError
        raised inside, or by the check itself, ends the call with its status; anything else ends it as Internal."""
        ...


class TokenGate:
    """The gate of a serving coordinator."""

    def __init__(self, tokens: Tokens, store: Store, clock: Clock, *, operator_public_key: bytes) -> None:
        self._tokens = tokens
        self._store = store
        self._clock = clock
        self._operator_public_key = operator_public_key
        #: party id -> (party, monotonic second at which it was read)
        self._known: dict[str, tuple[Party, float]] = {}

    @asynccontextmanager
    async def admit(self, context: Context, *roles: Role) -> AsyncGenerator[Caller, None]:
        async with answer_errors(context):
            caller = await self.authenticate(_bearer(context))
            check_role(caller, roles)
            yield caller

    async def authenticate(self, token: str) -> Caller:
        """The caller of a token. Raises NotAuthenticated "auth.…", NotAllowed "auth.revoked" or "auth.not_operator"."""
        caller = self._tokens.verify(token)
        party = await self._party(caller.party_id)
        if party is None:
            raise _refused("unknown_party", "The coordinator does not know this key any more.")
        if party.revoked:
            raise revoked(party)
        if caller.role is Role.OPERATOR and not hmac.compare_digest(caller.public_key, self._operator_public_key):
            raise NotAllowed("auth.not_operator", "This key is not the operator's any more.")
        return caller

    async def _party(self, wanted: str) -> Party | None:
        now_s = self._clock.monotonic()
        known = self._known.get(wanted)
        if known is not None and now_s - known[1] < PARTY_CACHE_S:
            return known[0]

        def read(tx: Transaction) -> Party | None:
            return tx.get(Party, wanted)

        party = await self._store.read(read)
        if len(self._known) >= PARTY_CACHE_SIZE:
            self._known.clear()
        if party is not None:
            self._known[wanted] = (party, now_s)
        return party


class FixedGate:
    """A gate that lets one caller through without a token, for tests of handlers and servicers."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    @asynccontextmanager
    async def admit(self, context: Context, *roles: Role) -> AsyncGenerator[Caller, None]:
        async with answer_errors(context):
            check_role(self.caller, roles)
            yield self.caller


@asynccontextmanager
async def answer_errors(context: Context) -> AsyncGenerator[None, None]:
    """Ends the call with the status of a ShardworkError raised inside. What nobody foresaw is logged, and only its
    existence is told: its text may hold what the caller must not see."""
    try:
        try:
            yield
        except ShardworkError as error:
            await abort_with(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception:
            _log.error("rpc.unexpected")
            next_step = "Tell the operator, who finds it in the coordinator's log under this request."
            sentence = "The coordinator met an error of its own."
            request = request_id.get() or "unknown"
            await abort_with(context, Internal("internal.unexpected", sentence, next_step=next_step, request=request))
    except grpc.aio.AbortError as aborted:
        asyncio.get_running_loop().call_soon(_let_go, aborted)
        raise


def _let_go(ended: BaseException) -> None:
    """Frees what a refused call held. grpc and the error hold each other until the collector comes by, and the error
    holds every frame that it passed: a request of 4 MiB and what was made of it, for each refused call."""
    error: BaseException | None = ended
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def check_role(caller: Caller, roles: tuple[Role, ...]) -> None:
    """Raises NotAllowed "auth.wrong_role" unless `roles` is empty or has the caller's."""
    if roles and caller.role not in roles:
        raise _wrong_role(caller, roles)


def revoked(party: Party) -> NotAllowed:
    told = Why.from_json(party.standing_why_json).evidence if party.standing_why_json else dict[str, str]()
    return NotAllowed(
        "auth.revoked",
        "The operator has revoked this key.",
        next_step="Ask the operator.",
        party=party.id,
        **{name: told[name] for name in ("reason",) if told.get(name)},
    )


def _bearer(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            if scheme == "Bearer" and token:
                return token
    raise _refused("no_token", "The call carries no token.")


def _refused(case: str, sentence: str) -> NotAuthenticated:
    return NotAuthenticated(f"auth.{case}", sentence, next_step="Enrol again.")


def _wrong_role(caller: Caller, roles: tuple[Role, ...]) -> NotAllowed:
    wanted = " or ".join(roles)
    return NotAllowed(
        "auth.wrong_role",
        f"This call is for the {wanted}, not for a {caller.role}.",
        next_step=f"Use the key of the {wanted}.",
        role=caller.role,
        wanted=wanted,
    )
