"""A real coordinator in this process, and parties that talk to it over the wire: honest ones and others.

TLS, gRPC, SQLite, the executor and all loops are the real ones; only the parties are scripted. The job is `count`,
which needs no torch. Used by the contract tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import grpc.aio

from shardwork import work
from shardwork.errors import ShardworkError
from shardwork.identity.keys import SigningKey, load_or_create
from shardwork.identity.role import Role
from shardwork.jobs.spec import BudgetSection, JobSpec, PlanSection, StageSpec, TrustSection
from shardwork.session import JoinLine, Session
from shardwork.transfer import upload_folder
from shardwork.v1 import jobs_pb2, operator_pb2, types_pb2, wallet_pb2, work_pb2
from shardwork.wire import error_from_rpc
from shardwork_coordinator.app import Serving, serving
from shardwork_coordinator.records import (
    Event,
    Job,
    Lease,
    Outbox,
    OutboxState,
    Record,
    Replica,
    Round,
    Shard,
    Transfer,
)
from shardwork_coordinator.settings import Settings
from shardwork_coordinator.store.base import Transaction

T = TypeVar("T")

#: everything that a refused call must leave as it was
STATE: tuple[type[Record], ...] = (Job, Round, Shard, Replica, Lease, Event, Transfer)
PATIENCE_S = 20.0
#: what every count job of a requester reads
TEXT = "one two two three three three\n" * 8


def count_spec(*, parts: int = 1, name: str = "words", sats: int = 100) -> JobSpec:
    stage = StageSpec(name="words", recipe="count", data=["text.txt"], plan=PlanSection(shards_per_round=parts))
    return JobSpec(
        name=name, stages=[stage], trust=TrustSection(data_class="public"), budget=BudgetSection(max_sats=sats)
    )


async def refusal(call: grpc.aio.UnaryUnaryCall[object, object]) -> ShardworkError:
    """The error that the call must end with."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error_from_rpc(error)
    raise AssertionError(f"the call was answered: {answer}")


@dataclass(slots=True)
class Market:
    """The coordinator and what tests know of it."""

    serving: Serving
    folder: Path
    opened: list[Session] = field(default_factory=list[Session])
    streams: list[Attached] = field(default_factory=list["Attached"])

    @property
    def join(self) -> JoinLine:
        return JoinLine.parse(self.serving.join)

    async def party(self, role: Role, *, key: SigningKey | None = None, sats: int = 0) -> Party:
        key = key or SigningKey.generate()
        session = await Session.open(self.join, key, role, name="somebody")
        self.opened.append(session)
        party = Party(self, session, key)
        if sats:
            deposit = wallet_pb2.CreateDepositRequest(msat=sats * 1000, idempotency_key=key.public_key.hex())
            await session.call(session.wallet.CreateDeposit, deposit)
        return party

    async def operator(self) -> Party:
        return await self.party(Role.OPERATOR, key=load_or_create(self.folder / "keys" / "operator.key"))

    async def read(self, look: Callable[[Transaction], T]) -> T:
        return await self.serving.engine.store.read(look)

    async def state(self) -> list[Record]:
        """Every row that a hostile call might have changed, once the executor has nothing left to report."""
        await self.until(lambda tx: not tx.find(Outbox, state=OutboxState.PENDING))
        return await self.read(lambda tx: [row for kind in STATE for row in tx.find(kind)])

    async def until(self, look: Callable[[Transaction], T | None]) -> T:
        """What `look` finds, as soon as it finds something."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                committed = self.serving.engine.committed
                if found := await self.read(look):
                    return found
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await committed.wait()

    async def check_books(self) -> None:
        operator = await self.operator()
        report = await operator.session.call(operator.session.operator.CheckLedger, operator_pb2.CheckLedgerRequest())
        assert report.balanced and report.sum_msat == 0 and not report.violations

    async def settle(self) -> None:
        """After a test: nobody attached, no job running."""
        for stream in self.streams:
            await stream.leave()
        self.streams.clear()
        operator = await self.operator()
        for job in await self.read(lambda tx: tx.find(Job, state=["running", "paused"])):
            await operator.session.call(operator.session.jobs.CancelJob, jobs_pb2.CancelJobRequest(job_id=job.id))


@dataclass(slots=True)
class Party:
    """One key's session."""

    market: Market
    session: Session
    key: SigningKey

    @property
    def id(self) -> str:
        return self.session.party_id

    async def upload(self, files: dict[str, str], *, purpose: str = "input") -> str:
        folder = self.market.folder / "sent" / f"{self.id}-{abs(hash(json.dumps(files))):x}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        return (await upload_folder(self.session, folder, purpose=purpose)).id

    async def submit(self, *, parts: int = 1, submission_id: str = "submission-1", input_bytes: int = 240) -> str:
        """A count job of this requester's own."""
        data = await self.upload({"text.txt": TEXT})
        request = jobs_pb2.SubmitJobRequest(
            submission_id=submission_id,
            spec_json=count_spec(parts=parts).canonical_json(),
            facts=[jobs_pb2.StageFacts(stage="words", rows=8, input_bytes=input_bytes)],
            inputs=[types_pb2.NamedArtifact(name="words.data", artifact_id=data)],
        )
        return (await self.session.call(self.session.jobs.SubmitJob, request)).job_id

    async def attach(self, *, hello: work_pb2.Hello | None = None, wait: bool = True) -> Attached:
        stream = Attached(self)
        self.market.streams.append(stream)
        capability = work_pb2.Capability(device="cpu", recipes=["count"])
        await stream.say(hello=hello or work_pb2.Hello(capability=capability, accepting=True))
        await stream.open()
        if wait:
            await stream.next("welcome")
        return stream

    async def refused(self, method: Callable[..., object], request: object) -> ShardworkError:
        call = method(request, metadata=await self.session.metadata(), timeout=10)
        return await refusal(call)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    # ---- results --------------------------------------------------------------------------------------------------

    async def result(self, offer: work_pb2.LeaseOffer, *, words: float = 6.0) -> work_pb2.Submission:
        """An uploaded result of this lease."""
        counts = await self.upload(
            {"counts.json": json.dumps({"one": 1, "three": 3, "two": 2})}, purpose=offer.lease_id
        )
        return work_pb2.Submission(
            lease_id=offer.lease_id,
            lease_sha256=work.lease_sha256(offer.SerializeToString(deterministic=True)),
            outputs=[types_pb2.NamedArtifact(name="counts", artifact_id=counts)],
            metrics=[types_pb2.Metric(name="words", value=words), types_pb2.Metric(name="distinct", value=3.0)],
            compute_ms=1,
        )

    def commitment(self, submission: work_pb2.Submission) -> work_pb2.Commitment:
        return work_pb2.Commitment(
            lease_id=submission.lease_id,
            lease_sha256=submission.lease_sha256,
            output_root=work.submission_root(submission),
        )

    def commit_request(self, submission: work_pb2.Submission) -> work_pb2.CommitResultRequest:
        return work_pb2.CommitResultRequest(envelope=work.seal_commitment(self.key, self.commitment(submission)))

    def submit_request(self, submission: work_pb2.Submission) -> work_pb2.SubmitResultRequest:
        return work_pb2.SubmitResultRequest(envelope=work.seal_submission(self.key, submission))

    async def commit(self, submission: work_pb2.Submission) -> None:
        await self.session.call(self.session.work.CommitResult, self.commit_request(submission))

    async def hand_in(self, submission: work_pb2.Submission) -> work_pb2.SubmitResultResponse:
        return await self.session.call(self.session.work.SubmitResult, self.submit_request(submission))


