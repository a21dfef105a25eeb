"""Binds the web server, says whether it is healthy, starts and stops it with the coordinator."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import shutil
import ssl
from collections.abc import AsyncGenerator, Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import uvicorn
from fastapi import APIRouter, FastAPI, Response
from fastapi.staticfiles import StaticFiles
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from shardwork.errors import InvalidInput
from shardwork.identity.private_file import read_private
from shardwork.session import JoinLine

from ..artifacts import ArtifactStore
from ..artifacts.figures import StorageFigures
from ..engine import Engine
from ..payments.base import Payments
from ..people.items import Items
from ..policy.house import House
from ..records import Event, WebUser
from ..settings import Settings
from ..tls import Authority
from . import dashboard
from .binding import Place, bound, context_of, hosts_of
from .books import Books
from .connection import Connection
from .dashboard.desk import Desk
from .dashboard.shell import Shell
from .guard import Guard
from .live import FOLDER, Live, compile_templates, environment
from .metrics import CONTENT_TYPE, Metrics

#: a store that does not answer a read for this long is not healthy
HEALTH_TIMEOUT_S = 5.0
#: what is still being answered then is cut off
STOP_GRACE_S = 2
#: a commit of a large step and its write-ahead log take a few of these
LEAST_FREE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the web server shows, and to whom."""

    settings: Settings = field(default_factory=lambda: Settings(data_dir=Path()))
    #: the rules that may change; None: those of the settings
    house: House | None = None
    #: lies on the disk that must not be full; None: no disk is looked at
    folder: Path | None = None
    storage: StorageFigures = field(default_factory=StorageFigures)
    hosts: Collection[str] = ()
    #: more at a time are turned away
    most_connections: int = 1_000
    is_secure: bool = False
    #: told apart in the cookie's name: cookies know no ports
    port: int = 0
    setup_token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    metrics_token: str = ""
    #: what a worker joins by
    join: Callable[[], str] = str
    #: the HTTP API; None: none is served
    api: APIRouter | None = None
    #: what people who judge call, and their page; None: there is none
    people: APIRouter | None = None
    #: bytes of artifacts, for pages on which texts are read; None: there are none
    contents: ArtifactStore | None = None
    #: the node that the books are compared with, and that is asked about a payment
    payments: Payments | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebAddress:
    """Where the web server is, and where the first user is made while there is none (empty afterwards)."""

    url: str
    setup: str


def build(engine: Engine, site: Site | None = None) -> FastAPI:
    """The application, without a socket; tests drive it directly."""
    site = site or Site()
    app = FastAPI(title="Shardwork coordinator", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    live = Live(
        engine,
        heartbeat_s=site.settings.heartbeat_s,
        folder=site.folder,
        books=Books(engine, site.payments),
    )
    app.state.live = live
    desk = Desk(
        engine=engine,
        house=site.house or House(engine.store, site.settings),
        live=live,
        templates=environment(),
        storage=site.storage,
        cookie=f"shardwork_{site.port}",
        is_secure=site.is_secure,
        setup_token=site.setup_token,
        join=site.join,
        contents=site.contents,
        items=Items(site.contents) if site.contents else None,
    )
    if site.api is not None:
        app.include_router(site.api)
    if site.people is not None:
        app.include_router(site.people)
    shell = Shell(desk)
    app.include_router(dashboard.router(shell))
    for status in (404, 405):
        app.add_exception_handler(status, shell.lost)
    _add_plain(app, engine, site)
    app.add_middleware(Guard, hosts=tuple(site.hosts), is_secure=site.is_secure)
    return app


def _add_plain(app: FastAPI, engine: Engine, site: Site) -> None:
    """What machines ask for: health and metrics."""
    metrics = Metrics(engine, folder=site.folder, storage=site.storage)

    async def health() -> Response:
        return await _health(engine, site.folder)

    async def scrape(request: Request) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if site.metrics_token and not hmac.compare_digest(given.encode(), site.metrics_token.encode()):
            text = "Metrics need the bearer token of the setting metrics_token_file.\n"
            return PlainTextResponse(text, status_code=401, headers={"WWW-Authenticate": "Bearer"})
        return Response(await metrics.scrape(), media_type=CONTENT_TYPE)

    app.get("/healthz")(health)
    app.get("/metrics")(scrape)


async def _health(engine: Engine, folder: Path | None) -> Response:
    """ok while the store answers and its disk has room for the next commit."""
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_S):
            await engine.store.read(lambda tx: tx.find(Event, order="sequence", limit=1))
    except Exception as error:
        return PlainTextResponse(f"the store does not answer: {type(error).__name__}\n", status_code=503)
    if folder is not None and shutil.disk_usage(folder).free < LEAST_FREE_BYTES:
        return PlainTextResponse("the disk of the data folder is full\n", status_code=503)
    return PlainTextResponse("ok\n")


def _metrics_token(settings: Settings, place: Place) -> str:
    """Raises InvalidInput "web.no_metrics_token"."""
    path = settings.metrics_token_file
    text = read_private(path) if path else None
    token = text.decode("utf-8", "replace").strip() if text else ""
    if path and not token:
        raise InvalidInput(
            "web.no_metrics_token",
            "The file of the metrics token is empty or not there.",
            next_step="Write a long random word into it, mode 0600.",
            path=path,
        )
    # off loopback figures are nobody's without a token: one that nobody knows
    return token or ("" if place.is_loopback else secrets.token_urlsafe(24))


@contextlib.asynccontextmanager
async def serve_web(offered: Site, engine: Engine, authority: Authority) -> AsyncGenerator[WebAddress, None]:
    """Serves until left; yields its address. `offered`: what is shown; where and to whom follows from its settings.
    Raises InvalidInput "web.…"."""
    settings = offered.settings
    place = Place.of(settings)
    with bound(place, offered.most_connections) as listener:
        port = listener.getsockname()[1]
        context = context_of(settings, place, authority)
        site = replace(
            offered,
            folder=settings.data_dir,
            hosts=hosts_of(settings, place),
            is_secure=context is not None,
            port=port,
            metrics_token=_metrics_token(settings, place),
            join=lambda: JoinLine.of(engine.addresses(), authority.ca_sha256).text() if engine.addresses() else "",
        )
        app = build(engine, site)

        def serve_with(_: object, __: object) -> ssl.SSLContext:
            assert context is not None
            return context

        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            http=Connection,
            ws="none",
            timeout_graceful_shutdown=STOP_GRACE_S,
            ssl_context_factory=serve_with if context else None,
        )
        server = uvicorn.Server(config)
        # the coordinator owns the signals
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        task = asyncio.create_task(server.serve([listener]), name="web")
        compiling = asyncio.create_task(compile_templates(), name="templates")
        host = (settings.advertise or "localhost") if place.is_everywhere else place.host
        url = f"{'https' if context else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        has_users = bool(await engine.store.read(lambda tx: tx.find(WebUser, limit=1)))
        try:
            yield WebAddress(url=url, setup="" if has_users else f"{url}/setup?token={site.setup_token}")
        finally:
            app.state.live.close()
            server.should_exit = True
            compiling.cancel()
            await asyncio.gather(compiling, return_exceptions=True)
            with contextlib.suppress(asyncio.CancelledError):
                await task
