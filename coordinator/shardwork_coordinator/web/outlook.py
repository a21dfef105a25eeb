"""Outlook: what anybody may know of this house without signing in, from one read.

Owns what is told and what is not: no job's name, no address, no worker that did not ask to be listed, no figure of a
device that too few shards were computed on. What devices call themselves is strangers' text, so only names made of a
vendor's own words are told. Called by `dashboard.public`, which keeps the answer for everybody.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from shardwork.identity.role import Role

from .. import views
from ..granting import ready_replicas
from ..links import Machine, Presence, from_hello, machine_of
from ..queueing.line import JobFacts
from ..records import Attachment, Job, JobState, Lease, Party, Replica, ReplicaState, Shard, ShardState, Stage, Standing
from ..scheduler import ReadyReplica, Worker, refusal
from ..store.base import Transaction

DAY_MS = 86_400_000
#: rates are of so many days, the leaderboard of more
RATE_DAYS, LEADER_DAYS = 7, 30
MOST_LEASES, MOST_MACHINES, MOST_LISTED, MOST_LEADERS, MOST_DEVICES = 5_000, 1_000, 200, 20, 12
#: fewer accepted shards say nothing of what a device earns
LEAST_SHARDS = 20
#: jobs, and shards of each, that are held against the devices
DEMAND_JOBS, DEMAND_SHARDS = 8, 8
CPU, OTHER = "CPU", "Other GPU"

_WORD = (
    r"(?:GeForce|RTX|GTX|RX|TITAN|Quadro|Tesla|Radeon|Instinct|Arc|Iris|Xe|Pro|Max|Ultra|Laptop|GPU|Ti|SUPER|XT|XTX|Ada|"
    r"Generation|Graphics|PCIe|NVL|MIG|HBM\d?e?|SXM\d?|[A-Z]{1,2}\d{1,4}[A-Z]{0,3}|\d{3,4}[A-Z]{0,2}|\d{1,3}GB)"
)
_DEVICE = re.compile(rf"(?:NVIDIA|AMD|Intel|Apple)(?: {_WORD}(?:-{_WORD}){{0,2}}){{1,6}}")


class Demand(StrEnum):
    """Shards that wait and that a device could take, beside how many such devices are here."""

    NONE = "none"
    LOW = "low"
    MIDDLE = "middle"
    HIGH = "high"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    name: str
    #: workers of this kind that are attached now
    attached: int
    demand: Demand
    #: accepted shards that the rates are of
    shards: int
    #: while it works, and what a quarter of the shards earned or more; None: not enough data
    median_msat_per_hour: int | None
    top_quarter_msat_per_hour: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    name: str
    shards: int
    paid_msat: int
    #: what work that it gave would have earned
    given_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    at_ms: int
    devices: Sequence[Device]
    open_jobs: int
    #: stages of open jobs by recipe
    kinds: Mapping[str, int]
    waiting_shards: int
    waiting_tokens: int
    workers_attached: int
    #: that were here within `RATE_DAYS`
    workers_seen: int
    shards_done: int
    recent_tokens: int
    #: more shards were accepted than are looked at
    is_more: bool
    paid_msat: int
    leaders: Sequence[Leader]


def outlook(tx: Transaction, links: Sequence[Presence], now_ms: int) -> Outlook:
    machines = _machines(tx, links, now_ms)
    leases = _recent(tx, now_ms - RATE_DAYS * DAY_MS)
    running = sorted(tx.count(Job, "id", state=[JobState.RUNNING, JobState.FUNDED]))
    waiting = tx.count(Replica, "job_id", state=ReplicaState.READY, job_id=running) if running else {}
    totals = views.house_totals(tx)
    return Outlook(
        at_ms=now_ms,
        devices=_devices(machines, links, leases, _samples(tx, waiting)),
        open_jobs=len(running),
        kinds=dict(Counter(_kinds(tx, running)).most_common()),
        waiting_shards=sum(waiting.values()),
        waiting_tokens=_waiting_tokens(tx, waiting),
        workers_attached=sum(1 for one in links if one.restriction is None),
        workers_seen=len(machines),
        shards_done=tx.count(Shard, "state", state=ShardState.DONE).get("done", 0),
        recent_tokens=_tokens(tx, {one.shard_id for one in leases}),
        is_more=len(leases) == MOST_LEASES,
        paid_msat=totals["owed"] + totals["paid"],
        leaders=_leaders(tx, now_ms - LEADER_DAYS * DAY_MS),
    )


# ---- devices --------------------------------------------------------------------------------------------------------


def device_name(machine: Machine) -> str:
    """What kind of device it is, in words that its owner did not make up."""
    if machine.device in ("", "cpu"):
        return CPU
    name = re.sub(r"\((?:TM|R)\)", "", machine.device_name).strip()
    return name if _DEVICE.fullmatch(name) else OTHER


@dataclass(frozen=True, slots=True)
class _Earned:
    """An accepted lease."""

    worker_id: str
    shard_id: str
    hours: float
    msat: int


def _recent(tx: Transaction, since_ms: int) -> list[_Earned]:
    """The latest accepted leases; work that was given counts as what it would have earned."""
    names = ("worker_id", "shard_id", "granted_ms", "ended_ms", "paid_msat", "donated_msat")
    found = tx.pick(Lease, names, state=ReplicaState.ACCEPTED, order="ended_ms", descending=True, limit=MOST_LEASES)
    return [
        _Earned(worker, shard, max(ended - granted, 1) / 3_600_000, paid + given)
        for worker, shard, granted, ended, paid, given in found
        if ended >= since_ms
    ]


def _machines(tx: Transaction, links: Sequence[Presence], now_ms: int) -> dict[str, Presence]:
    """Workers that were here lately, as they are or were."""
    here = {one.worker_id: one for one in links}
    latest = tx.find(Party, order="last_seen_ms", descending=True, limit=MOST_MACHINES)
    since_ms = now_ms - RATE_DAYS * DAY_MS
    known = {
        one.id: one
        for one in latest
        if one.last_seen_ms >= since_ms and Role.WORKER in one.roles.split(",") and one.standing is Standing.NORMAL
    }
    absent = sorted(known.keys() - here.keys())
    said = tx.find(Attachment, worker_id=absent) if absent else []
    return {one.worker_id: from_hello(one, known[one.worker_id], 0) for one in said} | here


def _devices(
    machines: Mapping[str, Presence],
    links: Sequence[Presence],
    leases: Sequence[_Earned],
    samples: Sequence[tuple[ReadyReplica, int]],
) -> list[Device]:
    kinds = {name: device_name(machine_of(one, None)) for name, one in machines.items()}
    attached = Counter(kinds[one.worker_id] for one in links if one.restriction is None)
    rates: dict[str, list[float]] = defaultdict(list)
    for lease in leases:
        if lease.worker_id in kinds:
            rates[kinds[lease.worker_id]].append(lease.msat / lease.hours)
    largest: dict[str, Worker] = {}
    for name, one in machines.items():
        worker = _anybody(one)
        if kinds[name] not in largest or worker.memory_bytes > largest[kinds[name]].memory_bytes:
            largest[kinds[name]] = worker
    found = [
        Device(
            name=kind,
            attached=attached[kind],
            demand=demand(samples, worker, attached[kind]),
            shards=len(rates[kind]),
            median_msat_per_hour=_quantile(rates[kind], 0.5),
            top_quarter_msat_per_hour=_quantile(rates[kind], 0.75),
        )
        for kind, worker in largest.items()
    ]
    found.sort(key=lambda one: (-(one.median_msat_per_hour or 0), -one.attached, one.name))
    return found[:MOST_DEVICES]


def _anybody(one: Presence) -> Worker:
    """Such a device in the hands of somebody who asks for nothing special."""
    return replace(
        one.as_worker(), id="", paused=False, restricted=None, rests="", minimum_msat=0, minimum_msat_per_tera=0
    )


def _quantile(values: Sequence[float], share: float) -> int | None:
    return int(sorted(values)[int(share * (len(values) - 1))]) if len(values) >= LEAST_SHARDS else None


def demand(samples: Sequence[tuple[ReadyReplica, int]], worker: Worker, attached: int) -> Demand:
    """`samples`: shards that wait, each with how many it stands for. Pure."""
    fitting = sum(number for replica, number in samples if refusal(replica, worker) is None)
    if not fitting:
        return Demand.NONE
    beside = fitting / max(attached, 1)
    return Demand.LOW if beside < 1 else Demand.MIDDLE if beside < 4 else Demand.HIGH


# ---- work -----------------------------------------------------------------------------------------------------------


def _samples(tx: Transaction, waiting: Mapping[str, int]) -> list[tuple[ReadyReplica, int]]:
    """The longest waiting shards of the jobs with most of them, and how many others each stands for."""
    found: list[tuple[ReadyReplica, int]] = []
    for job_id, number in sorted(waiting.items(), key=lambda pair: (-pair[1], pair[0]))[:DEMAND_JOBS]:
        job = tx.get(Job, job_id)
        if job is None:
            continue
        ready = ready_replicas(tx, job, limit=DEMAND_SHARDS, device=JobFacts.of(job).device)
        found += [(replace(one, excluded=frozenset()), max(number // len(ready), 1)) for one in ready]
    return found


def _kinds(tx: Transaction, running: Sequence[str]) -> list[str]:
    rows = tx.pick(Stage, ("recipe",), job_id=running, state=["running", "waiting"]) if running else []
    return [recipe for (recipe,) in rows]


def _waiting_tokens(tx: Transaction, waiting: Mapping[str, int]) -> int:
    rows = tx.pick(Shard, ("tokens",), state=ShardState.READY, job_id=sorted(waiting)) if waiting else []
    return sum(tokens for (tokens,) in rows)


def _tokens(tx: Transaction, shards: set[str]) -> int:
    ids = sorted(shards)
    rows = [row for at in range(0, len(ids), 500) for row in tx.pick(Shard, ("tokens",), id=ids[at : at + 500])]
    return sum(tokens for (tokens,) in rows)


def _leaders(tx: Transaction, since_ms: int) -> list[Leader]:
    """Workers whose owners want to be seen, by what they did lately."""
    listed = tx.find(Party, listed=True, order="last_seen_ms", descending=True, limit=MOST_LISTED)
    names = {one.id: one.name or f"worker {one.id[:6]}" for one in listed if one.standing is Standing.NORMAL}
    columns = ("worker_id", "ended_ms", "paid_msat", "donated_msat")
    rows = (
        tx.pick(
            Lease,
            columns,
            worker_id=sorted(names),
            state=ReplicaState.ACCEPTED,
            order="ended_ms",
            descending=True,
            limit=4 * MOST_LEASES,
        )
        if names
        else []
    )
    shards, paid, given = Counter[str](), Counter[str](), Counter[str]()
    for worker, ended_ms, paid_msat, donated_msat in rows:
        if ended_ms >= since_ms:
            shards[worker] += 1
            paid[worker] += paid_msat
            given[worker] += donated_msat
    order = sorted(shards, key=lambda name: (-(paid[name] + given[name]), name))
    return [
        Leader(name=names[name], shards=shards[name], paid_msat=paid[name], given_msat=given[name])
        for name in order[:MOST_LEADERS]
    ]
