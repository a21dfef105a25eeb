"""Shell: the frame around each page, and how a page or an action becomes an answer.

Owns navigation, messages about what was done, and errors in words. A page is a function of (request, visit); an action
one of (visit, form) that returns where to go on and what to say.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from fastapi import APIRouter
from fastapi.exception_handlers import http_exception_handler
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from shardwork.errors import Internal, NotAllowed, NotFound, ShardworkError

from ...accounts import audit
from ...store.base import T, Transaction
from ...telemetry import logs
from ..statuses import http_status
from .desk import Desk
from .visits import Visit, check_form, form_of, login_path, visit_of

NAVIGATION = (
    ("/overview", "Overview"),
    ("/jobs", "Jobs"),
    ("/workers", "Workers"),
    ("/artifacts", "Artifacts"),
    ("/money", "Money"),
    ("/policy", "Policy"),
    ("/audit", "Audit"),
    ("/users", "Users"),
)
_log = logs.Log("web")

#: holds what the next page says once
SAID = "shardwork_said"
LONGEST_SAID = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Where to go on after an action, and what to say there."""

    path: str
    sentence: str


Open = Callable[[Request], Awaitable[Response]]
Page = Callable[[Request, Visit], Awaitable[Response]]
Action = Callable[[Request, Visit, dict[str, str]], Awaitable[Done]]


class Shell:
    """Renders and guards the pages of one desk."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def html(
        self, request: Request, visit: Visit | None, template: str, *, status: int = 200, **seen: Any
    ) -> HTMLResponse:
        """A page in its frame, and once what an action before it said."""
        said = unquote(request.cookies.get(SAID, ""))[:LONGEST_SAID]
        text = self.desk.templates.get_template(template).render(
            visit=visit,
            navigation=NAVIGATION if visit else (),
            here=request.url.path,
            mark=getattr(request.state, "mark", ""),
            said=said,
            now_ms=self.desk.engine.clock.now_ms(),
            **seen,
        )
        response = HTMLResponse(text, status_code=status)
        if said:
            response.delete_cookie(SAID, path="/")
        return response

    def error(self, request: Request, visit: Visit | None, error: Exception) -> Response:
        """A page in words, also while the store is away. What nobody foresaw is told by its existence alone."""
        if isinstance(error, Internal) or not isinstance(error, ShardworkError):
            _log.error("web.unexpected", error=error)
        if not isinstance(error, ShardworkError):
            sentence, next_step = "The coordinator met an error of its own.", "Its log has the details."
            error = Internal("internal.unexpected", sentence, next_step=next_step)
        status = http_status(error)
        # a form's address shows nothing by itself: from there it goes back to the page that the form is on
        back = parent_of(request) if request.method == "POST" and visit else ""
        return self.html(
            request, visit, "dashboard/error.html", status=status, why=error.why, status_code=status, back=back
        )

    def anyone(self, routes: APIRouter, path: str, work: Open, method: str = "GET") -> None:
        """Serves `work` at `path` to everybody, signed in or not."""

        async def answer(request: Request) -> Response:
            try:
                return await work(request)
            except Exception as error:
                return self.error(request, None, error)

        routes.add_api_route(path, answer, methods=[method], include_in_schema=False)

    async def lost(self, request: Request, error: Exception) -> Response:
        """Where no page is. Who asks for the address of a form, as after a reload, is led to the page it is on."""
        assert isinstance(error, HTTPException)
        if "text/html" not in request.headers.get("accept", ""):
            return await http_exception_handler(request, error)
        if error.status_code == 405:
            return RedirectResponse(parent_of(request), status_code=303)
        unknown = NotFound(
            "page.unknown", "There is no page at this address.", next_step="Check the address, or begin anew."
        )
        try:
            return self.error(request, await visit_of(request, self.desk), unknown)
        except ShardworkError as away:
            return self.error(request, None, away)

    def page(self, routes: APIRouter, path: str, work: Page) -> None:
        """Serves `work` at `path` to whoever signed in; everybody else is led to the login."""

        async def answer(request: Request) -> Response:
            visit = None
            try:
                visit = await visit_of(request, self.desk)
                if visit is None:
                    return RedirectResponse(login_path(request), status_code=303)
                # before anything is read: what comes after it, the page's stream tells
                request.state.mark = self.desk.live.mark()
                return await work(request, visit)
            except Exception as error:
                return self.error(request, visit, error)

        routes.add_api_route(path, answer, methods=["GET"], include_in_schema=False)

    def action(self, routes: APIRouter, path: str, work: Action, *, viewers: bool = False) -> None:
        """Serves a form's `work` at `path` to operators (and to viewers what concerns only themselves)."""

        async def answer(request: Request) -> Response:
            visit = None
            try:
                visit = await visit_of(request, self.desk)
                if visit is None:
                    return RedirectResponse("/login", status_code=303)
                form = await form_of(request)
                check_form(visit, form)
                if not (visit.may_act or viewers):
                    raise viewer_refused(visit)
                done = await work(request, visit, form)
            except Exception as error:
                return self.error(request, visit, error)
            return say(RedirectResponse(done.path, status_code=303), done.sentence)

        routes.add_api_route(path, answer, methods=["POST"], include_in_schema=False)

    async def do(self, visit: Visit, deed: audit.Deed, work: Callable[[Transaction], T]) -> T:
        """Does it and writes down who did it: both or neither."""

        def both(tx: Transaction) -> T:
            found = work(tx)
            audit.enter(tx, deed, visit.user, self.desk.engine.clock.now_ms())
            return found

        return await self.desk.commit(both)


def say(response: Response, sentence: str) -> Response:
    """Has the next page say it."""
    response.set_cookie(SAID, quote(sentence[:LONGEST_SAID]), max_age=30, httponly=True, samesite="lax", path="/")
    return response


def parent_of(request: Request) -> str:
    """The page that a form's address belongs to: one step up."""
    above = "/" + request.scope["path"].rpartition("/")[0].strip("/")
    return "/account" if above.startswith("/account/") else quote(above)


def viewer_refused(visit: Visit) -> NotAllowed:
    return NotAllowed(
        "login.viewer",
        f"{visit.user!r} may look, but not act.",
        next_step="Ask an operator, or sign in as one.",
        role=visit.role,
    )


def as_json(value: Any) -> str:
    """For a data attribute; the template escapes it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
