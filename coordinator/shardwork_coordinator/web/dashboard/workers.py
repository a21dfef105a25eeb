"""The page of all workers: searched, filtered, paged. One of them is `worker`."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ..roster import Presences, Wish, roster
from ..rows import SILENT_HEARTBEATS
from .desk import Desk
from .shell import Shell
from .visits import Visit

PATH = "/workers"


def router(shell: Shell) -> APIRouter:
    routes = APIRouter()

    async def show(request: Request, visit: Visit) -> Response:
        wish, around = Wish.of(request.query_params), presences(shell.desk)
        seen = await shell.desk.engine.store.read(lambda tx: roster(tx, wish, around))
        return shell.html(request, visit, "dashboard/workers.html", seen=seen)

    shell.page(routes, PATH, show)
    return routes


def presences(desk: Desk) -> Presences:
    """Who is attached at this moment, here and at the other coordinators."""
    now_ms, links = desk.engine.clock.now_ms(), desk.engine.links.everywhere()
    return Presences(
        now_ms=now_ms,
        silent_ms=now_ms - SILENT_HEARTBEATS * desk.settings.heartbeat_s * 1000,
        links={one.worker_id: one for one in links},
    )
