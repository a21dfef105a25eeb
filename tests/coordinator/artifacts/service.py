"""A real gRPC server of the artifacts service over a folder, and sessions to it, for tests of both ends."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio

from shardwork.clock import ManualClock
from shardwork.identity.role import Role
from shardwork.v1 import artifacts_pb2 as pb
from shardwork.v1 import artifacts_pb2_grpc, storage_pb2_grpc
from shardwork.v1.artifacts_pb2_grpc import ArtifactsServiceServicer, ArtifactsServiceStub
from shardwork.wire import error_from_rpc
from shardwork_coordinator.artifacts import ArtifactStore
from shardwork_coordinator.artifacts.quota import ArtifactLimits
from shardwork_coordinator.rpc.artifacts import ArtifactDesk, ArtifactsServicer
from shardwork_coordinator.rpc.auth import Caller, Context, answer_errors
from shardwork_coordinator.rpc.storage import StorageServicer
from shardwork_coordinator.store.memory import MemoryStore

Request = TypeVar("Request")
Response = TypeVar("Response")

OPTIONS = (("grpc.http2.bdp_probe", 0), ("grpc.max_receive_message_length", 4 << 20))


class NamingGate:
    """Believes the party and role that the call's metadata names."""

    @asynccontextmanager
    async def admit(self, context: Context, *roles: Role) -> AsyncGenerator[Caller, None]:
        async with answer_errors(context):
            said = dict(context.invocation_metadata() or ())
            yield Caller(str(said["party"]), b"\0" * 32, Role(str(said["role"])))


class NamedSession:
    """What a transfer needs of a session, without enrolment."""

    def __init__(self, port: int, party: str, role: Role = Role.REQUESTER) -> None:
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS)
        self.party = party
        self.role = role
        self.host = "127.0.0.1"

    @property
    def artifacts(self) -> artifacts_pb2_grpc.ArtifactsServiceAsyncStub:
        return ArtifactsServiceStub(self.channel)

    @property
    def storage(self) -> storage_pb2_grpc.StorageServiceAsyncStub:
        return storage_pb2_grpc.StorageServiceStub(self.channel)

    async def move(self) -> bool:
        return False

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("party", self.party), ("role", self.role.value))

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        timeout_s: float = 30.0,
        retries: int = 5,
    ) -> Response:
        try:
            return await method(request, metadata=await self.metadata(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from None


class Service:
    """One coordinator's artifacts: rows in memory, bytes in a folder that outlives a restart."""

    def __init__(self, root: Path, limits: ArtifactLimits | None = None) -> None:
        self.rows = MemoryStore()
        self.contents = ArtifactStore.open(root)
        self.desk = ArtifactDesk(self.rows, self.contents, ManualClock(), limits=limits)
        self.port = 0
        self._server: grpc.aio.Server | None = None

    async def start(self, servicer: ArtifactsServiceServicer | None = None) -> None:
        """Serves on the port of the last time; `servicer` stands in for the real one."""
        self._server = grpc.aio.server(options=(*OPTIONS, ("grpc.so_reuseport", 0)))
        real = ArtifactsServicer(NamingGate(), self.desk)
        add: Any = artifacts_pb2_grpc.add_ArtifactsServiceServicer_to_server
        add(servicer or real, self._server)
        storage_pb2_grpc.add_StorageServiceServicer_to_server(StorageServicer(NamingGate(), self.desk), self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Cuts every connection at once."""
        if self._server is not None:
            await self._server.stop(None)


@asynccontextmanager
async def serving(root: Path, limits: ArtifactLimits | None = None) -> AsyncGenerator[Service, None]:
    service = Service(root, limits or ArtifactLimits(reserve_bytes=0))
    service.rows.start()
    await service.start()
    try:
        yield service
    finally:
        await service.stop()
        service.rows.close()


def fill(folder: Path, **sizes_bytes: int) -> Path:
    """A folder with random files: fill(folder, a=10, sub__b=20)."""
    for name, size in sizes_bytes.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    return folder


def frames_of(artifact_id: str, first_leaf: int, data: bytes, size: int = 256 << 10) -> list[pb.UploadLeavesRequest]:
    """An upload stream by hand."""
    frames = [pb.UploadLeavesRequest(data=data[start : start + size]) for start in range(0, len(data), size)]
    frames = frames or [pb.UploadLeavesRequest()]
    frames[0].artifact_id, frames[0].first_leaf = artifact_id, first_leaf
    return frames
