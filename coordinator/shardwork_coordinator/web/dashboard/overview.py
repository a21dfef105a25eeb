"""The overview: jobs, workers, money, what needs a look, the latest events; and the stream of what changed."""

from __future__ import annotations

from fastapi import APIRouter
from markupsafe import Markup
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response

from .pulse import listener
from .shell import Shell
from .visits import Visit, visit_of


def router(shell: Shell) -> APIRouter:
    routes, live = APIRouter(), shell.desk.live

    async def overview(request: Request, visit: Visit) -> Response:
        snapshot = await live.now()
        # each part was escaped when it was rendered
        parts = {name: Markup(html) for name, html in snapshot.parts.items()}
        return shell.html(request, visit, "dashboard/overview.html", parts=parts)

    async def stream(request: Request) -> Response:
        async def may_listen() -> bool:
            return await visit_of(request, shell.desk) is not None

        who = await listener(request, shell.desk)
        return who if isinstance(who, Response) else EventSourceResponse(live.updates(who, may_listen), ping=3_600)

    shell.page(routes, "/overview", overview)
    routes.add_api_route("/live", stream, methods=["GET"], include_in_schema=False)
    return routes
