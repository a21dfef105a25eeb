"""The composition root: builds a coordinator from its settings and runs it until it is told to stop.

    store         rows and money                     artifacts     bytes
    links         attached workers                   engine        machine x store, pushes, wake-ups
    granting      ready work x idle workers          sweeper       what time brings
    policy        rules that change meanwhile        expiry        content that nobody needs
    outbox        committed effects                  executor      prepare, merge, apply, in processes
    servicers     gRPC: enrolment, jobs, work, artifacts, wallet, operator, health, reflection
    people        those who judge, over the web
    web           dashboard, public page, health and /metrics
    cluster       the other coordinators on the same PostgreSQL, if there are any

Everything is imported here and nothing imports this, but `cli`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from sqlalchemy.exc import DBAPIError

from shardwork.clock import Clock, SystemClock
from shardwork.errors import Conflict, InvalidInput
from shardwork.protocol import MAX_MESSAGE_BYTES
from shardwork.session import JoinLine
from shardwork.v1 import (
    api_keys_pb2,
    api_keys_pb2_grpc,
    artifacts_pb2,
    artifacts_pb2_grpc,
    enrolment_pb2,
    enrolment_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    operator_pb2,
    operator_pb2_grpc,
    storage_pb2,
    storage_pb2_grpc,
    wallet_pb2,
    wallet_pb2_grpc,
    work_pb2,
    work_pb2_grpc,
)

from .api import router as api_router
from .api.desk import ApiDesk
from .api.keys import KeyGate
from .api.measuring import Measurer
from .artifacts import ArtifactStore
from .artifacts.expiry import Expiry
from .artifacts.opening import artifact_limits, key_file, location, open_contents
from .cluster.fellowship import Fellowship, join_cluster
from .cluster.identity import check_identity, storage_id
from .cluster.membership import new_id
from .engine import Engine
from .executor import Executor, StorageKey
from .failpoints import Failing
from .granting import Granting
from .hub import HubMirror, HubRules, HubSource
from .keyring import Keys, keys_folder
from .links import Links
from .money import deposits, payouts
from .money.pricing import RateCard
from .outbox import OutboxRunner
from .payments.base import Payments
from .payments.journal import StoreJournal
from .payments.simulated import SimulatedPayments
from .people.desk import PeopleDesk, secret_of
from .people.items import Items
from .people.routes import router as people_router
from .people.sweeping import sweep as sweep_people
from .policy.house import House
from .rpc.api_keys import ApiKeysServicer
from .rpc.arriving import Arriving
from .rpc.artifacts import ArtifactDesk, ArtifactsServicer
from .rpc.attach import WorkDesk
from .rpc.auth import TokenGate, Tokens
from .rpc.enrolment import Challenges, EnrolmentDesk, EnrolmentServicer
from .rpc.jobs import JobsDesk, JobsServicer
from .rpc.measure import MeasureDesk
from .rpc.models import ModelsServicer
from .rpc.operator import OperatorDesk, OperatorServicer
from .rpc.storage import StorageServicer
from .rpc.wallet import Wallet, WalletServicer
from .rpc.work import WorkServicer
from .settings import Settings
from .store import MemoryStore, SqlStore
from .store.base import Store
from .store.database_clock import DatabaseClock
from .store.writer import Committed, unheard
from .sweeper import Sweeper
from .telemetry.calls import Calls
from .telemetry.instruments import Instruments
from .telemetry.lag import watch_lag
from .telemetry.logs import Log, adopt
from .telemetry.traces import tracing
from .tls import FILE_NAME as AUTHORITY_FILE
from .tls import Authority
from .upkeep.open_files import WANTED, OpenFiles
from .web import Site, serve_web

OPTIONS: list[tuple[str, int]] = [
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", 100),
    ("grpc.so_reuseport", 0),
    # idle workers may ping, but not flood
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # a stranger must say something in time; who wants nothing is let go, and comes back by itself
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 600_000),
]
STOP_GRACE_S = 2.0

_log = Log("app")


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A coordinator that serves."""

    join: str
    web: str
    #: where the first user of the dashboard is made; empty once there is one
    setup: str
    engine: Engine
    house: House
    background: tuple[asyncio.Task[None], ...]


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncGenerator[Serving, None]:
    """Starts everything, yields, and stops it in the reverse order. Raises InvalidInput or Conflict."""
    folder = settings.data_dir
    host = _advertised(settings)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_only_one(folder))
        stack.enter_context(tracing(settings.traces))
        shared = settings.is_shared
        database_clock, links = DatabaseClock(), Links(new_id() if shared else "")
        clock: Clock = database_clock if shared else SystemClock()
        _check_not_lost(settings)
        instruments = Instruments()
        store = Failing(open_store(settings, database_clock, instruments.committed))
        start_store(store)
        stack.callback(store.close)
        storage = location(settings)
        contents = open_contents(settings)
        engine = Engine(store, links, clock, instruments)
        links.changed = engine.wake
        executor = _open_executor(settings, storage)
        stack.callback(executor.close)
        payments = _open_payments(settings, clock, StoreJournal(store, links.coordinator) if shared else None)
        keys = Keys.open(settings)
        if shared:
            await check_identity(store, keys.identity(await asyncio.to_thread(storage_id, storage), clock.now_ms()))
        files, arriving = _open_files(), Arriving()
        server = _server(files, instruments, arriving)
        port = _listen(server, settings, keys.authority)
        address = JoinLine(host=host, port=port, ca_sha256=keys.authority.ca_sha256).address
        cluster = await join_cluster(stack, engine, address, settings) if shared else None
        engine.addresses = (lambda: cluster.membership.addresses) if cluster else (lambda: (address,))
        house = House(store, settings)
        await house.refresh()
        gate, desk = await _add_services(server, house, engine, contents, keys, payments, cluster)
        mirror = HubMirror(HubSource(HubRules.of(settings)), store, contents, clock, folder / "scratch" / "hub")
        stack.push_async_callback(mirror.close)
        house.follow(lambda now: mirror.allow(now.hub_allow.split()))
        models_pb2_grpc.add_ModelsServiceServicer_to_server(ModelsServicer(gate, mirror, store, clock), server)
        sweeper = Sweeper(engine, settings, partial(_sweep_people_and_money, house, engine, payments))
        if cluster is None or not cluster.membership.has_others:
            await sweeper.revive()
        await server.start()
        stack.push_async_callback(server.stop, STOP_GRACE_S)
        stack.callback(engine.close)
        stack.callback(arriving.close)
        expiry, granting = _following(house, engine, contents, keys)
        api, figures = api_router(desk), expiry.figures
        people = people_router(_people_desk(house, engine, contents, keys, payments))
        site = Site(settings=settings, most_connections=files.web, storage=figures, house=house, payments=payments)
        site = replace(site, api=api, people=people, contents=contents)
        web = await stack.enter_async_context(serve_web(site, engine, keys.authority))
        stack.callback(desk.close)  # before the server: its streams end by themselves
        adopt("uvicorn", "uvicorn.error", "uvicorn.access")
        background = tuple(
            _background(stack, name, work)
            for name, work in (
                ("granting", granting.run()),
                ("outbox", OutboxRunner(engine, executor).run()),
                ("sweeper", sweeper.run()),
                ("expiry", expiry.run()),
                ("policy", house.run()),
                ("lag", watch_lag(instruments.lag_seconds.observe)),
                *(cluster.parts() if cluster else ()),
            )
        )
        engine.work_ready.set()
        join = JoinLine.of(engine.addresses(), keys.authority.ca_sha256)
        yield Serving(join=join.text(), web=web.url, setup=web.setup, engine=engine, house=house, background=background)


