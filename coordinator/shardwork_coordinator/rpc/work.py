"""The worker's side of the wire, as a thin servicer: `attach` is the stream, `results` what comes back for leases,
`measure` what a provider asks before its first one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from shardwork.identity.role import Role
from shardwork.v1 import work_pb2, work_pb2_grpc

from .attach import WorkDesk, attach
from .auth import Context, Gate
from .measure import MeasureDesk, get_rates, measure
from .results import commit_result, release_lease, submit_result


class WorkServicer(work_pb2_grpc.WorkServiceServicer):
    def __init__(self, gate: Gate, desk: WorkDesk, measuring: MeasureDesk) -> None:
        self._gate, self._desk, self._measuring = gate, desk, measuring

    async def Attach(
        self, request_iterator: AsyncIterator[work_pb2.AttachRequest], context: Context
    ) -> AsyncGenerator[work_pb2.AttachResponse, None]:
        async with self._gate.admit(context, Role.WORKER) as caller:
            async for response in attach(request_iterator, caller, self._desk):
                yield response

    async def CommitResult(
        self, request: work_pb2.CommitResultRequest, context: Context
    ) -> work_pb2.CommitResultResponse:
        async with self._gate.admit(context, Role.WORKER) as caller:
            return await commit_result(request, caller, self._desk)

    async def SubmitResult(
        self, request: work_pb2.SubmitResultRequest, context: Context
    ) -> work_pb2.SubmitResultResponse:
        async with self._gate.admit(context, Role.WORKER) as caller:
            return await submit_result(request, caller, self._desk)

    async def ReleaseLease(
        self, request: work_pb2.ReleaseLeaseRequest, context: Context
    ) -> work_pb2.ReleaseLeaseResponse:
        async with self._gate.admit(context, Role.WORKER) as caller:
            return await release_lease(request, caller, self._desk)

    async def Measure(self, request: work_pb2.MeasureRequest, context: Context) -> work_pb2.MeasureResponse:
        async with self._gate.admit(context, Role.WORKER) as caller:
            return measure(request, caller, self._measuring)

    async def GetRates(self, request: work_pb2.GetRatesRequest, context: Context) -> work_pb2.GetRatesResponse:
        async with self._gate.admit(context, Role.WORKER):
            return get_rates(self._measuring)
