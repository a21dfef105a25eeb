"""Requests that do not arrive end their calls; those that do never notice that they are read by us."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc.aio
import pytest

from shardwork_coordinator.rpc.arriving import Arriving

HEADERS, DATA, SETTINGS, PING = 1, 0, 4, 6
END_HEADERS, ACK = 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LONG_S = 600.0


async def one(request: bytes, context: Any) -> bytes:
    return b"<" + request


async def several(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for letter in request:
        yield bytes([letter])


async def written(request: bytes, context: Any) -> None:
    for letter in request:
        await context.write(bytes([letter]))


class Service(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        handlers: dict[str, Any] = {
            "/test/one": grpc.unary_unary_rpc_method_handler(one),
            "/test/several": grpc.unary_stream_rpc_method_handler(several),
            "/test/written": grpc.unary_stream_rpc_method_handler(written),
        }
        return handlers.get(str(handler_call_details.method))


@contextlib.asynccontextmanager
async def serving(
    *, within_s: float = LONG_S, slow_after_s: float = LONG_S, most_slow: int = 64
) -> AsyncGenerator[tuple[Arriving, int, Any], None]:
    arriving = Arriving(within_s=within_s, slow_after_s=slow_after_s, most_slow=most_slow)
    server = grpc.aio.server(interceptors=[arriving])
    server.add_generic_rpc_handlers((Service(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield arriving, port, channel
    finally:
        arriving.close()
        await server.stop(None)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """RFC 9113, section 4.1."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header(name: str, value: str) -> bytes:
    """A literal without indexing, RFC 7541, section 6.2.2."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def half_a_call(stream: int) -> bytes:
    """A request of 100 bytes of which three are sent."""
    named = {":method": "POST", ":scheme": "http", ":path": "/test/one", ":authority": "here", "te": "trailers"}
    block = b"".join(header(*pair) for pair in {**named, "content-type": "application/grpc"}.items())
    message = b"\0" + struct.pack(">I", 100) + b"abc"
    return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, 0, stream, message)


class Stranger:
    """Begins calls on one connection and finishes none."""

    def __init__(self, port: int) -> None:
        self._port = port
        #: streams that the server has ended, in order
        self.ended: list[int] = []

    async def __aenter__(self) -> Stranger:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(PREFACE + frame(SETTINGS, 0, 0))
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.cancel()
        self._writer.close()

    def begin(self, calls: int) -> None:
        self._writer.write(b"".join(half_a_call(2 * number + 1) for number in range(calls)))

    async def until_ended(self, calls: int) -> list[int]:
        async with asyncio.timeout(30):
            while len(self.ended) < calls:
                await asyncio.sleep(0.01)
        return self.ended

    async def _listen(self) -> None:
        while True:
            head = await self._reader.readexactly(9)
            size, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
            payload = await self._reader.readexactly(size)
            if kind == HEADERS:
                self.ended.append(int.from_bytes(head[5:9]))
            if kind in (SETTINGS, PING) and not flags & ACK:
                self._writer.write(frame(kind, ACK, 0, payload if kind == PING else b""))


async def test_whoever_sends_its_request_notices_nothing() -> None:
    async with serving() as (_, _, channel):
        assert await channel.unary_unary("/test/one")(b"abc") == b"<abc"
        for method in ("several", "written"):
            assert [letter async for letter in channel.unary_stream(f"/test/{method}")(b"abc")] == [b"a", b"b", b"c"]
        many = (channel.unary_unary("/test/one")(bytes(1 << 20)) for _ in range(20))
        assert {len(answer) for answer in await asyncio.gather(*many)} == {(1 << 20) + 1}


async def test_an_unknown_method_is_told_as_before() -> None:
    async with serving() as (_, _, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/test/none")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_call_without_a_request_is_refused() -> None:
    async with serving() as (_, _, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_unary("/test/one")(iter(()))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_half_a_request_ends_in_time_and_others_are_answered_meanwhile() -> None:
    async with serving(within_s=0.3) as (_, port, channel), Stranger(port) as stranger:
        stranger.begin(5)
        assert await channel.unary_unary("/test/one")(b"abc") == b"<abc"
        assert sorted(await stranger.until_ended(5)) == [1, 3, 5, 7, 9]


async def test_only_so_many_are_slow_and_the_longest_slow_of_the_greediest_goes_first() -> None:
    async with serving(slow_after_s=0.05, most_slow=3) as (_, port, channel), Stranger(port) as stranger:
        stranger.begin(7)
        assert sorted(await stranger.until_ended(4)) == [1, 3, 5, 7]
        assert await channel.unary_unary("/test/one")(b"abc") == b"<abc"
        assert len(stranger.ended) == 4


async def test_a_server_that_stops_waits_for_none_of_them() -> None:
    async with serving() as (arriving, port, _), Stranger(port) as stranger:
        stranger.begin(3)
        async with asyncio.timeout(30):
            while len(stranger.ended) < 3:
                arriving.close()
                await asyncio.sleep(0.01)
        assert sorted(stranger.ended) == [1, 3, 5]


async def test_one_whose_time_has_just_run_out_may_be_given_up_as_well() -> None:
    loop, faults = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: faults.append(context))
    async with serving(within_s=0.5) as (arriving, port, _), Stranger(port) as stranger:
        stranger.begin(3)
        await asyncio.sleep(0.2)
        # a busy loop finds both due at once: first the deadlines, and this before any task has heard of its own
        loop.call_later(0.6, arriving.close)
        time.sleep(0.8)
        assert sorted(await stranger.until_ended(3)) == [1, 3, 5]
    assert faults == []