def _open_files() -> OpenFiles:
    files = OpenFiles.allow()
    if files.are_few:
        _log.warning("files.few", most=files.most, wanted=WANTED)
    return files


def _server(files: OpenFiles, instruments: Instruments, arriving: Arriving) -> grpc.aio.Server:
    options = [*OPTIONS, ("grpc.max_allowed_incoming_connections", files.grpc)]
    return grpc.aio.server(interceptors=[Calls(instruments), arriving], options=options)


async def _sweep_people_and_money(house: House, engine: Engine, payments: Payments) -> None:
    """What people's time brings, what comes in, and what is to go out."""
    await sweep_people(engine)
    await deposits.sweep(engine.store, payments, engine.clock)
    await payouts.advance(engine.store, payments, engine.clock, _payout_rules(house))


def _payout_rules(house: House) -> payouts.PayoutRules:
    return payouts.PayoutRules(threshold_msat=house.now.payout_threshold_sats * 1000)


def _people_desk(house: House, engine: Engine, contents: ArtifactStore, keys: Keys, payments: Payments) -> PeopleDesk:
    return PeopleDesk(
        engine=engine,
        items=Items(contents),
        secret=secret_of(keys.signing),
        asset=payments.asset,
        payout_rules=partial(_payout_rules, house),
    )


def _open_executor(settings: Settings, storage: str) -> Executor:
    return Executor(
        storage,
        settings.data_dir / "scratch",
        processes=settings.executor_processes,
        # what is encrypted in the store must not lie beside it in plain for longer than a task needs it
        cache_bytes=0 if settings.encrypt_at_rest else int(settings.executor_cache_gib * (1 << 30)),
        reserve_bytes=settings.disk_reserve_mib << 20,
        storage_key=StorageKey(key_file(settings), settings.encrypt_at_rest),
    )


