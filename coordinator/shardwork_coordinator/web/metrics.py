"""/metrics in Prometheus' conventions; no ids in labels.

What this process counted comes from its instruments and is its own. What is stored (jobs, queues, money) is read in
one transaction, kept for a few seconds for everybody who scrapes, and the same at every coordinator of one database.
Recounting the ledger reads every transfer: it runs beside the scrapes, at most once a minute.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from shardwork.identity.role import Role
from shardwork.protocol import software_version
from shardwork.recipes.base import ASK_PHASE

from .. import views
from ..artifacts import reach
from ..artifacts.figures import KINDS, StorageFigures
from ..cluster.membership import living
from ..engine import Engine
from ..money import ledger
from ..people import places
from ..records import (
    Annotator,
    AnnotatorState,
    DepositRow,
    DepositState,
    Event,
    Job,
    JobState,
    Lease,
    Outbox,
    OutboxState,
    Party,
    Payout,
    PayoutState,
    Replica,
    ReplicaState,
    Shard,
    ShardState,
    Standing,
    Vote,
    VoteState,
)
from ..rpc.operator import worker_states
from ..store.base import Transaction
from ..telemetry.logs import Log
from ..telemetry.verdicts import Verdicts
from ..telemetry.waiting import waits
from .kept import Beside, Kept

T = TypeVar("T")

CONTENT_TYPE = CONTENT_TYPE_LATEST
KEEP_CHECK_S = 60.0
#: two Prometheus servers that scrape every 15 s cost as much as one
KEEP_LOOK_S = 5.0
#: a scrape that waits longer for the store says that the store is away
PATIENCE_S = 5.0
#: and so long for the first count of the ledger
FIRST_CHECK_S = 1.0
WORKER_STATES = ("ready", "busy", "paused", "offline")
ENDINGS = (str(ReplicaState.ACCEPTED), str(ReplicaState.REJECTED), str(ReplicaState.EXPIRED))

# every scrape makes its registry anew, so the time a counter was made says nothing
disable_created_metrics()  # type: ignore[no-untyped-call]
#: processor seconds, memory and open files of this process, under Prometheus' usual names
_process = CollectorRegistry()
ProcessCollector(registry=_process)

_log = Log("metrics")


@dataclass(frozen=True, slots=True)
class Balance:
    """What a recount of the ledger found."""

    balanced: bool
    checked_s: float


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
        self._counted = CollectorRegistry()
        self._verdicts = Verdicts(self._counted)
        self._checked = Beside(Kept(self._check, keep_check_s), "ledger")
        self._looked = Beside(Kept(self._look, KEEP_LOOK_S), "store")

    async def scrape(self) -> bytes:
        """The exposition text; it comes without what the store knows while the store does not answer."""
        # a recount that is not done yet leaves the last one's answer
        await self._checked.get(FIRST_CHECK_S if self._checked.latest is None else 0)
        is_up = await self._looked.get(PATIENCE_S)
        stored = self._looked.latest if is_up else None
        registry = CollectorRegistry()
        _gauge(registry, "shardwork_store_up", "1 while the database answers.", 1 if stored else 0)
        if self._checked.latest is not None:
            _balance(registry, self._checked.latest)
        if self._folder is not None:
            _disk(registry, self._folder)
        _artifacts(self._storage, registry)
        links = self._engine.links
        _gauge(registry, "shardwork_workers_attached", "Workers attached to this coordinator.", len(links.all()))
        info = Gauge("shardwork_build_info", "1; the labels say what runs.", ["version", "python"], registry=registry)
        info.labels(software_version(), ".".join(map(str, sys.version_info[:3]))).set(1)
        own = (registry, self._counted, self._engine.instruments.registry, _process)
        return (stored or b"") + b"".join(map(generate_latest, own))

    async def _look(self) -> bytes:
        def look(tx: Transaction) -> CollectorRegistry:
            # a new one each time: a read that a database server cut short is run again
            registry = CollectorRegistry()
            _states(tx, self._engine, registry)
            _standings(tx, registry)
            _counters(tx, registry)
            _money(tx, registry)
            _waits(tx, registry, self._engine.clock.now_ms())
            self._verdicts.look(tx)
            return registry

        return generate_latest(await self._engine.store.read(look))

    async def _check(self) -> Balance:
        checked_s = self._engine.clock.now_ms() / 1000
        return Balance((await self._engine.store.read(ledger.check)).balanced, checked_s)


async def scrape(engine: Engine) -> bytes:
    """One scrape without memory; the reference is generated from it."""
    return await Metrics(engine, folder=Path()).scrape()


def _states(tx: Transaction, engine: Engine, registry: CollectorRegistry) -> None:
    for name, text, states, counts in (
        ("shardwork_jobs", "Jobs by state.", JobState, tx.count(Job, "state")),
        ("shardwork_shards", "Shards by state.", ShardState, tx.count(Shard, "state")),
        ("shardwork_replicas", "Replicas by state.", ReplicaState, tx.count(Replica, "state")),
        (
            "shardwork_outbox_effects",
            "Effects that follow commits, by state.",
            OutboxState,
            tx.count(Outbox, "state"),
        ),
        ("shardwork_workers", "Enrolled workers by state.", WORKER_STATES, worker_states(tx, engine.links)),
        ("shardwork_payouts", "Payments to workers and requesters by state.", PayoutState, tx.count(Payout, "state")),
        ("shardwork_deposits", "Invoices for deposits by state.", DepositState, tx.count(DepositRow, "state")),
        (
            "shardwork_votes",
            "Tasks given to people, by what became of them.",
            VoteState,
            tx.count(Vote, "state"),
        ),
        ("shardwork_annotators", "People by how they stand in a stage.", AnnotatorState, tx.count(Annotator, "state")),
    ):
        gauge = Gauge(name, text, ["state"], registry=registry)
        # an alert on paused jobs must not wait for the first one before it knows the series
        for state in sorted({*map(str, states), *counts}):
            gauge.labels(state).set(counts.get(state, 0))
    text = "Items of running stages that people may be given."
    _gauge(registry, "shardwork_people_items_open", text, _items_open(tx))
    alive = len(living(tx, engine.clock.now_ms())) if engine.links.coordinator else 1
    _gauge(registry, "shardwork_coordinators", "Coordinators that live on this database.", alive)


def _items_open(tx: Transaction) -> int:
    jobs = [job.id for job, _ in places.running(tx) if job.state is JobState.RUNNING]
    counts = tx.count(Shard, "state", job_id=jobs, phase=ASK_PHASE) if jobs else {}
    return counts.get(ShardState.READY, 0)


def _standings(tx: Transaction, registry: CollectorRegistry) -> None:
    text = "Enrolled workers by what the operator lets them do."
    gauge = Gauge("shardwork_worker_standings", text, ["standing"], registry=registry)
    for standing in Standing:
        gauge.labels(standing).set(0)
    for roles, standing in tx.pick(Party, ("roles", "standing")):
        if Role.WORKER in roles.split(","):
            gauge.labels(standing).inc()


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


def _waits(tx: Transaction, registry: CollectorRegistry, now_ms: int) -> None:
    found = waits(tx, tx.count(Job, "id", state=JobState.RUNNING), now_ms)
    for name, text, value in (
        ("shardwork_queue_oldest_seconds", "Age of the oldest work of running jobs that no worker has.", found.queue_s),
        ("shardwork_round_oldest_seconds", "Age of the oldest open round of running jobs.", found.round_s),
        (
            "shardwork_checkpoint_oldest_seconds",
            "The longest time that a running stage has kept no new round.",
            found.checkpoint_s,
        ),
        ("shardwork_outbox_oldest_seconds", "Age of the oldest effect that was not carried out.", found.outbox_s),
        ("shardwork_outbox_attempts", "Failed tries of the pending effect that failed most.", found.outbox_attempts),
        ("shardwork_payout_oldest_seconds", "Age of the oldest payment that has not ended.", found.payment_s),
    ):
        _gauge(registry, name, text, value)


def _balance(registry: CollectorRegistry, found: Balance) -> None:
    _gauge(registry, "shardwork_ledger_balanced", "1 while every account adds up.", 1 if found.balanced else 0)
    text = "When the ledger was last recounted; at most about a minute ago."
    _gauge(registry, "shardwork_ledger_checked_timestamp_seconds", text, found.checked_s)


def _disk(registry: CollectorRegistry, folder: Path) -> None:
    usage = shutil.disk_usage(folder)
    _gauge(registry, "shardwork_disk_free_bytes", "Free space on the disk of the data folder.", usage.free)
    _gauge(registry, "shardwork_disk_size_bytes", "Size of that disk.", usage.total)


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
    failed = Counter(
        "shardwork_artifact_store_failures",
        "Calls that the object store did not answer, by the kind of error.",
        ["kind"],
        registry=registry,
    )
    for kind, number in reach.failures.items():
        failed.labels(kind).inc(number)
    text = "When the last sweep ended; 0 before the first."
    _gauge(registry, "shardwork_artifacts_swept_timestamp_seconds", text, storage.swept_ms / 1000)


def _gauge(registry: CollectorRegistry, name: str, text: str, value: float) -> None:
    Gauge(name, text, registry=registry).set(value)
