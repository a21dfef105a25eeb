"""Binds the web server, says whether it is healthy, starts and stops it with the coordinator."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import shutil
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Response
from fastapi.staticfiles import StaticFiles
from starlette.responses import PlainTextResponse

from shardwork.errors import InvalidInput

from ..artifacts.figures import StorageFigures
from ..engine import Engine
from ..records import Event
from ..settings import Settings
from . import pages
from .guard import Guard
from .live import FOLDER, Live
from .metrics import CONTENT_TYPE, Metrics

#: a store that does not answer a read for this long is not healthy
HEALTH_TIMEOUT_S = 5.0
#: what is still being answered then is cut off
STOP_GRACE_S = 2
#: a commit of a large step and its write-ahead log take a few of these
LEAST_FREE_BYTES = 16 << 20


def build(
    engine: Engine, folder: Path | None = None, *, heartbeat_s: float = 2.0, storage: StorageFigures | None = None
) -> FastAPI:
    """The application, without a socket; tests drive it directly. `folder` lies on the disk that must not be full."""
    app = FastAPI(title="Shardwork coordinator", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    live = Live(engine, heartbeat_s=heartbeat_s)
    app.state.live = live
    app.include_router(pages.router(live))
    metrics = Metrics(engine, folder=folder, storage=storage)

    async def health() -> Response:
        return await _health(engine, folder)

    async def scrape() -> Response:
        return Response(await metrics.scrape(), media_type=CONTENT_TYPE)

    app.get("/healthz")(health)
    app.get("/metrics")(scrape)
    app.add_middleware(Guard)
    return app


async def _health(engine: Engine, folder: Path | None) -> Response:
    """ok while the store answers and its disk has room for the next commit."""
    try:
        await asyncio.wait_for(
            engine.store.read(lambda tx: tx.find(Event, order="sequence", limit=1)), HEALTH_TIMEOUT_S
        )
    except Exception as error:
        return PlainTextResponse(f"the store does not answer: {type(error).__name__}\n", status_code=503)
    if folder is not None and shutil.disk_usage(folder).free < LEAST_FREE_BYTES:
        return PlainTextResponse("the disk of the data folder is full\n", status_code=503)
    return PlainTextResponse("ok\n")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.asynccontextmanager
async def serve_web(
    settings: Settings, engine: Engine, storage: StorageFigures | None = None
) -> AsyncGenerator[str, None]:
    """Serves until left; yields the page's address. Raises InvalidInput "web.not_loopback" (no TLS, no login)."""
    host, _, port = settings.web.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not _is_loopback(host):
        raise InvalidInput(
            "web.not_loopback",
            f"The web page has no login yet, so it is not served on {host}.",
            next_step="Give a loopback address, and reach it through ssh or a proxy with a login.",
            web=settings.web,
        )
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
    except (OSError, OverflowError, ValueError) as error:
        listener.close()
        raise InvalidInput(
            "web.port_taken",
            f"The web page can't listen on {settings.web}.",
            next_step="Give --web another port, or port 0 for any free one.",
            reason=str(error),
        ) from error
    app = build(engine, settings.data_dir, heartbeat_s=settings.heartbeat_s, storage=storage)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=STOP_GRACE_S
    )
    server = uvicorn.Server(config)
    # the coordinator owns the signals
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve([listener]), name="web")
    shown = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{shown}:{listener.getsockname()[1]}"
    finally:
        app.state.live.close()
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await task
        listener.close()
