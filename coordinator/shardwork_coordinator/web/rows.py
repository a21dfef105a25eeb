"""Rows: what the overview page shows, from one consistent read. Owns what is shown and in which order, and its caps.

Every list is capped, so that a page costs the same after a year as on the first day.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from shardwork.identity.role import Role
from shardwork.recipes.base import RoundKind

from .. import views
from ..links import Presence
from ..machine.states import FINAL_JOB, FINAL_ROUND, LIVE
from ..money.movements import worker_account
from ..records import (
    Account,
    Event,
    Job,
    JobState,
    Lease,
    Party,
    Replica,
    ReplicaState,
    Round,
    Shard,
    Stage,
    StageState,
)
from ..scheduler import Worker
from ..store.base import Transaction
from . import phases
from .alerts import Alert, Facts, alerts, queue_age_ms

#: pace is of the attempts that ended in this time, and of so many at most
PACE_MS, MOST_LEASES = 60_000, 500
ENDED_STATES = (str(ReplicaState.ACCEPTED), str(ReplicaState.REJECTED), str(ReplicaState.EXPIRED))
MOST_LIVE_JOBS, MOST_ENDED_JOBS, MOST_WORKERS, MOST_EVENTS, MOST_HANDS = 20, 10, 30, 15, 6
#: offline workers are looked for among this many parties that were seen last
MOST_PARTIES = 200
#: a worker that is attached and misses so many heartbeats is shown as silent
SILENT_HEARTBEATS = 5
#: most points of a drawn loss curve
MOST_POINTS = 60
CURVE_WIDTH, CURVE_HEIGHT = 120, 28
#: share of a round that its own work is; the rest is merging and evaluating
WORK_SHARE = 0.85
#: what needs a person comes first
ORDER = (JobState.PAUSED, JobState.RUNNING, JobState.FUNDED, JobState.DRAFT)

#: what a worker that computes nothing does, by its state
DOING = {
    "ready": "waits for work",
    "paused": "takes no work: paused on its own machine",
    "silent": "not heard",
    "drained": "gets nothing new, by the operator's word",
    "quarantined": "gets nothing, and its earnings are held",
    "banned": "its key is refused",
}

_PARTY_ID = re.compile(r"\b[0-9a-f]{16}\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """From the first to the last known value, and its curve as SVG points."""

    what: str
    first: float
    last: float
    points: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """A worker on a shard."""

    worker: str
    phase: str
    percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    id: str
    name: str
    state: str
    where: str
    percent: int
    loss: Loss | None
    hands: Sequence[Hand]
    more_hands: int
    spent_msat: int
    budget_msat: int
    why: str
    next_step: str
    created_ms: int
    ended_ms: int
    self_evaluated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    id: str
    name: str
    state: str
    doing: str
    device: str
    accepted: int
    rejected: int
    expired: int
    earned_msat: int
    reference: bool
    #: when it was last heard; 0 while it is attached and heard
    gone_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    sequence: int
    at_ms: int
    kind: str
    job_id: str
    job: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What was handed in during the last minute."""

    shards_per_s: float
    tokens_per_s: float
    rejected: int
    expired: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    jobs: Sequence[JobRow]
    #: number of jobs by state, all of them
    counts: Mapping[str, int]
    hidden_jobs: int
    workers: Sequence[WorkerRow]
    hidden_workers: int
    attached: int
    busy: int
    pace: Pace
    #: how long the oldest waiting shard has been ready
    queue_age_ms: int
    alerts: Sequence[Alert]
    events: Sequence[EventRow]


def overview(tx: Transaction, facts: Facts, accepting: Sequence[Worker], *, heartbeat_s: float = 2.0) -> Overview:
    links, now_ms = facts.links, facts.now_ms
    held = tx.find(Replica, state=[str(state) for state in LIVE])
    jobs, counts = _jobs(tx), tx.count(Job, "state")
    workers, hidden_workers = _workers(tx, links, held, now_ms - int(SILENT_HEARTBEATS * heartbeat_s * 1000))
    return Overview(
        jobs=[job_row(tx, job, accepting) for job in jobs],
        counts=counts,
        hidden_jobs=sum(counts.values()) - len(jobs),
        workers=workers,
        hidden_workers=hidden_workers,
        attached=len(links),
        busy=len({one.worker_id for one in held} & {link.worker_id for link in links}),
        pace=pace(tx, now_ms),
        queue_age_ms=queue_age_ms(tx, now_ms),
        alerts=alerts(tx, facts),
        events=_events(tx),
    )


