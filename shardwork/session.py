"""A session: an enrolled connection to a coordinator, and the only way that clients and workers call it.

Owns the channel, the token and its renewal, retries, the protocol version, and going on to another coordinator of the
same cluster when this one ends: they have one authority, one signing key and one database. Nothing secret is sent
before the coordinator proved to be the one in the join line (`identity.authority`). Caches nothing on disk. Used by the
client, the worker's agent and `shardwork.transfer`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio

from . import tracing
from .channel import SwitchedChannel
from .clock import Clock, SystemClock
from .errors import NotAuthenticated, ShardworkError, Unreachable
from .identity.authority import JoinLine, ask_authority, fetch_ca, open_channel
from .identity.envelope import seal
from .identity.keys import SigningKey
from .identity.role import Role, role_to_proto
from .ids import party_id
from .pace import Pace
from .protocol import ENROLMENT_TYPE, PROTOCOL_VERSIONS, TOKEN_LIFETIME_S, negotiate, software_version
from .v1 import enrolment_pb2, enrolment_pb2_grpc
from .wire import error_from_rpc

if TYPE_CHECKING:
    from .v1.api_keys_pb2_grpc import ApiKeysServiceAsyncStub
    from .v1.artifacts_pb2_grpc import ArtifactsServiceAsyncStub
    from .v1.enrolment_pb2_grpc import EnrolmentServiceAsyncStub
    from .v1.jobs_pb2_grpc import JobsServiceAsyncStub
    from .v1.models_pb2_grpc import ModelsServiceAsyncStub
    from .v1.operator_pb2_grpc import OperatorServiceAsyncStub
    from .v1.storage_pb2_grpc import StorageServiceAsyncStub
    from .v1.wallet_pb2_grpc import WalletServiceAsyncStub
    from .v1.work_pb2_grpc import WorkServiceAsyncStub

__all__ = ["JoinLine", "Session"]

Request = TypeVar("Request")
Response = TypeVar("Response")

#: a token is renewed once this share of its life has passed
RENEW_AT = 0.8
#: full jitter: attempt n waits a random time up to BACKOFF_S * 2^n, at most BACKOFF_CAP_S
BACKOFF_S = 0.25
BACKOFF_CAP_S = 8.0
ENROL_TIMEOUT_S = 15.0
#: a coordinator that we know gets so long to answer before another is tried, and each of those
STAY_TIMEOUT_S, MOVE_TIMEOUT_S = 0.5, 2.0


class Session:
    """Made by `Session.open`. Safe for many concurrent calls on one event loop."""

    #: for stubs and single calls; the same whichever coordinator answers
    channel: grpc.aio.Channel
    coordinator_public_key: bytes
    #: the version both sides speak
    protocol_version: int

    def __init__(self, join: JoinLine, key: SigningKey, role: Role, *, clock: Clock) -> None:
        """Not connected yet; use `Session.open`."""
        #: the coordinator that answers, then the others of its cluster
        self.join = join
        self.role = role
        self.party_id: str = party_id(key.public_key)
        self._key = key
        self._clock = clock
        self._name = ""
        self._payout_address = ""
        self._token = ""
        self._renew_at_s = 0.0
        self._enrolling = asyncio.Lock()
        self._moving = asyncio.Lock()
        #: the addresses of the join line
        self._given = join.addresses
        self._ca_pem = b""
        #: holds transfers back and counts them; None: nobody does
        self.pace: Pace | None = None
        self._switch: SwitchedChannel

    @classmethod
    async def open(
        cls,
        join: JoinLine,
        key: SigningKey,
        role: Role,
        *,
        name: str = "",
        payout_address: str = "",
        clock: Clock | None = None,
    ) -> Session:
        """Checks the coordinator against the join line, agrees on a version and enrols.

        Raises Unreachable, NotAuthenticated "authority.wrong_fingerprint", Conflict "protocol.no_common_version",
        NotAllowed "enrolment.…". Tries each address once: whether to wait for a coordinator is the caller's choice.
        """
        unreached: Unreachable | None = None
        for address in join.addresses:
            session = cls(join.at(address), key, role, clock=clock or SystemClock())
            session._name, session._payout_address = name, payout_address
            try:
                await session._connect()
            except Unreachable as error:
                unreached = unreached or error
            else:
                return session
        assert unreached is not None
        raise unreached

    async def _connect(self) -> None:
        self._ca_pem = await fetch_ca(self.join)
        self._switch = SwitchedChannel(open_channel(self.join, self._ca_pem))
        self.channel = self._switch.as_channel()
        try:
            await self._greet()
            await self.renew()
        except BaseException:
            await self.channel.close()
            raise

    @property
    def host(self) -> str:
        """Where the coordinator is dialled: a name or an address."""
        return self.join.host

    @cached_property
    def enrolment(self) -> EnrolmentServiceAsyncStub:
        return enrolment_pb2_grpc.EnrolmentServiceStub(self.channel)

    @cached_property
    def jobs(self) -> JobsServiceAsyncStub:
        from .v1 import jobs_pb2_grpc

        return jobs_pb2_grpc.JobsServiceStub(self.channel)

    @cached_property
    def work(self) -> WorkServiceAsyncStub:
        from .v1 import work_pb2_grpc

        return work_pb2_grpc.WorkServiceStub(self.channel)

    @cached_property
    def artifacts(self) -> ArtifactsServiceAsyncStub:
        from .v1 import artifacts_pb2_grpc

        return artifacts_pb2_grpc.ArtifactsServiceStub(self.channel)

    @cached_property
    def storage(self) -> StorageServiceAsyncStub:
        from .v1 import storage_pb2_grpc

        return storage_pb2_grpc.StorageServiceStub(self.channel)

    @cached_property
    def models(self) -> ModelsServiceAsyncStub:
        from .v1 import models_pb2_grpc

        return models_pb2_grpc.ModelsServiceStub(self.channel)

    @cached_property
    def wallet(self) -> WalletServiceAsyncStub:
        from .v1 import wallet_pb2_grpc

        return wallet_pb2_grpc.WalletServiceStub(self.channel)

    @cached_property
    def api_keys(self) -> ApiKeysServiceAsyncStub:
        from .v1 import api_keys_pb2_grpc

        return api_keys_pb2_grpc.ApiKeysServiceStub(self.channel)

    @cached_property
    def operator(self) -> OperatorServiceAsyncStub:
        from .v1 import operator_pb2_grpc

        return operator_pb2_grpc.OperatorServiceStub(self.channel)

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        timeout_s: float = 30.0,
        retries: int = 5,
    ) -> Response:
        """One unary call. `timeout_s` bounds each attempt; up to `retries` more follow when nothing answered.

        The request may reach the coordinator more than once, so every call of the contract is idempotent. Raises the
        ShardworkError that the coordinator raised, or Unreachable.
        """
        attempt, renewed = 0, False
        while True:
            token = ""
            try:
                metadata = await self.metadata()
                token = self._token
                return await method(request, metadata=metadata, timeout=timeout_s)
            except grpc.aio.AioRpcError as rpc_error:
                error = error_from_rpc(rpc_error, self.join.address)
            except ShardworkError as enrol_error:
                error = enrol_error
            if isinstance(error, NotAuthenticated) and token and not renewed:
                renewed = True
                self._forget(token)
                continue
            if not _is_transient(error):
                raise error
            if await self.move():
                # another coordinator answers: that is no attempt
                continue
            if attempt >= retries:
                raise error
            await asyncio.sleep(backoff_s(attempt))
            attempt += 1

    async def move(self) -> bool:
        """Goes on to another coordinator of the cluster if this one does not answer and another does.

        For whoever met an Unreachable: True says that trying again at once may help. Never leaves a coordinator that
        can be reached. Does nothing where only one is known.
        """
        left = self.join.address
        async with self._moving:
            if self.join.address != left:
                # somebody else moved us meanwhile
                return True
            if not self.join.others or await _answers(self._switch.current, STAY_TIMEOUT_S):
                return False
            for address in self.join.others:
                join = self.join.at(address)
                channel = open_channel(join, self._ca_pem)
                if await _answers(channel, MOVE_TIMEOUT_S):
                    self._switch.switch(channel)
                    self.join = join
                    return True
                await channel.close()
        return False

    def know(self, addresses: Sequence[str]) -> None:
        """What the coordinator says of the cluster: host:port of all that live, itself first or not. Those of before
        stay behind them: one that is away may be back when this one ends."""
        if addresses:
            first = JoinLine.of((self.join.address, *self._given), self.join.ca_sha256)
            self.join = first.knowing((*addresses, *self.join.others))

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        """The authorization of a call or stream, with a token that is renewed first when it is near its end."""
        if self._clock.monotonic() >= self._renew_at_s:
            stale = self._token
            async with self._enrolling:
                # whoever waited here finds that the first one already renewed it
                if self._token == stale:
                    await self._enrol()
        return (("authorization", f"Bearer {self._token}"), *tracing.context())

    async def renew(self) -> None:
        """Enrols again at once; for streams that ended with NotAuthenticated."""
        async with self._enrolling:
            await self._enrol()

    def accept_token(self, token: str, expires_ms: int) -> None:
        """Takes a token that the coordinator sent, in an answer or pushed on a live stream."""
        left_s = (expires_ms - self._clock.now_ms()) / 1000
        # clocks of two machines differ: never trust more than a whole life, nor ask more often than every minute or so
        left_s = min(max(left_s, 60.0), float(TOKEN_LIFETIME_S))
        self._token = token
        self._renew_at_s = self._clock.monotonic() + left_s * RENEW_AT

    async def close(self) -> None:
        await self.channel.close()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _forget(self, token: str) -> None:
        """Makes the next call enrol again, unless another one has already replaced the refused token."""
        if token == self._token:
            self._renew_at_s = 0.0

    async def _greet(self) -> None:
        """Asks again over the verified channel: only now may the coordinator's key be believed."""
        authority = await ask_authority(self.channel, self.join)
        self.coordinator_public_key = authority.coordinator_public_key
        self.protocol_version = negotiate(PROTOCOL_VERSIONS, authority.protocol_versions)

    async def _enrol(self) -> None:
        try:
            answer = await self._answer_challenge()
        except NotAuthenticated as error:
            # a coordinator that restarted between the two calls has forgotten its challenge
            if error.code != "enrolment.stale_nonce":
                raise
            answer = await self._answer_challenge()
        self.accept_token(answer.token, answer.expires_unix_ms)
        self.protocol_version = answer.protocol_version
        self.know(answer.addresses)

    async def _answer_challenge(self) -> enrolment_pb2.EnrolResponse:
        stub, timeout_s = self.enrolment, ENROL_TIMEOUT_S
        question = enrolment_pb2.GetChallengeRequest(public_key=self._key.public_key)
        try:
            challenge = await stub.GetChallenge(question, timeout=timeout_s)
            envelope = seal(self._key, ENROLMENT_TYPE, self._enrolment(challenge.nonce).SerializeToString())
            return await stub.Enrol(enrolment_pb2.EnrolRequest(envelope=envelope), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self.join.address) from None

    def _enrolment(self, nonce: bytes) -> enrolment_pb2.Enrolment:
        return enrolment_pb2.Enrolment(
            nonce=nonce,
            role=role_to_proto(self.role),
            ca_sha256=self.join.ca_sha256,
            protocol_versions=PROTOCOL_VERSIONS,
            name=self._name,
            payout_address=self._payout_address,
            software_version=software_version(),
        )


def backoff_s(attempt: int, draw: Callable[[], float] = random.random) -> float:
    """Seconds to wait before attempt `attempt` + 1: a random share of a doubling, capped span ("full jitter")."""
    return draw() * min(BACKOFF_CAP_S, BACKOFF_S * float(2**attempt))


async def _answers(channel: grpc.aio.Channel, timeout_s: float) -> bool:
    """Whether a coordinator of our authority is at the other end."""
    try:
        async with asyncio.timeout(timeout_s):
            await channel.channel_ready()
    except TimeoutError:
        return False
    return True


def _is_transient(error: ShardworkError) -> bool:
    """Nothing answered, so asking again may help. A timeout is not: the request may be running, and it was long."""
    return isinstance(error, Unreachable) and error.code != "coordinator.timeout"
