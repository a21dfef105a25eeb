"""Calls: every RPC is counted, timed, given a request id for the log, and traced where somebody asks for it.

A gRPC interceptor, the first before every handler. Labels are names of the contract: what nobody serves is `unknown`.
Changes nothing of a call. Built by `app`.
"""

from __future__ import annotations

import contextlib
import inspect
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from . import traces
from .instruments import Instruments
from .logs import Log, request_id

_log = Log("rpc")
OURS, UNKNOWN = "shardwork.", "unknown"
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(slots=True)
class _Call:
    """One call that is being answered."""

    service: str
    method: str
    context: Any
    ended: str = "OK"
    started: float = field(default_factory=time.perf_counter)

    def end(self, error: BaseException) -> None:
        """Names the status that a call gets whose handler raised."""
        code = self.context.code()
        known = code.name if isinstance(code, grpc.StatusCode) else _CODES.get(code or -1)
        self.ended = known or ("UNKNOWN" if isinstance(error, Exception) else "CANCELLED")


class Calls(grpc.aio.ServerInterceptor):
    """Wraps each handler; an unknown method gets none and is told so by gRPC itself."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        service, _, method = str(handler_call_details.method).strip("/").rpartition("/")
        if handler is None:
            self._instruments.calls.labels(UNKNOWN, UNKNOWN, "UNIMPLEMENTED").inc()
            return None
        if not service.startswith(OURS):
            # health and reflection, which are asked every few seconds, and are not coroutines
            return handler
        service = service.rpartition(".")[2]
        if handler.response_streaming:
            return self._wrap_stream(handler, service, method)
        return self._wrap_unary(handler, service, method)

    def _wrap_unary(self, handler: Any, service: str, method: str) -> Any:
        inner = handler.stream_unary if handler.request_streaming else handler.unary_unary

        async def unary(request: Any, context: Any) -> Any:
            with self._watched(_Call(service, method, context), streams=False):
                return await inner(request, context)

        name = "stream_unary" if handler.request_streaming else "unary_unary"
        return handler._replace(**{name: unary})

    def _wrap_stream(self, handler: Any, service: str, method: str) -> Any:
        inner = handler.stream_stream if handler.request_streaming else handler.unary_stream

        async def stream(request: Any, context: Any) -> AsyncGenerator[Any, None]:
            with self._watched(_Call(service, method, context), streams=True):
                async with contextlib.aclosing(inner(request, context)) as answers:
                    async for answer in answers:
                        yield answer

        async def written(request: Any, context: Any) -> None:
            """For a handler that writes to its context and yields nothing: the other form that gRPC knows."""
            with self._watched(_Call(service, method, context), streams=True):
                await inner(request, context)

        name = "stream_stream" if handler.request_streaming else "unary_stream"
        return handler._replace(**{name: stream if inspect.isasyncgenfunction(inner) else written})

    @contextlib.contextmanager
    def _watched(self, call: _Call, *, streams: bool) -> Generator[None, None, None]:
        named = (call.service, call.method)
        request_id.set(secrets.token_hex(6))
        self._instruments.open_calls.labels(*named).inc()
        try:
            with traces.call(
                f"{call.service}/{call.method}", call.context.invocation_metadata() or (), streams=streams
            ):
                yield
        except BaseException as error:
            call.end(error)
            raise
        finally:
            self._instruments.open_calls.labels(*named).dec()
            self._instruments.calls.labels(*named, call.ended).inc()
            seconds = time.perf_counter() - call.started
            self._instruments.call_seconds.labels(*named).observe(seconds)
            _log.debug("rpc.ended", service=named[0], method=named[1], code=call.ended, seconds=round(seconds, 4))
