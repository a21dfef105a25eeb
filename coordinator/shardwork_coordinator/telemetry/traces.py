"""Traces: OpenTelemetry spans of calls, commits, effects and the coordinator's own phases; off unless asked for.

The SDK is an extra (`pip install 'shardwork[otel]'`) and is imported only when a setting or an OTEL_* variable asks for
traces. A span has the name of a method, commit or phase and a status; never an id of a person, job data, or the text of
an exception. A caller who traces is continued from its `traceparent`. Started by `app`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable, Mapping
from typing import Any

from shardwork.errors import InvalidInput
from shardwork.protocol import software_version

from .logs import kind_of

#: any of these asks for traces where the setting says `auto`
ASKING = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
SERVICE = "shardwork-coordinator"
#: of a call's metadata, what says whose trace it belongs to
PARENT = ("traceparent", "tracestate")


class _Tracing:
    """The one tracer of this process; None while nobody asks."""

    def __init__(self) -> None:
        self.tracer: Any = None
        self.provider: Any = None


_tracing = _Tracing()


def is_asked(setting: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether spans are to be made. `setting`: auto, on or off."""
    if setting != "auto":
        return setting == "on"
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(environment.get(name) for name in ASKING)


@contextlib.contextmanager
def tracing(setting: str, exporter: Any = None) -> Generator[None, None, None]:
    """Makes spans until left, then sends what is left of them. `exporter`: another one than OTLP over gRPC.

    Raises InvalidInput "traces.no_sdk" when the extra is not installed.
    """
    if not is_asked(setting):
        yield
        return
    _tracing.provider = _provider(exporter)
    _tracing.tracer = _tracing.provider.get_tracer("shardwork_coordinator", software_version())
    try:
        yield
    finally:
        provider, _tracing.provider, _tracing.tracer = _tracing.provider, None, None
        provider.shutdown()


@contextlib.contextmanager
def span(name: str, **attributes: str | int) -> Generator[None, None, None]:
    """A span of its own, or of the one that is open here."""
    if _tracing.tracer is None:
        yield
        return
    with _current(name, attributes, None):
        yield


@contextlib.contextmanager
def part(name: str, **attributes: str | int) -> Generator[None, None, None]:
    """A part of the span that is open here; nothing where none is: what runs by the clock would fill every backend."""
    if _tracing.tracer is None or not _is_inside():
        yield
        return
    with _current(name, attributes, None):
        yield


@contextlib.contextmanager
def call(method: str, metadata: Iterable[tuple[str, Any]], *, streams: bool) -> Generator[None, None, None]:
    """An RPC, as a part of its caller's trace if it has one. A stream's span is nobody's parent: its steps may run in
    another context than the one that began it."""
    if _tracing.tracer is None:
        yield
        return
    attributes = {"rpc.system": "grpc", "rpc.method": method}
    if not streams:
        with _current(method, attributes, _parent(metadata), server=True):
            yield
        return
    from opentelemetry.trace import SpanKind

    opened = _tracing.tracer.start_span(
        method, context=_parent(metadata), kind=SpanKind.SERVER, attributes=attributes, record_exception=False
    )
    with _told(opened):
        yield


@contextlib.contextmanager
def _current(
    name: str, attributes: Mapping[str, str | int], context: Any, *, server: bool = False
) -> Generator[None, None, None]:
    from opentelemetry.trace import SpanKind, use_span

    kind = SpanKind.SERVER if server else SpanKind.INTERNAL
    opened = _tracing.tracer.start_span(name, context=context, kind=kind, attributes=attributes)
    with use_span(opened, record_exception=False, set_status_on_exception=False), _told(opened):
        yield


@contextlib.contextmanager
def _told(opened: Any) -> Generator[None, None, None]:
    """Ends the span with the kind of the error that left it, without its text."""
    from opentelemetry.trace import Status, StatusCode

    try:
        yield
    except Exception as error:
        opened.set_status(Status(StatusCode.ERROR, kind_of(error)))
        raise
    finally:
        opened.end()


def _is_inside() -> bool:
    from opentelemetry.trace import get_current_span

    return bool(get_current_span().get_span_context().is_valid)


def _parent(metadata: Iterable[tuple[str, Any]]) -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {key: value for key, value in metadata if key in PARENT and isinstance(value, str)}
    return TraceContextTextMapPropagator().extract(carrier) if carrier else None


def _provider(exporter: Any) -> Any:
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter()
    except ImportError:
        raise InvalidInput(
            "traces.no_sdk",
            "Traces are asked for, and OpenTelemetry is not installed.",
            next_step="pip install 'shardwork[otel]', or set SHARDWORK_TRACES=off.",
        ) from None
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": SERVICE}
    provider = TracerProvider(resource=Resource.create({"service.version": software_version(), **named}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
