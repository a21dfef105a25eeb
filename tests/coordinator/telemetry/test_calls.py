"""Calls over a real server: each counted once under its method and status, streams too, strangers' names as one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import grpc.aio
import pytest

from shardwork_coordinator.telemetry.calls import Calls
from shardwork_coordinator.telemetry.instruments import Instruments
from shardwork_coordinator.telemetry.logs import request_id

SERVICE = "shardwork.v1.TestService"


class Stand:
    """A server with one method of each kind, and what its handlers saw."""

    def __init__(self) -> None:
        self.instruments = Instruments()
        self.request_ids: list[str] = []

    async def echo(self, request: bytes, context: Any) -> bytes:
        self.request_ids.append(request_id.get())
        if request == b"refuse":
            await context.abort(grpc.StatusCode.NOT_FOUND, "not here")
        if request == b"break":
            raise ValueError("a bug")
        return request

    async def count(self, request: bytes, context: Any) -> AsyncGenerator[bytes, None]:
        for number in range(3):
            yield bytes([number])
        if request == b"refuse":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "later")
        if request == b"hang":
            await asyncio.Event().wait()

    async def write(self, request: bytes, context: Any) -> None:
        for number in range(3):
            await context.write(bytes([number]))
        if request == b"refuse":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "later")

    def counted(self) -> dict[tuple[str, ...], float]:
        return {
            tuple(sample.labels.values()): sample.value
            for family in self.instruments.calls.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        }


@contextlib.asynccontextmanager
async def served(stand: Stand) -> AsyncGenerator[Any, None]:
    server = grpc.aio.server(interceptors=[Calls(stand.instruments)])
    handlers: dict[str, Any] = {
        "Echo": grpc.unary_unary_rpc_method_handler(stand.echo),
        "Count": grpc.unary_stream_rpc_method_handler(stand.count),
        "Write": grpc.unary_stream_rpc_method_handler(stand.write),
    }
    for service in (SERVICE, "other.v1.Health"):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(0)


async def called(channel: Any, path: str, request: bytes = b"") -> bytes:
    call = channel.unary_unary(path)
    return bytes(await call(request))


async def test_every_call_is_counted_under_the_status_it_ended_with() -> None:
    stand = Stand()
    async with served(stand) as channel:
        echo = channel.unary_unary(f"/{SERVICE}/Echo")
        assert await echo(b"hello") == b"hello"
        for request, code in ((b"refuse", grpc.StatusCode.NOT_FOUND), (b"break", grpc.StatusCode.UNKNOWN)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await echo(request)
            assert caught.value.code() is code
    assert stand.counted() == {
        ("TestService", "Echo", "OK"): 1,
        ("TestService", "Echo", "NOT_FOUND"): 1,
        ("TestService", "Echo", "UNKNOWN"): 1,
    }
    assert len(set(stand.request_ids)) == 3 and all(len(one) == 12 for one in stand.request_ids)
    timed = {sample.name: sample.value for f in stand.instruments.call_seconds.collect() for sample in f.samples}
    assert timed["shardwork_rpc_duration_seconds_count"] == 3


async def test_a_stream_is_one_call_that_ends_when_it_ends() -> None:
    stand = Stand()
    async with served(stand) as channel:
        count = channel.unary_stream(f"/{SERVICE}/Count")
        assert [one async for one in count(b"")] == [b"\0", b"\1", b"\2"]
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in count(b"refuse"):
                pass
        call = count(b"hang")
        assert [await call.read() for _ in range(3)] == [b"\0", b"\1", b"\2"]
        assert stand.instruments.open_calls.labels("TestService", "Count")._value.get() == 1  # pyright: ignore
        call.cancel()
        while len(stand.counted()) < 3:
            await asyncio.sleep(0)
    assert stand.counted() == {
        ("TestService", "Count", "OK"): 1,
        ("TestService", "Count", "UNAVAILABLE"): 1,
        ("TestService", "Count", "CANCELLED"): 1,
    }


async def test_a_handler_that_writes_to_its_context_streams_as_well() -> None:
    stand = Stand()
    async with served(stand) as channel:
        write = channel.unary_stream(f"/{SERVICE}/Write")
        assert [one async for one in write(b"")] == [b"\0", b"\1", b"\2"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in write(b"refuse"):
                pass
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert stand.counted() == {("TestService", "Write", "OK"): 1, ("TestService", "Write", "UNAVAILABLE"): 1}


async def test_names_that_nobody_serves_are_one_label_and_other_services_are_left_alone() -> None:
    stand = Stand()
    async with served(stand) as channel:
        for name in ("a", "b", "c"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await called(channel, f"/{SERVICE}/{name}")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert await called(channel, "/other.v1.Health/Echo", b"ok") == b"ok"
    assert stand.counted() == {("unknown", "unknown", "UNIMPLEMENTED"): 3}
