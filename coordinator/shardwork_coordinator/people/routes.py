"""The table of /people/api: each call's signature is checked, its body read within bounds, its errors told as JSON."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response

from shardwork.errors import Internal, InvalidInput, NotFound, ShardworkError

from ..api.bodies import pieces
from ..api.failures import status_of
from ..telemetry.logs import Log
from ..web.live import FOLDER
from . import history, joining, offering, signing, voting
from .desk import PeopleDesk

PREFIX = "/people/api"
#: an edited text is the largest thing that somebody sends
BODY_MAX_BYTES = 256 << 10
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Handler = Callable[[signing.Call, PeopleDesk], Awaitable[dict[str, Any]]]

TABLE: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/join", joining.join),
    ("GET", "/tasks", offering.tasks),
    ("POST", "/next", offering.next_task),
    ("POST", "/vote", voting.vote),
    ("POST", "/undo", voting.undo),
    ("POST", "/skip", voting.skip),
    ("POST", "/report", voting.report),
    ("GET", "/history", history.history),
    ("POST", "/payout", joining.payout),
    ("POST", "/withdraw", joining.withdraw),
)
#: the page; what it is made of lies beside it, under /static
PAGE = FOLDER / "static" / "people" / "index.html"

_log = Log("people")


def router(desk: PeopleDesk) -> APIRouter:
    found = APIRouter()
    for method, path, handler in TABLE:
        found.add_api_route(PREFIX + path, _served(handler, desk), methods=[method], response_model=None)
    missing = _told(_missing)
    for path in (PREFIX, PREFIX + "/{rest:path}"):
        found.add_api_route(path, missing, methods=METHODS, response_model=None)
    found.add_api_route("/people", _page, methods=["GET", "HEAD"], response_model=None)
    return found


def _served(handler: Handler, desk: PeopleDesk) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        body = bytearray()
        async for piece in pieces(request, BODY_MAX_BYTES):
            body += piece
        key, call_id = signing.check(request, bytes(body), desk)
        said = _object(bytes(body)) if request.method == "POST" else dict(request.query_params)
        return JSONResponse(await handler(signing.called(key, call_id, said, request), desk))

    return _told(serve)


def _told(serve: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Errors in words; what nobody foresaw is logged and never told."""

    async def inside(request: Request) -> Response:
        try:
            return await serve(request)
        except ShardworkError as error:
            return _refusal(error)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            _log.error("people.unexpected", error=error)
            return _refusal(
                Internal(
                    "internal.unexpected",
                    "The coordinator met an error of its own.",
                    next_step="Try again; tell the operator when it stays.",
                )
            )

    return inside


def _refusal(error: ShardworkError) -> Response:
    why = error.why
    headers = {"Retry-After": wait_s} if (wait_s := why.evidence.get("retry_after_s", "")) else {}
    body = {"code": why.code, "sentence": why.sentence, "next_step": why.next_step}
    return JSONResponse(body, status_code=status_of(error), headers=headers)


async def _missing(request: Request) -> Response:
    raise NotFound("people.no_route", "There is no such call.", next_step="Reload the page.")


async def _page(request: Request) -> Response:
    return FileResponse(PAGE, media_type="text/html", headers={"Cache-Control": "no-cache"})


def _object(body: bytes) -> dict[str, Any]:
    """Raises InvalidInput "people.bad_body"."""
    try:
        said: object = json.loads(body) if body.strip() else {}
        if isinstance(said, dict):
            found = cast("dict[str, Any]", said)
            # letters that no database holds: NUL, and halves of a pair
            json.dumps(found, ensure_ascii=False).encode()
            if "\\u0000" not in json.dumps(found):
                return found
    except (ValueError, RecursionError):
        pass
    raise InvalidInput("people.bad_body", "The body is no JSON object of plain text.", next_step="Reload the page.")
