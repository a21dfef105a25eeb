"""The wire: every error class survives the trip, however large, and bare gRPC failures become readable."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from grpc.aio import AioRpcError, Metadata

from shardwork.errors import (
    ERRORS,
    Conflict,
    Internal,
    InvalidInput,
    LimitExceeded,
    NotAuthenticated,
    NotFound,
    ShardworkError,
    Unreachable,
)
from shardwork.v1 import operator_pb2, operator_pb2_grpc, types_pb2, work_pb2
from shardwork.why import Why
from shardwork.wire import abort_with, error_from_rpc, parse_strict, status_code, why_from_proto, why_to_proto


class Failing:
    """The one call CheckLedger, which ends with `error`, or with `bare`, a status that carries nothing of ours."""

    def __init__(self) -> None:
        self.error: ShardworkError | None = None
        self.bare: tuple[grpc.StatusCode, str] = (grpc.StatusCode.UNKNOWN, "")
        self.trailers: tuple[tuple[str, str | bytes], ...] = ()

    async def check_ledger(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if self.error is not None:
            await abort_with(context, self.error)
        await context.abort(*self.bare, self.trailers)

    def handlers(self) -> grpc.GenericRpcHandler:
        calls: dict[str, Any] = {"CheckLedger": grpc.unary_unary_rpc_method_handler(cast(Any, self.check_ledger))}
        return grpc.method_handlers_generic_handler("shardwork.v1.OperatorService", calls)


class Line:
    """One servicer and a channel to it."""

    def __init__(self, servicer: Failing, channel: grpc.aio.Channel) -> None:
        self.servicer = servicer
        self._stub = operator_pb2_grpc.OperatorServiceStub(channel)

    async def failure(self, *, timeout_s: float = 10.0) -> ShardworkError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self._stub.CheckLedger(operator_pb2.CheckLedgerRequest(), timeout=timeout_s)
        return error_from_rpc(caught.value, "host:1")

    async def unoffered(self) -> ShardworkError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self._stub.GetOverview(operator_pb2.GetOverviewRequest(), timeout=10)
        return error_from_rpc(caught.value, "host:1")


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    servicer, server = Failing(), grpc.aio.server()
    server.add_generic_rpc_handlers((servicer.handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Line(servicer, channel)
    await server.stop(None)


@pytest.mark.parametrize("cls", ERRORS.values(), ids=lambda cls: cls.__name__)
async def test_an_error_arrives_as_it_was_raised(line: Line, cls: type[ShardworkError]) -> None:
    sent = cls("area.case", "Größe 7 passt nicht.", next_step="Take size 6.", file="größe.yaml", line=7)
    line.servicer.error = sent
    arrived = await line.failure()
    assert type(arrived) is cls
    assert arrived.why == sent.why


def test_every_error_class_has_a_grpc_status() -> None:
    for cls in ERRORS.values():
        assert status_code(cls("a.b", "C.")) is not grpc.StatusCode.UNKNOWN


async def test_an_error_too_large_for_trailers_arrives_shortened(line: Line) -> None:
    evidence = {f"key{number}": "é" * 5_000 for number in range(40)}
    line.servicer.error = InvalidInput("a.b", "ü" * 100_000, next_step="n" * 10_000)
    line.servicer.error.why = Why(code="a.b", sentence="ü" * 100_000, evidence=evidence, next_step="n" * 10_000)
    arrived = await line.failure()
    assert type(arrived) is InvalidInput
    assert arrived.code == "a.b"
    assert arrived.why.sentence.startswith("üüü") and arrived.why.sentence.endswith("…")
    assert arrived.why.evidence["key0"].startswith("é")


@pytest.mark.parametrize(
    ("status", "cls", "code"),
    [
        (grpc.StatusCode.NOT_FOUND, NotFound, "rpc.not_found"),
        (grpc.StatusCode.UNAUTHENTICATED, NotAuthenticated, "rpc.unauthenticated"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, LimitExceeded, "rpc.resource_exhausted"),
        (grpc.StatusCode.UNKNOWN, Internal, "rpc.unknown"),
        (grpc.StatusCode.UNAVAILABLE, Unreachable, "coordinator.unreachable"),
        (grpc.StatusCode.CANCELLED, Unreachable, "coordinator.unreachable"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Unreachable, "coordinator.timeout"),
    ],
)
async def test_a_bare_status_becomes_an_error_with_the_address(
    line: Line, status: grpc.StatusCode, cls: type[ShardworkError], code: str
) -> None:
    line.servicer.bare = (status, "some reason")
    arrived = await line.failure()
    assert (type(arrived), arrived.code) == (cls, code)
    assert arrived.why.evidence["address"] == "host:1"


@pytest.mark.parametrize(("details", "cls"), [("Internal error from Core", Unreachable), ("a defect", Internal)])
def test_an_answer_lost_while_sending_is_a_connection_that_failed(details: str, cls: type[ShardworkError]) -> None:
    lost = AioRpcError(grpc.StatusCode.INTERNAL, Metadata(), Metadata(), details=details)
    assert type(error_from_rpc(lost, "host:1")) is cls


async def test_a_call_that_is_not_offered_names_the_cure(line: Line) -> None:
    arrived = await line.unoffered()
    assert (type(arrived), arrived.code) == (Conflict, "rpc.unimplemented")
    assert "Upgrade" in arrived.why.next_step


async def test_details_that_are_not_ours_do_not_break_the_reader(line: Line) -> None:
    line.servicer.bare = (grpc.StatusCode.NOT_FOUND, "gone")
    line.servicer.trailers = (("grpc-status-details-bin", b"\xff\xff garbage"), ("shardwork-error", "Evil"))
    assert type(await line.failure()) is NotFound


async def test_nothing_listening_is_unreachable() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        arrived = await Line(Failing(), channel).failure()
    assert (type(arrived), arrived.exit_code) == (Unreachable, 7)
    assert arrived.why.next_step


def test_a_why_survives_its_wire_form() -> None:
    why = Why(code="a.b", sentence="S.", evidence={"b": "2", "a": "1"}, next_step="N.")
    assert why_from_proto(why_to_proto(why)) == why


UNKNOWN = b"\xfa\x3e\x01x"  # field 1007, one byte


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (UNKNOWN, "shardwork.v1.AttachRequest"),
        # hello, a message in a oneof
        (b"\x0a" + bytes([len(UNKNOWN)]) + UNKNOWN, "shardwork.v1.Hello"),
        # hello.running[0], a repeated message two levels down
        (b"\x0a" + bytes([len(UNKNOWN) + 2]) + b"\x1a" + bytes([len(UNKNOWN)]) + UNKNOWN, "shardwork.v1.LeaseStatus"),
    ],
)
def test_an_unknown_field_is_found_at_any_depth(raw: bytes, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_strict(work_pb2.AttachRequest, raw)
    assert caught.value.code == "wire.unknown_field"
    assert dict(caught.value.why.evidence) == {"message": message, "field": "1007"}


def test_known_fields_pass() -> None:
    whole = types_pb2.Why(code="a.b", sentence="S.", evidence={"k": "v"})
    assert parse_strict(types_pb2.Why, whole.SerializeToString()) == whole


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_strict(types_pb2.Why, b"\x0a\xff")
    assert caught.value.code == "wire.malformed"
