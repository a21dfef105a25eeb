"""Routes as a table: each row is served, checked and documented from what it says, so that none of the three differs.

Owns the order of things: who calls, then what was asked, then the handler. Used by `native` and `openai`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from shardwork.errors import NotFound

from ..rpc.auth import Caller
from .bodies import read_json
from .desk import ApiDesk
from .failures import answered
from .mapping import from_json, from_text, to_json, unknown_field

_IN_PATH = re.compile(r"\{(\w+)(?::path)?\}")
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that may go on: its caller is known, and what he asks is read."""

    request: Request
    caller: Caller
    desk: ApiDesk
    #: of the route's `takes`
    asked: Any

    @property
    def named(self) -> dict[str, str]:
        """Parts of the path."""
        return {name: str(value) for name, value in self.request.path_params.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    method: str
    path: str
    #: operation id of the document
    name: str
    summary: str
    #: a message, which becomes JSON, or a finished answer
    handle: Callable[[Call], Awaitable[Message | Response]]
    #: what is asked: its fields are parts of the path, then of the query (GET, DELETE) or of the body
    takes: type[Message] | None = None
    #: what is answered; a content type where it is no message
    gives: type[Message] | str = "application/json"
    #: reads its body itself
    is_form: bool = False
    #: fields of the query or body that the handler reads beside those of `takes`: name -> JSON schema
    beside: tuple[tuple[str, dict[str, Any]], ...] = ()

    @property
    def in_path(self) -> list[str]:
        return _IN_PATH.findall(self.path)

    @property
    def reads_body(self) -> bool:
        return self.method in ("POST", "PUT", "PATCH")


def add(router: APIRouter, desk: ApiDesk, prefix: str, table: Sequence[Route], *, openai: bool = False) -> None:
    """Serves every row, and tells what is not there in the words of this face."""
    for route in table:
        serve = answered(_served(route, desk), openai=openai)
        router.add_api_route(prefix + route.path, serve, methods=[route.method], response_model=None)

    async def missing(request: Request) -> Response:
        raise NotFound(
            "api.no_route",
            f"There is no {request.method} {request.url.path[:200]!r} here.",
            next_step="The document at /api/v1/openapi.json lists what there is.",
        )

    served = answered(missing, openai=openai)
    for path in (prefix, prefix + "/{rest:path}"):
        router.add_api_route(path, served, methods=METHODS, response_model=None)


def _served(route: Route, desk: ApiDesk) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        address = request.client.host if request.client else ""
        caller = await desk.gate.caller(request.headers.get("authorization", ""), address)
        asked = await _asked(route, request)
        answer = await route.handle(Call(request=request, caller=caller, desk=desk, asked=asked))
        return JSONResponse(to_json(answer)) if isinstance(answer, Message) else answer

    return serve


async def _asked(route: Route, request: Request) -> Any:
    """A message, the fields of the body or the query where there is none, or nothing where the handler reads it."""
    beside = {name for name, _ in route.beside}
    texts: dict[str, str] = {}
    if any("\0" in str(part) for part in (*request.path_params.values(), *request.query_params.values())):
        raise NotFound("api.no_route", "No name here holds a NUL.", next_step="Leave it out.")
    for name, text in request.query_params.multi_items():
        if name in texts or (name not in beside and (route.reads_body or route.takes is None)):
            raise unknown_field(name, dict.fromkeys(() if route.reads_body else sorted(beside)))
        texts[name] = text
    path = {name: str(value) for name, value in request.path_params.items()}
    if route.is_form:
        return None
    if route.reads_body:
        body = await read_json(request)
        if route.takes is None:
            return body
        own = {name: value for name, value in body.items() if name not in beside}
        _check_once(own, path)
        message = from_json(route.takes, own)
        message.MergeFrom(from_text(route.takes, path))
        return Body(message, {name: value for name, value in body.items() if name in beside}) if beside else message
    if route.takes is None:
        return texts
    own_texts = {name: text for name, text in texts.items() if name not in beside}
    _check_once(own_texts, path)
    known = {field.name for field in route.takes.DESCRIPTOR.fields}
    return from_text(route.takes, {**own_texts, **{name: text for name, text in path.items() if name in known}})


@dataclass(frozen=True, slots=True)
class Body:
    """A message and the fields beside it."""

    message: Any
    beside: dict[str, Any]


def _check_once(given: dict[str, Any], path: dict[str, str]) -> None:
    """What the path says is said once."""
    for name in given:
        if name in path:
            raise unknown_field(name, {})
