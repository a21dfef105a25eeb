"""The public page: what devices earn here, what waits, who gave and earned, how to join. For everybody, and as JSON.

Kept for a while, so that however many look, the store is read a few times a minute. The rule `public_page` switches it
off; then only signing in is left.
"""

from __future__ import annotations

import asyncio
import dataclasses

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from shardwork.errors import NotFound, ShardworkError, Unreachable

from ..kept import Kept
from ..outlook import LEADER_DAYS, LEAST_SHARDS, RATE_DAYS, Outlook, outlook
from ..statuses import http_status
from .shell import Shell
from .visits import visit_of

KEEP_S = 15.0
#: a page that is a little old is better than one that comes late
PATIENCE_S = 0.1


def router(shell: Shell) -> APIRouter:
    routes, pages = APIRouter(), Public(shell)
    shell.anyone(routes, "/", pages.show)
    routes.add_api_route("/public.json", pages.plain, methods=["GET"], include_in_schema=False)
    return routes


class Public:
    def __init__(self, shell: Shell) -> None:
        self._shell, self._desk = shell, shell.desk
        self._outlook = Kept(self._look, KEEP_S)
        self._looking: asyncio.Task[Outlook] | None = None
        self._last: Outlook | None = None

    async def _look(self) -> Outlook:
        engine = self._desk.engine
        links, now_ms = engine.links.everywhere(), engine.clock.now_ms()
        return await engine.store.read(lambda tx: outlook(tx, links, now_ms))

    async def _seen(self) -> Outlook:
        """Nobody but the first waits long for a look: the others get the last one while the next is made, or while the
        database is away."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._outlook.get())
        looking = self._looking
        await asyncio.wait({looking}, timeout=None if self._last is None else PATIENCE_S)
        if self._last is None or (looking.done() and not looking.exception()):
            self._last = await looking
        return self._last

    async def show(self, request: Request) -> Response:
        visit = await visit_of(request, self._desk)
        if not self._desk.settings.public_page:
            return RedirectResponse("/overview" if visit else "/login", status_code=303)
        seen = await self._seen()
        return self._shell.html(
            request,
            visit,
            "dashboard/public.html",
            seen=seen,
            join=self._desk.join(),
            house=self._desk.settings,
            days={"rates": RATE_DAYS, "leaders": LEADER_DAYS, "least": LEAST_SHARDS},
        )

    async def plain(self, request: Request) -> Response:
        """The same for programs."""
        if not self._desk.settings.public_page:
            return _refused(NotFound("public.off", "This coordinator shows nothing in public.", next_step="Sign in."))
        try:
            body = dataclasses.asdict(await self._seen())
        except Unreachable as error:
            return _refused(error)
        body |= {"join": self._desk.join(), "payments": "simulated", "rate_days": RATE_DAYS, "leader_days": LEADER_DAYS}
        return JSONResponse(body, headers={"Cache-Control": f"public, max-age={KEEP_S:.0f}"})


def _refused(error: ShardworkError) -> Response:
    why = {"code": error.code, "sentence": error.why.sentence, "next_step": error.why.next_step}
    return JSONResponse({"error": why}, status_code=http_status(error))
