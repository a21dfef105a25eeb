"""/metrics in Prometheus' conventions, read from the store at scrape time; no ids in labels.

Recounting the ledger reads every transfer, so its answer is kept for a minute.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from shardwork.protocol import software_version

from .. import views
from ..artifacts.figures import KINDS, StorageFigures
from ..engine import Engine
from ..money import ledger
from ..records import Event, Job, JobState, Lease, Outbox, Replica, ReplicaState, Shard, ShardState
from ..rpc.operator import worker_states
from ..store.base import Transaction
from .kept import Kept

CONTENT_TYPE = CONTENT_TYPE_LATEST
KEEP_CHECK_S = 60.0
WORKER_STATES = ("ready", "busy", "paused", "offline")
ENDINGS = (str(ReplicaState.ACCEPTED), str(ReplicaState.REJECTED), str(ReplicaState.EXPIRED))

# every scrape makes its registry anew, so the time a counter was made says nothing
disable_created_metrics()  # type: ignore[no-untyped-call]
#: processor seconds, memory and open files of this process, under Prometheus' usual names
_process = CollectorRegistry()
ProcessCollector(registry=_process)


class Metrics:
    """What one coordinator's web server exposes."""

    def __init__(
        self,
        engine: Engine,
        *,
        folder: Path | None = None,
        storage: StorageFigures | None = None,
        keep_check_s: float = KEEP_CHECK_S,
    ) -> None:
        """`folder`: the data folder, whose disk is told; None tells of none. `storage`: what sweeps count."""
        self._engine, self._folder = engine, folder
        self._storage = storage or StorageFigures()
        self._checked = Kept(self._check, keep_check_s)

    async def scrape(self) -> bytes:
        """The exposition text: one consistent read, and the ledger's last check."""
        registry = CollectorRegistry()
        balanced, checked_s = await self._checked.get()

        def look(tx: Transaction) -> None:
            _states(tx, self._engine, registry)
            _counters(tx, registry)
            _money(tx, registry)

        await self._engine.store.read(look)
        _gauge(registry, "shardwork_ledger_balanced", "1 while every account adds up.", 1 if balanced else 0)
        text = "When the ledger was last recounted; at most about a minute ago."
        _gauge(registry, "shardwork_ledger_checked_timestamp_seconds", text, checked_s)
        if self._folder is not None:
            free = shutil.disk_usage(self._folder).free
            _gauge(registry, "shardwork_disk_free_bytes", "Free space on the disk of the data folder.", free)
        _artifacts(self._storage, registry)
        info = Gauge("shardwork_build_info", "1; the label says which version runs.", ["version"], registry=registry)
        info.labels(software_version()).set(1)
        return generate_latest(registry) + generate_latest(_process)

    async def _check(self) -> tuple[bool, float]:
        checked_s = self._engine.clock.now_ms() / 1000
        return (await self._engine.store.read(ledger.check)).balanced, checked_s


async def scrape(engine: Engine) -> bytes:
    """One scrape without memory; the reference is generated from it."""
    return await Metrics(engine, folder=Path()).scrape()


def _states(tx: Transaction, engine: Engine, registry: CollectorRegistry) -> None:
    for name, text, states, counts in (
        ("shardwork_jobs", "Jobs by state.", JobState, tx.count(Job, "state")),
        ("shardwork_shards", "Shards by state.", ShardState, tx.count(Shard, "state")),
        ("shardwork_replicas", "Replicas by state.", ReplicaState, tx.count(Replica, "state")),
        ("shardwork_workers", "Enrolled workers by state.", WORKER_STATES, worker_states(tx, engine.links)),
        ("shardwork_outbox_effects", "Effects that follow commits, by state.", (), tx.count(Outbox, "state")),
    ):
        gauge = Gauge(name, text, ["state"], registry=registry)
        # an alert on paused jobs must not wait for the first one before it knows the series
        for state in sorted({*map(str, states), *counts}):
            gauge.labels(state).set(counts.get(state, 0))


def _counters(tx: Transaction, registry: CollectorRegistry) -> None:
    leases = Counter("shardwork_leases", "Leases that ended, by how they ended.", ["state"], registry=registry)
    ended = dict.fromkeys(ENDINGS, 0) | tx.count(Lease, "state")
    for state, number in ended.items():
        if state not in ("leased", "committed"):
            leases.labels(state).inc(number)
    newest = tx.find(Event, order="sequence", descending=True, limit=1)
    events = Counter("shardwork_events", "Events that were ever noted.", registry=registry)
    events.inc(newest[0].sequence if newest else 0)


def _money(tx: Transaction, registry: CollectorRegistry) -> None:
    totals = views.house_totals(tx)
    _gauge(registry, "shardwork_escrow_msat", "Millisatoshi that jobs set aside and did not spend.", totals["escrow"])
    _gauge(registry, "shardwork_owed_msat", "Millisatoshi that workers earned and were not sent.", totals["owed"])
    for name, text, msat in (
        ("shardwork_paid_msat", "Millisatoshi that were paid out to workers.", totals["paid"]),
        ("shardwork_fees_msat", "Millisatoshi that were taken as fees.", totals["fees"]),
    ):
        Counter(name, text, registry=registry).inc(msat)


def _artifacts(storage: StorageFigures, registry: CollectorRegistry) -> None:
    for name, text, counts in (
        ("shardwork_artifacts", "Stored contents by kind, at the last sweep.", storage.artifacts),
        ("shardwork_artifact_bytes", "Their bytes.", storage.bytes),
    ):
        gauge = Gauge(name, text, ["kind"], registry=registry)
        for kind in KINDS:
            gauge.labels(kind).set(counts[kind])
    for name, text, number in (
        ("shardwork_artifacts_deleted", "Contents that sweeps deleted.", storage.deleted_artifacts),
        ("shardwork_artifact_bytes_deleted", "Their bytes.", storage.deleted_bytes),
        ("shardwork_artifact_sweep_failures", "Sweeps that failed.", storage.failures),
    ):
        Counter(name, text, registry=registry).inc(number)
    text = "When the last sweep ended; 0 before the first."
    _gauge(registry, "shardwork_artifacts_swept_timestamp_seconds", text, storage.swept_ms / 1000)


def _gauge(registry: CollectorRegistry, name: str, text: str, value: float) -> None:
    Gauge(name, text, registry=registry).set(value)
