"""Reading what a caller sends: JSON of bounded size and depth, in bounded time. Files of a form are `uploads`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, cast

from starlette.requests import Request

from shardwork.errors import InvalidInput, LimitExceeded, Unreachable

#: a job's description has at most as much
JSON_MAX_BYTES = 2 << 20
#: a sender that says nothing for so long is gone, and one that is slower than this is no sender
IDLE_S = 20.0
SLOWEST_BYTES_A_SECOND = 1_024
#: before the slowest rate counts
GRACE_S = 30.0


async def pieces(request: Request, limit_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body as it comes. Raises LimitExceeded "api.too_large", Unreachable "api.too_slow"."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise _too_large(limit_bytes)
    loop, got = asyncio.get_running_loop(), 0
    started, stream = loop.time(), request.stream()
    while True:
        try:
            async with asyncio.timeout(IDLE_S):
                piece = await anext(stream, None)
        except TimeoutError:
            raise _too_slow() from None
        if piece is None:
            return
        got += len(piece)
        if got > limit_bytes:
            raise _too_large(limit_bytes)
        took = loop.time() - started
        if took > GRACE_S and got < took * SLOWEST_BYTES_A_SECOND:
            raise _too_slow()
        yield piece


async def read_json(request: Request, limit_bytes: int = JSON_MAX_BYTES) -> dict[str, Any]:
    """The body as one JSON object; an empty body is an empty object. Raises InvalidInput "api.bad_json"."""
    data = bytearray()
    async for piece in pieces(request, limit_bytes):
        data += piece
    if not data.strip():
        return {}
    try:
        found = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            "api.bad_json",
            "The body is not JSON.",
            next_step="Send one JSON object, in UTF-8, with Content-Type: application/json.",
            reason=str(error)[:200],
        ) from None
    _check_letters(data, found)
    if not isinstance(found, dict):
        raise InvalidInput("api.bad_json", "The body is JSON, but no object.", next_step="Send {…}.")
    return cast("dict[str, Any]", found)


def _check_letters(data: bytearray, found: object) -> None:
    """Letters that no database and no answer holds: NUL, and halves of a pair. Looked for where one may be."""
    escaped = bytes(data).lower()
    if b"\\u0000" in escaped:
        raise _bad_letters()
    if b"\\ud" in escaped:
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _bad_letters() from None


def _bad_letters() -> InvalidInput:
    return InvalidInput(
        "api.bad_letters", "A text holds a letter that is none.", next_step="Leave out NUL and halves of pairs."
    )


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _too_large(limit_bytes: int) -> LimitExceeded:
    return LimitExceeded(
        "api.too_large",
        f"The body has more than {limit_bytes:,} bytes.",
        next_step="Send less; large inputs go through `shardwork job submit`, which resumes.",
        limit_bytes=limit_bytes,
    )


def _too_slow() -> Unreachable:
    return Unreachable("api.too_slow", "The body came too slowly.", next_step="Send it again over a better line.")
