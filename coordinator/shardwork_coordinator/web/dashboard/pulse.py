"""Pulse: tells an open page that something changed, a few times a minute at most, and that the coordinator is there.

The page then asks for itself again, in its own time; nothing is sent that its reader might not see. A stream whose
session ended is ended as well.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from fastapi import APIRouter
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from shardwork.errors import Unreachable

from ..live import MOST_LISTENERS, RETRY_MS
from .desk import Desk
from .visits import visit_of

#: a page is told of changes at most this often
QUIET_S = 2.0
#: and hears something at least this often
BEAT_S = 5.0


def router(desk: Desk) -> APIRouter:
    routes = APIRouter()

    async def stream(request: Request) -> Response:
        if (refusal := await refused(request, desk)) is not None:
            return refusal
        return EventSourceResponse(beats(request, desk), ping=3_600)

    routes.add_api_route("/pulse", stream, methods=["GET"], include_in_schema=False)
    return routes


async def refused(request: Request, desk: Desk) -> Response | None:
    """Why this request gets no stream; None when it gets one."""
    try:
        if await visit_of(request, desk) is None:
            return PlainTextResponse("Sign in first.\n", status_code=401)
    except Unreachable:
        return PlainTextResponse("The database is away.\n", status_code=503, headers={"Retry-After": "5"})
    if desk.live.listeners >= MOST_LISTENERS:
        text = f"{MOST_LISTENERS} pages are open already; close one.\n"
        return PlainTextResponse(text, status_code=503, headers={"Retry-After": "10"})
    return None


async def beats(request: Request, desk: Desk) -> AsyncGenerator[ServerSentEvent, None]:
    """ "beat" with the coordinator's clock, and "changed" after commits."""
    live, engine = desk.live, desk.engine
    # a database that is away ends the stream; the page says so, and comes again
    with live.listening(), contextlib.suppress(Unreachable):
        committed = engine.committed
        yield _beat(desk)
        while not live.is_closing:
            changed = await live.wait(committed, BEAT_S)
            if live.is_closing or await visit_of(request, desk) is None:
                return
            if changed:
                # taken before the rest: commits that come meanwhile are told together after it
                committed = engine.committed
                yield ServerSentEvent(str(engine.clock.now_ms()), event="changed")
            yield _beat(desk)
            await asyncio.sleep(QUIET_S)


def _beat(desk: Desk) -> ServerSentEvent:
    return ServerSentEvent(str(desk.engine.clock.now_ms()), event="beat", retry=RETRY_MS)
