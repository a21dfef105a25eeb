"""The overview page and its stream: jobs, workers, money and the latest events.

The page is rendered whole on the server and readable without scripts; htmx swaps the parts that changed.
"""

from __future__ import annotations

from fastapi import APIRouter, Response
from markupsafe import Markup
from sse_starlette import EventSourceResponse
from starlette.responses import HTMLResponse, PlainTextResponse

from .live import MOST_LISTENERS, Live, environment


def router(live: Live) -> APIRouter:
    routes, page = APIRouter(), environment().get_template("overview.html")

    async def overview() -> Response:
        snapshot = await live.now()
        # each part was escaped when it was rendered
        parts = {name: Markup(html) for name, html in snapshot.parts.items()}
        return HTMLResponse(page.render(parts=parts, now_ms=snapshot.now_ms))

    async def stream() -> Response:
        if live.listeners >= MOST_LISTENERS:
            text = f"{MOST_LISTENERS} pages are open already; close one.\n"
            return PlainTextResponse(text, status_code=503, headers={"Retry-After": "10"})
        return EventSourceResponse(live.updates(), ping=3_600)

    routes.get("/")(overview)
    routes.get("/live")(stream)
    return routes
