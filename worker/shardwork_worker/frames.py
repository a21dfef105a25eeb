"""Frames between the agent and its training child: 4 bytes of big-endian length, then UTF-8 JSON.

Owns the framing only: blocking for the child, asyncio for the agent. What the messages mean stands in
`shardwork_worker.child`. Needs neither torch nor grpc.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

from shardwork.errors import Corrupt

HEADER_BYTES = 4
#: messages name folders and numbers; anything larger is a stray print that got into the pipe
MAX_FRAME_BYTES = 4 * 1024 * 1024


def encode(message: Mapping[str, Any]) -> bytes:
    """One frame. Raises Corrupt "frame.too_large"."""
    body = json.dumps(message, separators=(",", ":")).encode()
    _check_length(len(body))
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def decode(body: bytes) -> dict[str, Any]:
    """The message in a frame's body. Raises Corrupt "frame.not_json"."""
    try:
        message: object = json.loads(body)
    except ValueError as error:
        raise Corrupt("frame.not_json", "A frame between agent and child is not JSON.", start=body[:60]) from error
    found = cast("dict[str, Any]", message) if isinstance(message, dict) else {}
    if not isinstance(found.get("type"), str):
        raise Corrupt("frame.no_type", "A frame between agent and child names no type.", start=body[:60])
    return found


def write_frame(stream: BinaryIO, message: Mapping[str, Any]) -> None:
    """Writes one frame and flushes it."""
    stream.write(encode(message))
    stream.flush()


def read_frame(stream: BinaryIO) -> dict[str, Any] | None:
    """The next message, or None when the pipe closed between frames. Raises Corrupt when it closed inside one."""
    header = _read_exactly(stream, HEADER_BYTES)
    if not header:
        return None
    length = int.from_bytes(header, "big")
    _check_length(length)
    body = _read_exactly(stream, length)
    if len(header) < HEADER_BYTES or len(body) < length:
        raise _cut_off(len(header) + len(body))
    return decode(body)


async def read_frame_from(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """As `read_frame`, for the agent's event loop."""
    try:
        length = int.from_bytes(await reader.readexactly(HEADER_BYTES), "big")
        _check_length(length)
        return decode(await reader.readexactly(length))
    except asyncio.IncompleteReadError as error:
        if not error.partial and error.expected == HEADER_BYTES:
            return None
        raise _cut_off(len(error.partial)) from error


def _read_exactly(stream: BinaryIO, count: int) -> bytes:
    """`count` bytes, or fewer at the end of the stream; an unbuffered pipe returns what it has."""
    parts: list[bytes] = []
    missing = count
    while missing and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _check_length(length: int) -> None:
    if length > MAX_FRAME_BYTES:
        raise Corrupt("frame.too_large", "A frame between agent and child is too large.", bytes=length)


def _cut_off(received: int) -> Corrupt:
    return Corrupt("frame.cut_off", "The pipe between agent and child closed inside a frame.", received_bytes=received)