def pace(tx: Transaction, now_ms: int) -> Pace:
    """From the attempts that ended within a minute, the latest `MOST_LEASES` of them."""
    found = tx.pick(
        Lease,
        ("state", "shard_id", "ended_ms"),
        order="ended_ms",
        descending=True,
        limit=MOST_LEASES,
        state=ENDED_STATES,
    )
    recent = [(state, shard) for state, shard, ended_ms in found if ended_ms > now_ms - PACE_MS]
    seconds = (now_ms - found[-1][2]) / 1000 if len(recent) == MOST_LEASES else PACE_MS / 1000
    accepted = sorted({shard for state, shard in recent if state is ReplicaState.ACCEPTED})
    tokens = sum(count for (count,) in tx.pick(Shard, ("tokens",), id=accepted)) if accepted else 0
    return Pace(
        shards_per_s=len(accepted) / max(seconds, 1.0),
        tokens_per_s=tokens / max(seconds, 1.0),
        rejected=sum(1 for state, _ in recent if state is ReplicaState.REJECTED),
        expired=sum(1 for state, _ in recent if state is ReplicaState.EXPIRED),
    )


# ---- jobs -----------------------------------------------------------------------------------------------------------


def _jobs(tx: Transaction) -> list[Job]:
    latest = [tx.find(Job, state=state, order="created_ms", descending=True, limit=MOST_LIVE_JOBS) for state in ORDER]
    paused, others = latest[0], [job for jobs in latest[1:] for job in jobs]
    # old paused jobs pile up; they must not hide the ones that run
    found = paused[: max(MOST_LIVE_JOBS // 2, MOST_LIVE_JOBS - len(others))]
    found += others[: MOST_LIVE_JOBS - len(found)]
    final = [str(state) for state in FINAL_JOB]
    return found + tx.find(Job, state=final, order="ended_ms", descending=True, limit=MOST_ENDED_JOBS)


def job_row(tx: Transaction, job: Job, accepting: Sequence[Worker]) -> JobRow:
    stages = tx.find(Stage, job_id=job.id, order="position")
    rounds = tx.find(Round, job_id=job.id, order="number")
    stage = next((one for one in stages if one.state is StageState.RUNNING), stages[-1])
    mine = [one for one in rounds if one.stage == stage.name]
    ended = job.state in FINAL_JOB
    names = ("worker_id", "phase", "progress")
    living = [str(state) for state in LIVE]
    held = [] if ended else tx.pick(Replica, names, job_id=job.id, state=living, order="shard_id")
    why = views.job_why(tx, job, stages, accepting)
    return JobRow(
        id=job.id,
        name=job.name,
        state=job.state,
        where=_where(job, stages, stage, mine),
        percent=100 if job.state is JobState.SUCCEEDED else _percent(tx, stages, rounds, held),
        loss=_loss(stages, rounds),
        hands=[_hand(tx, *one) for one in held[:MOST_HANDS]],
        more_hands=max(len(held) - MOST_HANDS, 0),
        spent_msat=views.job_money(tx, job, rounds)["spent"],
        budget_msat=job.budget_msat,
        why=why.sentence,
        next_step=why.next_step,
        created_ms=job.created_ms,
        ended_ms=job.ended_ms,
        self_evaluated=job.self_evaluated,
    )


def _where(job: Job, stages: Sequence[Stage], stage: Stage, rounds: Sequence[Round]) -> str:
    """ "Stage 2 of 3 (tune), round 3 of 6: learn"."""
    if job.state is JobState.SUCCEEDED:
        learned = sum(each.planned_rounds for each in stages)
        return f"Done: {learned} {'round' if learned == 1 else 'rounds'} planned"
    several = f"Stage {stage.position + 1} of {len(stages)} ({stage.name}), " if len(stages) > 1 else ""
    if not rounds:
        return f"{several}waiting to start"
    current = rounds[-1]
    if 1 <= current.number <= stage.planned_rounds and current.kind not in ("setup", "publish"):
        return f"{several}round {current.number} of {stage.planned_rounds}: {current.phase}"
    return f"{several}{current.kind}: {current.phase}"


def _percent(
    tx: Transaction, stages: Sequence[Stage], rounds: Sequence[Round], held: Sequence[tuple[str, str, float]]
) -> int:
    """Finished rounds of the planned ones, plus the part of the current round that is done."""
    planned = sum(
        each.planned_rounds + phases.rounds_around(each) for each in stages if each.state is not StageState.SKIPPED
    )
    done: float = sum(1 for one in rounds if one.state in FINAL_ROUND)
    current = next((one for one in reversed(rounds) if one.state not in FINAL_ROUND), None)
    if current is None or current.kind == RoundKind.SETUP:
        return min(int(100 * done / max(planned, 1)), 99)
    stage = next(one for one in stages if one.name == current.stage)
    behind, work = phases.done_before(stage, current)
    if current.phase in phases.WORK:
        counts = tx.count(
            Shard, "state", job_id=current.job_id, stage=current.stage, round=current.number, phase=current.phase
        )
        parts = counts.get("done", 0) + sum(progress for _, phase, progress in held if phase == current.phase)
        done += WORK_SHARE * (behind + min(parts / max(sum(counts.values()), 1), 1.0)) / work
    elif work:
        done += WORK_SHARE * behind / work
    return min(int(100 * done / max(planned, 1)), 99)


def _loss(stages: Sequence[Stage], rounds: Sequence[Round]) -> Loss | None:
    """Of the last stage that has any: held-out loss, or training loss where nothing is held out."""
    for stage in reversed(stages):
        mine = [one for one in rounds if one.stage == stage.name]
        start = json.loads(stage.numbers_json).get("eval_loss_start")
        evaluated = ([] if start is None else [start]) + [one.eval_loss for one in mine if one.eval_loss is not None]
        trained = [one.train_loss for one in mine if one.train_loss is not None]
        for what, values in (("held-out loss", evaluated), ("training loss", trained)):
            if values:
                return Loss(what=what, first=values[0], last=values[-1], points=curve(values))
    return None


def curve(values: Sequence[float]) -> str:
    """Points of an SVG polyline through the values, thinned out; empty for fewer than two."""
    if len(values) < 2:
        return ""
    step = max((len(values) - 1) / (MOST_POINTS - 1), 1.0)
    thin = [values[round(number * step)] for number in range(int((len(values) - 1) / step) + 1)]
    low, high = min(thin), max(thin)
    spread = (high - low) or 1.0
    return " ".join(
        f"{2 + (CURVE_WIDTH - 4) * number / (len(thin) - 1):.1f},{2 + (CURVE_HEIGHT - 4) * (high - value) / spread:.1f}"
        for number, value in enumerate(thin)
    )


def _hand(tx: Transaction, worker_id: str, phase: str, progress: float) -> Hand:
    party = tx.get(Party, worker_id)
    name = party.name if party and party.name else worker_id
    return Hand(worker=name, phase=phase, percent=int(100 * progress))


# ---- workers --------------------------------------------------------------------------------------------------------


def _workers(
    tx: Transaction, links: Sequence[Presence], held: Sequence[Replica], silent_ms: int
) -> tuple[list[WorkerRow], int]:
    """Attached ones first, then those that left last; and how many more there are among the latest parties."""
    attached = {link.worker_id: link for link in sorted(links, key=lambda link: -link.since_ms)}
    parties = [tx.get(Party, name) for name in list(attached)[:MOST_WORKERS]]
    recent = tx.find(Party, order="last_seen_ms", descending=True, limit=MOST_PARTIES)
    away = [one for one in recent if Role.WORKER in one.roles.split(",") and one.id not in attached]
    everyone = sorted((one for one in parties if one is not None), key=lambda one: (one.name.casefold(), one.id)) + away
    hands = {one.worker_id: one for one in held}
    shown = everyone[:MOST_WORKERS]
    found = [_worker_row(tx, one, attached.get(one.id), hands.get(one.id), silent_ms) for one in shown]
    return found, len(attached) + len(away) - len(shown)


def _worker_row(
    tx: Transaction, party: Party, link: Presence | None, hand: Replica | None, silent_ms: int
) -> WorkerRow:
    counts = tx.count(Lease, "state", worker_id=party.id)
    account = tx.get(Account, worker_account(party.id))
    state = state_of(link, is_busy=hand is not None, silent_ms=silent_ms)
    return WorkerRow(
        id=party.id,
        name=party.name or party.id,
        state=state,
        doing=_doing(tx, state, hand),
        device=link.capability.device_name if link else "",
        accepted=counts.get("accepted", 0),
        rejected=counts.get("rejected", 0),
        expired=counts.get("expired", 0),
        # everything that was ever paid to it, paid out or not
        earned_msat=account.credits_posted if account else 0,
        reference=party.reference,
        gone_ms=party.last_seen_ms if link is None else link.last_seen_ms if state == "silent" else 0,
    )


def state_of(link: Presence | None, *, is_busy: bool, silent_ms: int) -> str:
    """What an attached or absent worker is doing, in one word; `silent_ms`: when one should have been heard last."""
    if link is None:
        return "offline"
    # a laptop that sleeps keeps its connection for a while
    if link.last_seen_ms < silent_ms:
        return "silent"
    if is_busy:
        return "busy"
    return str(link.restriction.standing) if link.restriction else "ready" if link.accepting else "paused"


def _doing(tx: Transaction, state: str, hand: Replica | None) -> str:
    if hand is None or state != "busy":
        return DOING.get(state, "not connected")
    job = tx.get(Job, hand.job_id)
    return f"{hand.phase} of {isolated(job.name) if job else hand.job_id}, {int(100 * hand.progress)} %"


# ---- events ---------------------------------------------------------------------------------------------------------


def _events(tx: Transaction) -> list[EventRow]:
    newest = tx.find(Event, order="sequence", descending=True, limit=MOST_EVENTS, detail=False)
    jobs = {name: tx.get(Job, name) for name in {one.job_id for one in newest}}
    return [
        EventRow(
            sequence=one.sequence,
            at_ms=one.at_ms,
            kind=one.kind,
            job_id=one.job_id,
            job=job.name if (job := jobs[one.job_id]) else one.job_id,
            sentence=sentence,
        )
        for one, sentence in zip(newest, in_words(tx, newest), strict=True)
    ]


def in_words(tx: Transaction, events: Sequence[Event]) -> list[str]:
    """Their sentences, with workers called by their names where they have one."""
    parties = {name for one in events for name in _PARTY_ID.findall(one.sentence)}
    names = dict(tx.pick(Party, ("id", "name"), id=sorted(parties)))

    def named(found: re.Match[str]) -> str:
        name = names.get(found[0])
        return f"“{isolated(name)}”" if name else found[0]

    return [_PARTY_ID.sub(named, one.sentence) for one in events]


# ---- words ----------------------------------------------------------------------------------------------------------


def isolated(name: str) -> str:
    """A stranger's name inside a sentence: one written from right to left must not turn its neighbours round."""
    return name if name.isascii() else f"\u2068{name}\u2069"


def age(milliseconds: int) -> str:
    """ "now", "12 s ago", "3 min ago", "2 h ago", "5 d ago"; `static/page.js` says the same."""
    seconds = max(milliseconds, 0) // 1000
    for limit, unit, name in ((60, 1, "s"), (3_600, 60, "min"), (86_400, 3_600, "h")):
        if seconds < limit:
            return "now" if seconds < 2 else f"{seconds // unit} {name} ago"
    return f"{seconds // 86_400} d ago"


def moment(at_ms: int) -> str:
    """ISO 8601 in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
