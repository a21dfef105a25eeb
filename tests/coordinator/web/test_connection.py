"""Who connects to the web server and then says nothing, or too little, is let go; who waits for us is not; and only so
many are let in."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import uvicorn

from shardwork_coordinator.web.binding import Place, bound
from shardwork_coordinator.web.connection import Connection

#: what the test calls long; the server's own spans are set far below and far above it
LONG_S = 0.6
NEVER_S = 600.0


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """How many bytes the body had: read slowly at /lazy, said slowly at /slow."""
    if scope["path"] == "/lazy":
        await asyncio.sleep(LONG_S)
    size, more = 0, True
    while more:
        piece = await receive()
        size, more = size + len(piece.get("body", b"")), piece.get("more_body", False)
    word = f"had {size}".encode()
    headers = [(b"connection", b"close"), (b"content-length", str(len(word)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": word[:2], "more_body": True})
    if scope["path"] == "/slow":
        await asyncio.sleep(LONG_S)
    await send({"type": "http.response.body", "body": word[2:]})


@contextlib.asynccontextmanager
async def serving(*, head_s: float = NEVER_S, body_s: float = NEVER_S, most: int = 100) -> AsyncGenerator[int, None]:
    """The port of a server that waits so long."""

    class Patient(Connection):
        pass

    Patient.head_s, Patient.body_s = head_s, body_s
    with bound(Place(host="127.0.0.1", port=0), most) as listener:
        config = uvicorn.Config(answer, log_level="critical", lifespan="off", http=Patient, ws="none")
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        task = asyncio.create_task(server.serve([listener]))
        async with asyncio.timeout(30):
            while not server.started:
                await asyncio.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


async def said(port: int, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """All that comes back until the server closes, for these bytes with pauses between them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(pause_s)
                return await reader.read()
            return b""
    finally:
        writer.close()


async def test_silence_and_half_a_head_are_not_waited_for() -> None:
    async with serving(head_s=0.1) as port:
        assert await said(port) == b""
        assert await said(port, b"GET / HTTP/1.1\r\nHost: here\r\n") == b""


async def test_a_head_that_comes_a_letter_at_a_time_has_one_span_in_all() -> None:
    async with serving(head_s=0.2) as port:
        letters = [bytes([letter]) for letter in b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"]
        assert await said(port, *letters, pause_s=0.05) == b""


async def test_a_body_that_stops_coming_is_not_waited_for() -> None:
    async with serving(body_s=0.2) as port:
        assert await said(port, b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\nabc") == b""


async def test_a_body_that_keeps_coming_is() -> None:
    async with serving(body_s=LONG_S) as port:
        head = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\n"
        assert (await said(port, head, b"a", b"b", b"c", b"d", pause_s=LONG_S / 2)).endswith(b"had 4")


async def test_who_waits_for_a_long_answer_or_for_us_to_read_is_left_alone() -> None:
    async with serving(head_s=0.1, body_s=0.1) as port:
        assert (await said(port, b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n")).endswith(b"had 0")
        size = 1 << 20
        head = f"POST /lazy HTTP/1.1\r\nHost: here\r\nContent-Length: {size}\r\n\r\n".encode()
        assert (await said(port, head + bytes(size))).endswith(f"had {size}".encode())


async def test_more_connections_than_allowed_are_turned_away_and_room_is_made_again() -> None:
    async with serving(most=3) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        assert await said(port, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n") == b""
        held[0][1].close()
        await held[0][1].wait_closed()
        async with asyncio.timeout(30):
            while not await said(port, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"):
                await asyncio.sleep(0.02)
        for _, writer in held[1:]:
            writer.close()


def test_a_door_counts_who_is_inside_and_not_who_is_remembered() -> None:
    with bound(Place(host="127.0.0.1", port=0), 2) as door, contextlib.ExitStack() as callers:
        door.listen()

        def knock() -> socket.socket:
            callers.enter_context(socket.create_connection(door.getsockname(), timeout=30))
            return door.accept()[0]

        first, second = knock(), knock()
        with pytest.raises(BlockingIOError):
            knock()
        first.close()
        third = knock()
        with pytest.raises(BlockingIOError):
            knock()
        second.close()
        third.close()
