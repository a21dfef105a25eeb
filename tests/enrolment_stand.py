"""A coordinator for tests: real TLS and gRPC on a free loopback port, with enrolment and a few gated calls.

`Stand.start()` and `stop()` may alternate: the port, the keys and the store stay, as they do when a coordinator
restarts. The operator's service stands in for all gated services; each of its calls shows one rule of the gate.
"""

from __future__ import annotations

from pathlib import Path

import grpc.aio

from shardwork.clock import Clock, ManualClock
from shardwork.identity.keys import SigningKey
from shardwork.identity.role import Role
from shardwork.session import JoinLine
from shardwork.v1 import enrolment_pb2, enrolment_pb2_grpc, operator_pb2, operator_pb2_grpc
from shardwork_coordinator.rpc.auth import Context, Gate, TokenGate, Tokens
from shardwork_coordinator.rpc.enrolment import Challenges, EnrolmentDesk, EnrolmentServicer
from shardwork_coordinator.store.memory import MemoryStore
from shardwork_coordinator.tls import Authority


class GatedServicer(operator_pb2_grpc.OperatorServiceServicer):
    """GetOverview: operator only. ListWorkers: worker only. CheckLedger: any. SetWorkerReference raises `error`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.error: Exception | None = None
        #: CheckLedger fails this often with UNAVAILABLE first
        self.failures = 0
        self.calls = 0

    async def GetOverview(
        self, request: operator_pb2.GetOverviewRequest, context: Context
    ) -> operator_pb2.GetOverviewResponse:
        async with self._gate.admit(context, Role.OPERATOR):
            return operator_pb2.GetOverviewResponse(paid_msat=1)

    async def ListWorkers(
        self, request: operator_pb2.ListWorkersRequest, context: Context
    ) -> operator_pb2.ListWorkersResponse:
        async with self._gate.admit(context, Role.WORKER) as caller:
            return operator_pb2.ListWorkersResponse(workers=[operator_pb2.WorkerView(id=caller.party_id)])

    async def CheckLedger(
        self, request: operator_pb2.CheckLedgerRequest, context: Context
    ) -> operator_pb2.CheckLedgerResponse:
        self.calls += 1
        if self.failures:
            self.failures -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        async with self._gate.admit(context):
            return operator_pb2.CheckLedgerResponse(balanced=True)

    async def SetWorkerReference(
        self, request: operator_pb2.SetWorkerReferenceRequest, context: Context
    ) -> operator_pb2.SetWorkerReferenceResponse:
        async with self._gate.admit(context):
            if self.error is not None:
                raise self.error
            return operator_pb2.SetWorkerReferenceResponse()


class CountingServicer(EnrolmentServicer):
    """Enrolment that remembers which calls arrived, and can claim other protocol versions."""

    def __init__(self, desk: EnrolmentDesk) -> None:
        super().__init__(desk)
        self.seen: list[str] = []
        self.protocol_versions: tuple[int, ...] | None = None

    async def GetAuthority(
        self, request: enrolment_pb2.GetAuthorityRequest, context: Context
    ) -> enrolment_pb2.GetAuthorityResponse:
        self.seen.append("GetAuthority")
        answer = await super().GetAuthority(request, context)
        if self.protocol_versions is not None:
            answer.protocol_versions[:] = self.protocol_versions
        return answer

    async def GetChallenge(
        self, request: enrolment_pb2.GetChallengeRequest, context: Context
    ) -> enrolment_pb2.GetChallengeResponse:
        self.seen.append("GetChallenge")
        return await super().GetChallenge(request, context)

    async def Enrol(self, request: enrolment_pb2.EnrolRequest, context: Context) -> enrolment_pb2.EnrolResponse:
        self.seen.append("Enrol")
        return await super().Enrol(request, context)


class Stand:
    def __init__(self, folder: Path, clock: Clock | None = None, *, host: str = "127.0.0.1") -> None:
        self.host = host
        self.clock = clock or ManualClock()
        # certificates are checked against the machine's clock, so the authority does not share the manual one
        self.authority = Authority.load_or_create(folder / "tls")
        self.key, self.operator_key = SigningKey.generate(), SigningKey.generate()
        self.store = MemoryStore()
        self.store.start()
        self.tokens = Tokens(self.key, self.authority.ca_sha256, self.clock)
        self.gate = TokenGate(self.tokens, self.store, self.clock, operator_public_key=self.operator_key.public_key)
        self.gated = GatedServicer(self.gate)
        self.port = 0
        #: host:port of all coordinators of its cluster, as it tells them
        self.addresses: list[str] = []
        self._server: grpc.aio.Server | None = None

    @property
    def join(self) -> JoinLine:
        return JoinLine(self.host, self.port, self.authority.ca_sha256)

    def desk(self, *, open_roles: frozenset[Role] = frozenset({Role.REQUESTER, Role.WORKER})) -> EnrolmentDesk:
        return EnrolmentDesk(
            ca_pem=self.authority.ca_pem,
            ca_sha256=self.authority.ca_sha256,
            coordinator_public_key=self.key.public_key,
            operator_public_key=self.operator_key.public_key,
            tokens=self.tokens,
            store=self.store,
            clock=self.clock,
            challenges=Challenges(self.clock),
            open_roles=open_roles,
            addresses=lambda: self.addresses,
        )

    async def start(self, *, gate: Gate | None = None) -> None:
        """Each start makes new challenges, as a new process would."""
        self.enrolment = CountingServicer(self.desk())
        if gate is not None:
            self.gated = GatedServicer(gate)
        server = grpc.aio.server()
        enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(self.enrolment, server)
        operator_pb2_grpc.add_OperatorServiceServicer_to_server(self.gated, server)
        self.port = server.add_secure_port(self.join.address, self.authority.server_credentials())
        await server.start()
        self._server = server

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def twin(self) -> Stand:
        """Another coordinator of the same cluster, not started: the same keys and rows, a port of its own."""
        other = object.__new__(Stand)
        other.__dict__ |= self.__dict__ | {"port": 0, "_server": None, "gated": GatedServicer(self.gate)}
        return other

    async def __aenter__(self) -> Stand:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self.store.close()
