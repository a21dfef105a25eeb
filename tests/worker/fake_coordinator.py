"""A coordinator for the worker's tests: a real gRPC server with TLS whose store is a dict.

It grants what a test pushes, records every call in order, and can stop and start again on its port. It checks tokens,
but not who may read which artifact.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import grpc.aio

from shardwork import work
from shardwork.artifact import Manifest, describe_folder
from shardwork.errors import NotAuthenticated, NotFound, ShardworkError
from shardwork.identity.envelope import open_envelope, seal
from shardwork.identity.keys import SigningKey
from shardwork.ids import party_id
from shardwork.protocol import ENROLMENT_TYPE
from shardwork.session import JoinLine
from shardwork.v1 import (
    artifacts_pb2,
    artifacts_pb2_grpc,
    enrolment_pb2,
    enrolment_pb2_grpc,
    types_pb2,
    wallet_pb2,
    wallet_pb2_grpc,
    work_pb2,
    work_pb2_grpc,
)
from shardwork.why import Why
from shardwork.wire import abort_with, why_to_proto
from shardwork_coordinator.tls import Authority

Context = grpc.aio.ServicerContext[Any, Any]
FRAME_BYTES = 256 * 1024
WAIT_S = 20.0


@dataclass(slots=True)
class Blob:
    manifest: Manifest
    #: all leaves one after the other
    data: bytearray

    @property
    def durable_leaves(self) -> int:
        end, count = 0, 0
        for leaf in self.manifest.each_leaf():
            end += leaf.size_bytes
            if end > len(self.data):
                break
            count += 1
        return count

    @property
    def complete(self) -> bool:
        return self.durable_leaves == self.manifest.leaf_count


@dataclass(slots=True)
class FakeCoordinator(
    enrolment_pb2_grpc.EnrolmentServiceServicer,
    artifacts_pb2_grpc.ArtifactsServiceServicer,
    wallet_pb2_grpc.WalletServiceServicer,
):
    folder: Path
    heartbeat_s: int = 1
    #: drop uploaded bytes once they are complete, so that a long benchmark stays small
    forget_uploads: bool = False
    key: SigningKey = field(default_factory=SigningKey.generate)
    port: int = 0
    worker_key: bytes = b""
    blobs: dict[str, Blob] = field(default_factory=dict[str, Blob])
    calls: Counter[str] = field(default_factory=Counter[str])
    #: what happened, in order: (name, message)
    events: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])
    #: raised instead of an answer, by RPC name; taken away by the test
    refuse: dict[str, ShardworkError] = field(default_factory=dict[str, ShardworkError])
    #: answer of SubmitResult
    verdict: work_pb2.SubmitResultResponse = field(
        default_factory=lambda: work_pb2.SubmitResultResponse(state="accepted", paid_msat=7000)
    )
    earned_msat: int = 0
    epoch: int = 0
    #: how far its clock is ahead
    clock_offset_ms: int = 0
    #: answer of ListTransfers, newest first
    transfers: list[wallet_pb2.TransferView] = field(default_factory=list[wallet_pb2.TransferView])
    #: what else GetBalance says
    balance: dict[str, Any] = field(default_factory=dict[str, Any])
    _server: grpc.aio.Server | None = None
    _authority: Authority | None = None
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _pushes: asyncio.Queue[work_pb2.AttachResponse | ShardworkError] = field(
        default_factory=lambda: asyncio.Queue[work_pb2.AttachResponse | ShardworkError]()
    )

    # -- the server

    async def start(self) -> None:
        authority = self._authority = self._authority or Authority.load_or_create(self.folder / "tls")
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(self, server)
        artifacts_pb2_grpc.add_ArtifactsServiceServicer_to_server(self, server)
        wallet_pb2_grpc.add_WalletServiceServicer_to_server(self, server)
        work_pb2_grpc.add_WorkServiceServicer_to_server(_Work(self), server)
        self.port = server.add_secure_port(f"127.0.0.1:{self.port}", authority.server_credentials())
        await server.start()
        self._server = server

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    @property
    def join(self) -> JoinLine:
        assert self._authority is not None
        return JoinLine("127.0.0.1", self.port, self._authority.ca_sha256)

    @property
    def worker_id(self) -> str:
        return party_id(self.worker_key)

    # -- what tests do

    def keep(self, folder: Path) -> str:
        """Stores a folder; its artifact id."""
        manifest = describe_folder(folder)
        data = bytearray().join((folder / entry.path).read_bytes() for entry in manifest.files)
        self.blobs[manifest.id] = Blob(manifest, data)
        return manifest.id

    def keep_file(self, folder: Path, name: str, content: bytes) -> str:
        folder.mkdir(parents=True)
        (folder / name).write_bytes(content)
        return self.keep(folder)

    def lease(self, order: dict[str, Any], inputs: dict[str, str] | None = None, **changes: Any) -> work_pb2.LeaseOffer:
        """A fresh lease for the worker that enrolled last."""
        self.epoch += 1
        fields: dict[str, Any] = {
            "lease_id": f"job/tune/r1/learn/s0#0.{self.epoch}",
            "job_id": "job",
            "stage": "tune",
            "round": 1,
            "phase": "learn",
            "recipe": "sft",
            "shard_id": "job/tune/r1/learn/s0",
            "epoch": self.epoch,
            "params_json": json.dumps(order),
            "inputs": [types_pb2.NamedArtifact(name=n, artifact_id=a) for n, a in sorted((inputs or {}).items())],
            "seed": b"\x05" * 32,
            "price_msat": 7000,
            "deadline_unix_ms": 4_000_000_000_000,
            "worker_id": self.worker_id,
            "work_units": 1,
        }
        return work_pb2.LeaseOffer(**(fields | changes))

    def offer(self, lease: work_pb2.LeaseOffer, key: SigningKey | None = None) -> bytes:
        """Pushes a signed offer; its exact payload."""
        envelope = seal(key or self.key, work.LEASE_TYPE, lease.SerializeToString())
        self.push(work_pb2.AttachResponse(offer=envelope))
        return envelope.payload

    def revoke(self, lease_id: str) -> None:
        why = why_to_proto(Why(code="test.revoked", sentence="The test revoked it."))
        self.push(work_pb2.AttachResponse(revoke=work_pb2.Revoke(lease_id=lease_id, why=why)))

    def push(self, response: work_pb2.AttachResponse | ShardworkError) -> None:
        """To the stream that is open; an error ends it."""
        self._pushes.put_nowait(response)

    def names(self) -> list[str]:
        """Names of the events but for heartbeats, in order."""
        return [name for name, _ in self.events if name != "Heartbeat"]

    def last(self, name: str) -> Any:
        found = [message for seen, message in self.events if seen == name]
        assert found, f"no {name} among {self.names()}"
        return found[-1]

    async def wait(self, name: str, count: int = 1) -> Any:
        """The newest event of that name once there are `count`."""
        await self.wait_until(lambda: sum(seen == name for seen, _ in self.events) >= count)
        return self.last(name)

    async def until_computing(self) -> work_pb2.LeaseStatus:
        """The lease's status once a heartbeat says that it computes and how far it is."""

        def computes() -> bool:
            beats = [beat for name, beat in self.events if name == "Heartbeat"]
            return bool(beats) and any(run.step == "computing" and run.progress > 0 for run in beats[-1].running)

        await self.wait_until(computes)
        status: work_pb2.LeaseStatus = self.last("Heartbeat").running[0]
        return status

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Waits until it holds; looked at after every event."""
        async with asyncio.timeout(WAIT_S), self._changed:
            await self._changed.wait_for(condition)

    async def note(self, name: str, message: Any) -> None:
        async with self._changed:
            self.events.append((name, message))
            self._changed.notify_all()

    async def called(self, name: str, request: Any, context: Context) -> None:
        """Records a unary call; ends it when the test wants it refused or it carries no token."""
        self.calls[name] += 1
        await self.note(name, request)
        if name in self.refuse:
            await abort_with(context, self.refuse[name])
        metadata = dict(context.invocation_metadata() or ())
        if metadata.get("authorization") != f"Bearer token-{self.worker_key.hex()}":
            await abort_with(context, NotAuthenticated("auth.bad_token", "The token is not known."))

    # -- enrolment

    async def GetAuthority(
        self, request: enrolment_pb2.GetAuthorityRequest, context: Context
    ) -> enrolment_pb2.GetAuthorityResponse:
        self.calls["GetAuthority"] += 1
        assert self._authority is not None
        return enrolment_pb2.GetAuthorityResponse(
            ca_pem=self._authority.ca_pem,
            coordinator_version="0",
            protocol_versions=[1],
            coordinator_public_key=self.key.public_key,
        )

    async def GetChallenge(
        self, request: enrolment_pb2.GetChallengeRequest, context: Context
    ) -> enrolment_pb2.GetChallengeResponse:
        self.calls["GetChallenge"] += 1
        return enrolment_pb2.GetChallengeResponse(nonce=hashlib.sha256(request.public_key).digest())

    async def Enrol(self, request: enrolment_pb2.EnrolRequest, context: Context) -> enrolment_pb2.EnrolResponse:
        self.calls["Enrol"] += 1
        enrolment = enrolment_pb2.Enrolment.FromString(open_envelope(request.envelope, ENROLMENT_TYPE))
        self.worker_key = request.envelope.public_key
        await self.note("Enrol", enrolment)
        return enrolment_pb2.EnrolResponse(
            token=f"token-{self.worker_key.hex()}",
            expires_unix_ms=4_000_000_000_000,
            party_id=self.worker_id,
            protocol_version=1,
        )

    # -- artifacts

    async def BeginUpload(
        self, request: artifacts_pb2.BeginUploadRequest, context: Context
    ) -> artifacts_pb2.BeginUploadResponse:
        await self.called("BeginUpload", request, context)
        manifest = Manifest.parse(request.manifest)
        blob = self.blobs.setdefault(manifest.id, Blob(manifest, bytearray()))
        return artifacts_pb2.BeginUploadResponse(
            artifact_id=manifest.id, durable_leaves=blob.durable_leaves, complete=blob.complete
        )

    async def UploadLeaves(
        self, request_iterator: AsyncIterator[artifacts_pb2.UploadLeavesRequest], context: Context
    ) -> artifacts_pb2.UploadLeavesResponse:
        self.calls["UploadLeaves"] += 1
        blob: Blob | None = None
        async for frame in request_iterator:
            if blob is None:
                blob = self.blobs[frame.artifact_id]
                del blob.data[
                    sum(leaf.size_bytes for leaf in blob.manifest.each_leaf() if leaf.number < frame.first_leaf) :
                ]
            blob.data += frame.data
        assert blob is not None
        answer = artifacts_pb2.UploadLeavesResponse(durable_leaves=blob.durable_leaves, complete=blob.complete)
        if blob.complete:
            await self.note("Uploaded", blob.manifest.id)
            if self.forget_uploads:
                del self.blobs[blob.manifest.id]
        return answer

    async def GetManifest(
        self, request: artifacts_pb2.GetManifestRequest, context: Context
    ) -> artifacts_pb2.GetManifestResponse:
        await self.called("GetManifest", request, context)
        if request.artifact_id not in self.blobs:
            await abort_with(context, NotFound("artifact.unknown", "There is no such artifact."))
        return artifacts_pb2.GetManifestResponse(manifest=self.blobs[request.artifact_id].manifest.to_bytes())

    async def DownloadLeaves(
        self, request: artifacts_pb2.DownloadLeavesRequest, context: Context
    ) -> AsyncIterator[artifacts_pb2.DownloadLeavesResponse]:
        self.calls["DownloadLeaves"] += 1
        blob = self.blobs[request.artifact_id]
        at = 0
        for leaf in blob.manifest.each_leaf():
            if request.first_leaf <= leaf.number < request.first_leaf + request.leaf_count:
                for start in range(at, at + leaf.size_bytes, FRAME_BYTES):
                    end = min(start + FRAME_BYTES, at + leaf.size_bytes)
                    yield artifacts_pb2.DownloadLeavesResponse(data=bytes(blob.data[start:end]))
            at += leaf.size_bytes

    # -- wallet

    async def GetBalance(
        self, request: wallet_pb2.GetBalanceRequest, context: Context
    ) -> wallet_pb2.GetBalanceResponse:
        await self.called("GetBalance", request, context)
        return wallet_pb2.GetBalanceResponse(earned_msat=self.earned_msat, asset="simulated", **self.balance)

    async def CreateDeposit(self, request: wallet_pb2.CreateDepositRequest, context: Context) -> NoReturn:
        raise AssertionError("a worker deposits nothing")

    async def GetDeposit(self, request: wallet_pb2.GetDepositRequest, context: Context) -> NoReturn:
        raise AssertionError("a worker deposits nothing")

    async def ListTransfers(
        self, request: wallet_pb2.ListTransfersRequest, context: Context
    ) -> wallet_pb2.ListTransfersResponse:
        await self.called("ListTransfers", request, context)
        before = request.before_sequence or 2**63
        found = [one for one in self.transfers if one.sequence < before][: request.limit]
        return wallet_pb2.ListTransfersResponse(transfers=found)

    async def CreateWithdrawal(self, request: wallet_pb2.CreateWithdrawalRequest, context: Context) -> NoReturn:
        raise AssertionError("a worker withdraws nothing: its earnings are paid out")

    async def GetWithdrawal(self, request: wallet_pb2.GetWithdrawalRequest, context: Context) -> NoReturn:
        raise AssertionError("a worker withdraws nothing: its earnings are paid out")

    async def CancelWithdrawal(self, request: wallet_pb2.CancelWithdrawalRequest, context: Context) -> NoReturn:
        raise AssertionError("a worker withdraws nothing: its earnings are paid out")

    # -- the worker's stream

    async def attach(
        self, requests: AsyncIterator[work_pb2.AttachRequest], context: Context
    ) -> AsyncIterator[work_pb2.AttachResponse]:
        self.calls["Attach"] += 1
        hello = await anext(aiter(requests))
        yield work_pb2.AttachResponse(
            welcome=work_pb2.Welcome(heartbeat_seconds=self.heartbeat_s, worker_id=self.worker_id)
        )
        await self.note("Hello", hello.hello)
        listening = asyncio.create_task(self._listen(requests))
        try:
            while True:
                getting = asyncio.create_task(self._pushes.get())
                await asyncio.wait({getting, listening}, return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    getting.cancel()
                    return
                pushed = getting.result()
                if isinstance(pushed, ShardworkError):
                    await abort_with(context, pushed)
                else:
                    yield pushed
        finally:
            listening.cancel()

    async def _listen(self, requests: AsyncIterator[work_pb2.AttachRequest]) -> None:
        async for request in requests:
            await self.note("Heartbeat", request.heartbeat)


class _Work(work_pb2_grpc.WorkServiceServicer):
    def __init__(self, fake: FakeCoordinator) -> None:
        self._fake = fake

    async def Attach(self, request_iterator: Any, context: Any) -> AsyncIterator[work_pb2.AttachResponse]:
        async for response in self._fake.attach(request_iterator, context):
            yield response

    async def CommitResult(self, request: work_pb2.CommitResultRequest, context: Any) -> work_pb2.CommitResultResponse:
        await self._fake.called("CommitResult", request, context)
        return work_pb2.CommitResultResponse()

    async def SubmitResult(self, request: work_pb2.SubmitResultRequest, context: Any) -> work_pb2.SubmitResultResponse:
        await self._fake.called("SubmitResult", request, context)
        self._fake.earned_msat += self._fake.verdict.paid_msat
        return self._fake.verdict

    async def ReleaseLease(self, request: work_pb2.ReleaseLeaseRequest, context: Any) -> work_pb2.ReleaseLeaseResponse:
        await self._fake.called("ReleaseLease", request, context)
        return work_pb2.ReleaseLeaseResponse()

    async def Measure(self, request: work_pb2.MeasureRequest, context: Any) -> work_pb2.MeasureResponse:
        await self._fake.called("Measure", request, context)
        now_ms = self._fake.clock_offset_ms + time.time_ns() // 1_000_000
        return work_pb2.MeasureResponse(payload=bytes(request.answer_bytes), now_unix_ms=now_ms)

    async def GetRates(self, request: work_pb2.GetRatesRequest, context: Any) -> work_pb2.GetRatesResponse:
        await self._fake.called("GetRates", request, context)
        return work_pb2.GetRatesResponse(msat_per_tera_unit=10, minimum_msat=1000, asset="simulated")