class Attached:
    """One Attach stream of a worker."""

    def __init__(self, party: Party) -> None:
        self.party = party
        self._out: asyncio.Queue[work_pb2.AttachRequest | None] = asyncio.Queue()
        self._left = False

    async def _requests(self) -> AsyncGenerator[work_pb2.AttachRequest, None]:
        while (request := await self._out.get()) is not None:
            yield request

    async def open(self) -> None:
        session = self.party.session
        self._call = session.work.Attach(self._requests(), metadata=await session.metadata())
        self._answers: AsyncIterator[work_pb2.AttachResponse] = aiter(self._call)

    async def say(self, *, hello: work_pb2.Hello | None = None, heartbeat: work_pb2.Heartbeat | None = None) -> None:
        await self._out.put(work_pb2.AttachRequest(hello=hello, heartbeat=heartbeat))

    async def next(self, kind: str) -> work_pb2.AttachResponse:
        """The next push of this kind. Raises the error that ended the stream."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                async for answer in self._answers:
                    if answer.WhichOneof("message") == kind:
                        return answer
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from None
        raise EOFError("the stream ended")

    async def offer(self) -> work_pb2.LeaseOffer:
        answer = await self.next("offer")
        return work.open_offer(answer.offer, self.party.session.coordinator_public_key)

    async def ended(self) -> grpc.StatusCode:
        """The status of the stream, once the coordinator ended it."""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(grpc.aio.AioRpcError):
                async for _ in self._answers:
                    pass
            return await self._call.code()

    async def leave(self) -> None:
        if not self._left:
            self._left = True
            await self._out.put(None)
            self._call.cancel()


@contextlib.asynccontextmanager
async def market(folder: Path) -> AsyncGenerator[Market, None]:
    async with serving(Settings(data_dir=folder, reconnect_grace_s=60.0)) as served:
        found = Market(served, folder)
        try:
            yield found
        finally:
            for stream in found.streams:
                await stream.leave()
            for session in found.opened:
                await session.close()