def _following(house: House, engine: Engine, contents: ArtifactStore, keys: Keys) -> tuple[Expiry, Granting]:
    """What works by itself, and obeys the rules of the house."""
    expiry = Expiry(engine.store, contents, engine.clock, artifact_limits(house.now))
    granting = Granting(engine, keys.signing, house.now)

    def obey(now: Settings) -> None:
        expiry.limits = artifact_limits(now)
        granting.obey(now)

    house.follow(obey)
    return expiry, granting


async def _add_services(
    server: grpc.aio.Server,
    house: House,
    engine: Engine,
    contents: ArtifactStore,
    keys: Keys,
    payments: SimulatedPayments,
    cluster: Fellowship | None,
) -> tuple[TokenGate, ApiDesk]:
    """The gate that they share, and what the HTTP API calls them with."""
    store, clock, authority, settings = engine.store, engine.clock, keys.authority, house.now
    tokens = Tokens(keys.signing, authority.ca_sha256, clock)
    gate = TokenGate(tokens, store, clock, operator_public_key=keys.operator.public_key)
    addresses: Callable[[], Sequence[str]] = (lambda: cluster.membership.addresses) if cluster else tuple
    moved = partial(cluster.bulletin.tell, moved=True) if cluster else lambda: None
    desk = EnrolmentDesk(
        ca_pem=authority.ca_pem,
        ca_sha256=authority.ca_sha256,
        coordinator_public_key=keys.signing.public_key,
        operator_public_key=keys.operator.public_key,
        tokens=tokens,
        store=store,
        clock=clock,
        challenges=Challenges(clock),
        addresses=addresses,
    )
    enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(EnrolmentServicer(desk), server)
    work = WorkDesk(
        engine=engine, artifacts=contents, tokens=tokens, settings=settings, addresses=addresses, moved=moved
    )
    measuring = MeasureDesk(clock=clock, rates=_rates(settings), asset=payments.asset)
    work_pb2_grpc.add_WorkServiceServicer_to_server(WorkServicer(gate, work, measuring), server)
    jobs = JobsDesk(engine=engine, rates=_rates(settings), items=Items(contents))
    jobs_pb2_grpc.add_JobsServiceServicer_to_server(JobsServicer(gate, jobs), server)
    artifacts = ArtifactDesk(store, contents, clock, artifact_limits(settings))
    artifacts_pb2_grpc.add_ArtifactsServiceServicer_to_server(ArtifactsServicer(gate, artifacts), server)
    storage_pb2_grpc.add_StorageServiceServicer_to_server(StorageServicer(gate, artifacts), server)
    wallet = Wallet(store, payments, clock)
    wallet_pb2_grpc.add_WalletServiceServicer_to_server(WalletServicer(gate, wallet), server)
    api_keys_pb2_grpc.add_ApiKeysServiceServicer_to_server(ApiKeysServicer(gate, store, clock), server)
    operator_pb2_grpc.add_OperatorServiceServicer_to_server(OperatorServicer(gate, OperatorDesk(engine=engine)), server)
    await _add_health(server)

    def obey(now: Settings) -> None:
        jobs.rates = measuring.rates = _rates(now)
        jobs.is_open = now.intake == "open"
        jobs.max_open_jobs, jobs.max_running_shards = now.max_open_jobs, now.max_running_shards
        artifacts.limits = artifact_limits(now)
        wallet.threshold_msat = now.payout_threshold_sats * 1000

    house.follow(obey)
    scratch = settings.data_dir / "scratch" / "api"
    shutil.rmtree(scratch, ignore_errors=True)
    key = StorageKey(key_file(settings), settings.encrypt_at_rest)
    return gate, ApiDesk(
        engine=engine,
        jobs=jobs,
        artifacts=artifacts,
        wallet=wallet,
        gate=KeyGate(store, clock),
        measurer=Measurer(location(settings), scratch, key, settings.disk_reserve_mib << 20),
        scratch=scratch,
    )


async def _add_health(server: grpc.aio.Server) -> None:
    names = [
        module.DESCRIPTOR.services_by_name[name].full_name
        for module, name in (
            (api_keys_pb2, "ApiKeysService"),
            (enrolment_pb2, "EnrolmentService"),
            (work_pb2, "WorkService"),
            (jobs_pb2, "JobsService"),
            (artifacts_pb2, "ArtifactsService"),
            (models_pb2, "ModelsService"),
            (storage_pb2, "StorageService"),
            (wallet_pb2, "WalletService"),
            (operator_pb2, "OperatorService"),
        )
    ]
    servicer = health.aio.HealthServicer()
    for name in ("", *names):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server)


