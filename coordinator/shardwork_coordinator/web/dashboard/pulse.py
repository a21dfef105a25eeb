"""Pulse: tells an open page that something changed, a few times a minute at most, and that the coordinator is there.

The page then asks for itself again, in its own time; nothing is sent that its reader might not see. What was committed
after the page was made and before its stream opened, or while it was cut off, is told first. A stream whose session
ended is ended as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from fastapi import APIRouter
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from shardwork.errors import Unreachable

from ..live import MOST_LISTENERS, MOST_OF_ONE, RETRY_MS
from .desk import Desk
from .visits import visit_of

#: a page is told of changes at most this often
QUIET_S = 2.0
#: and hears something at least this often
BEAT_S = 5.0


def router(desk: Desk) -> APIRouter:
    routes = APIRouter()

    async def stream(request: Request) -> Response:
        who = await listener(request, desk)
        return who if isinstance(who, Response) else EventSourceResponse(beats(request, desk, who), ping=3_600)

    routes.add_api_route("/pulse", stream, methods=["GET"], include_in_schema=False)
    return routes


async def listener(request: Request, desk: Desk) -> str | Response:
    """Who gets a stream, or why this request gets none."""
    try:
        visit = await visit_of(request, desk)
        if visit is None:
            return PlainTextResponse("Sign in first.\n", status_code=401)
    except Unreachable:
        return PlainTextResponse("The database is away.\n", status_code=503, headers={"Retry-After": "5"})
    if desk.live.is_full(visit.user):
        text = f"{MOST_OF_ONE} pages of yours, or {MOST_LISTENERS} of everybody, are open already; close one.\n"
        return PlainTextResponse(text, status_code=503, headers={"Retry-After": "10"})
    return visit.user


async def beats(request: Request, desk: Desk, who: str) -> AsyncGenerator[ServerSentEvent, None]:
    """ "beat" with the coordinator's clock, and "changed" after commits."""
    live, engine = desk.live, desk.engine
    # a database that is away ends the stream; the page says so, and comes again
    with live.listening(who) as has_place, contextlib.suppress(Unreachable):
        committed = engine.committed
        if has_place and request.query_params.get("seen", "") != live.mark():
            yield _changed(desk)
        while has_place and not live.is_closing:
            yield _beat(desk)
            changed = await live.wait(committed, BEAT_S)
            if live.is_closing or await visit_of(request, desk) is None:
                return
            if changed:
                # taken before the rest: commits that come meanwhile are told together after it
                committed = engine.committed
                yield _changed(desk)
                await live.rest(QUIET_S)


def _changed(desk: Desk) -> ServerSentEvent:
    return ServerSentEvent(str(desk.engine.clock.now_ms()), event="changed")


def _beat(desk: Desk) -> ServerSentEvent:
    return ServerSentEvent(str(desk.engine.clock.now_ms()), event="beat", retry=RETRY_MS)
