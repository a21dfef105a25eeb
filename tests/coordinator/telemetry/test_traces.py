"""Traces: spans where somebody asks, under their caller's, and nothing of anybody's data in them."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from shardwork import tracing as callers
from shardwork.errors import InvalidInput
from shardwork_coordinator.failpoints import Failing
from shardwork_coordinator.store import MemoryStore
from shardwork_coordinator.telemetry import traces
from shardwork_coordinator.telemetry.traces import is_asked, part, span, tracing

from .test_calls import SERVICE, Stand, served

SECRET = "hunter2 and a row of text"


@contextlib.contextmanager
def collected() -> Generator[list[ReadableSpan], None, None]:
    """Everything that is traced inside, once left."""
    exporter, found = InMemorySpanExporter(), list[ReadableSpan]()
    with tracing("on", exporter):
        yield found
        assert traces._tracing.provider.force_flush()  # pyright: ignore[reportPrivateUsage]
        found += exporter.get_finished_spans()


async def test_a_call_its_commit_and_its_caller_are_one_trace() -> None:
    stand, store = Stand(), Failing(MemoryStore())
    store.start()

    async def echo(request: bytes, context: object) -> bytes:
        await store.write(lambda tx: None)
        return request

    stand.echo = echo  # type: ignore[method-assign]
    mine = TracerProvider().get_tracer("a program that uses the client")
    with collected() as found:
        async with served(stand) as channel:
            with mine.start_as_current_span("my program") as outer:
                metadata = callers.context()
                assert await channel.unary_unary(f"/{SERVICE}/Echo")(b"x", metadata=metadata) == b"x"
    store.close()
    by_name = {one.name: one for one in found}
    assert set(by_name) == {"TestService/Echo", "store.write"}
    served_span, commit = by_name["TestService/Echo"], by_name["store.write"]
    assert parent(served_span) == outer.get_span_context().span_id
    assert parent(commit) == identity(served_span)[1]
    assert {identity(one)[0] for one in found} == {outer.get_span_context().trace_id}


def parent(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def identity(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


async def test_a_span_tells_how_a_call_failed_and_not_what_the_error_said() -> None:
    stand = Stand()
    with collected() as found:
        async with served(stand) as channel:
            for request in (b"break", b"refuse"):
                with pytest.raises(grpc.aio.AioRpcError):
                    await channel.unary_unary(f"/{SERVICE}/Echo")(request)
            async for _ in channel.unary_stream(f"/{SERVICE}/Count")(b""):
                pass
    assert [(one.name, one.status.status_code) for one in found] == [
        ("TestService/Echo", StatusCode.ERROR),
        ("TestService/Echo", StatusCode.ERROR),
        ("TestService/Count", StatusCode.UNSET),
    ]
    told = "".join(one.to_json() for one in found)
    assert "a bug" not in told and "not here" not in told and found[0].events == ()


def test_an_error_leaves_its_kind_alone() -> None:
    with collected() as found, contextlib.suppress(InvalidInput), span("executor.phase", phase="merge"):
        raise InvalidInput("data.bad_row", f"The row says {SECRET}.")
    assert found[0].status.description == "InvalidInput data.bad_row"
    assert SECRET not in found[0].to_json()


def test_what_runs_by_the_clock_makes_no_span_of_its_own() -> None:
    with collected() as found:
        with part("store.write", commit="sweeper"):
            pass
        with span("outbox.effect"), part("store.write", commit="outbox"):
            pass
    assert [one.name for one in found] == ["store.write", "outbox.effect"]


@pytest.mark.parametrize(
    ("setting", "environment", "asked"),
    [
        ("auto", {}, False),
        ("auto", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}, True),
        ("auto", {"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ("auto", {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "x"}, False),
        ("auto", {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "x"}, False),
        ("off", {"OTEL_EXPORTER_OTLP_ENDPOINT": "x"}, False),
        ("on", {}, True),
    ],
)
def test_traces_are_off_unless_asked_for(setting: str, environment: dict[str, str], asked: bool) -> None:
    assert is_asked(setting, environment) is asked


def test_without_anybody_who_asks_nothing_is_made_and_no_metadata_is_sent() -> None:
    with tracing("off"), span("a"), part("b"):
        assert traces._tracing.tracer is None  # pyright: ignore[reportPrivateUsage]
    assert callers.context() == ()


def test_a_missing_sdk_is_told_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(InvalidInput) as caught, tracing("on"):
        pass
    assert caught.value.code == "traces.no_sdk" and "shardwork[otel]" in caught.value.why.next_step


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """What OpenTelemetry's collector is to a sender."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.service = ""

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            found = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.service = found["service.name"]
            self.names += [span.name for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


def test_spans_reach_the_collector_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    collector, server = Collector(), grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    try:
        with tracing("auto"), span("outbox.effect", kind="executor"):
            pass
    finally:
        server.stop(0).wait()
    assert (collector.service, collector.names) == ("shardwork-coordinator", ["outbox.effect"])