def _listen(server: grpc.aio.Server, settings: Settings, authority: Authority) -> int:
    """The port that the service got. Raises InvalidInput "serve.cannot_listen" for a taken port or a bad address."""
    try:
        # gRPC itself takes a port above 65535 modulo 65536, and says nothing
        if int(settings.listen.rpartition(":")[2]) > 65535:
            raise ValueError("no such port")
        return server.add_secure_port(settings.listen, authority.server_credentials())
    except (RuntimeError, ValueError) as error:
        raise InvalidInput(
            "serve.cannot_listen",
            f"The coordinator can't listen on {settings.listen}.",
            next_step="Give --listen as HOST:PORT with a port that nothing else uses, or port 0 for any free one.",
            listen=settings.listen,
        ) from error


def _background(stack: contextlib.AsyncExitStack, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work, name=name)

    async def stop() -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task

    stack.push_async_callback(stop)
    return task


def _rates(settings: Settings) -> RateCard:
    return RateCard(
        msat_per_tera_unit=settings.msat_per_tera_unit,
        minimum_msat=settings.minimum_shard_msat,
        fee_basis_points=settings.fee_basis_points,
    )


def open_store(settings: Settings, clock: DatabaseClock | None = None, committed: Committed | None = None) -> Store:
    if settings.database == "memory":
        return MemoryStore()
    path = database_file(settings)
    url = f"sqlite:///{path.absolute()}" if path else settings.database
    return SqlStore(url, clock=clock, committed=committed or unheard)


def database_file(settings: Settings) -> Path | None:
    """The database in the data folder; None where the settings name another one."""
    return None if settings.database else settings.data_dir / "coordinator.db"


def start_store(store: Store) -> None:
    """Starts it. Raises InvalidInput "store.unusable"."""
    with telling_unusable():
        store.start()


@contextlib.contextmanager
def telling_unusable() -> Generator[None, None, None]:
    """Raises InvalidInput "store.unusable" for a database that is damaged, locked or not to be opened."""
    try:
        yield
    except DBAPIError as error:
        raise InvalidInput(
            "store.unusable",
            "The database can't be used.",
            next_step="Nothing was changed. Check the disk and the folder's permissions, or restore a backup.",
            reason=str(error.orig),
        ) from error


def _check_not_lost(settings: Settings) -> None:
    """A coordinator that worked here has artifacts and keys. Without its database, which holds everybody's balances,
    a fresh one would start in its place under the same name. Raises Conflict "store.lost"."""
    folder, path = settings.data_dir, database_file(settings)
    if path is None or (path.exists() and path.stat().st_size):
        return
    if (keys_folder(settings) / AUTHORITY_FILE).exists() and (folder / "artifacts").exists():
        raise Conflict(
            "store.lost",
            "A coordinator worked in this folder, but its database is empty or gone.",
            next_step="Bring coordinator.db back together with coordinator.db-wal, or give --data-dir a new folder.",
            path=path,
        )


def _open_payments(settings: Settings, clock: Clock, shared: StoreJournal | None) -> SimulatedPayments:
    """Simulated sats are the default on loopback; elsewhere somebody must ask for them."""
    host = settings.listen.rpartition(":")[0].strip("[]")
    if settings.payments == "auto" and not _is_loopback(host):
        raise InvalidInput(
            "payments.not_chosen",
            f"The coordinator listens on {host}, where simulated sats are not the default.",
            next_step="Say --payments simulated, and everybody will be told that the sats are not real.",
            listen=settings.listen,
        )
    _log.warning("payments.simulated", note="no sat here is real, and none can be withdrawn as real")
    return SimulatedPayments(clock, shared or settings.data_dir / "simulated-payments.jsonl")


def _advertised(settings: Settings) -> str:
    """The host that others dial. Raises InvalidInput "serve.no_advertise" when listening everywhere says nothing."""
    host = settings.listen.rpartition(":")[0].strip("[]")
    if settings.advertise:
        return settings.advertise
    if host in ("", "0.0.0.0", "::"):
        raise InvalidInput(
            "serve.no_advertise",
            f"Listening on {settings.listen} does not say by which name others reach this machine.",
            next_step="Give --advertise a host name or an address.",
        )
    return host


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def _only_one(folder: Path) -> Generator[None, None, None]:
    """Refuses a second coordinator on one data folder; the lock goes with the process."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise Conflict(
            "coordinator.already_running",
            "Another coordinator uses this data folder.",
            next_step="Stop it first, or give this one a --data-dir of its own.",
            data_dir=folder,
        ) from error
    try:
        yield
    finally:
        os.close(handle)
