"""Roster: the workers as a list that can be searched, filtered and paged, from one read.

Owns what is listed and in which order. Every row of the page is read, of the others only what they are found by; so a
page costs the same whatever they did. Called by `dashboard.workers`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from shardwork.identity.role import Role

from ..links import Presence, machine_of
from ..machine.states import LIVE
from ..money.movements import worker_account
from ..queueing.history import history
from ..queueing.reliability import Reliability, attempts_of, reliability
from ..records import Account, Attachment, Job, Lease, Party, Replica, Standing
from ..store.base import Transaction
from .rows import DOING, isolated, state_of

PAGE = 50
#: who was seen last is searched first; nobody looks for the others by paging
MOST_PARTIES = 5_000
LONGEST_QUERY = 64
#: states that a worker is in by what it does, and those that somebody gave it
ACTIVITIES = ("ready", "busy", "paused", "silent", "offline")
MARKS = ("drained", "quarantined", "banned", "reference")
ENDINGS = ("accepted", "rejected", "expired")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants to see."""

    query: str = ""
    #: one of ACTIVITIES or MARKS; empty: all
    state: str = ""
    page: int = 1

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Wish:
        """From an address that anybody may have typed."""
        state, page = fields.get("state", ""), fields.get("page", "1")
        return cls(
            query=fields.get("q", "").strip()[:LONGEST_QUERY],
            state=state if state in (*ACTIVITIES, *MARKS) else "",
            page=max(int(page), 1) if page.isdecimal() and len(page) < 6 else 1,
        )

    def path(self, *, state: str | None = None, page: int = 1) -> str:
        wanted = {"q": self.query, "state": self.state if state is None else state, "page": str(page)}
        kept = {name: value for name, value in wanted.items() if value and (name, value) != ("page", "1")}
        return "/workers" + (f"?{urlencode(kept)}" if kept else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Presences:
    """Who is attached, which the store does not know."""

    now_ms: int
    #: one that is attached and was not heard since is silent
    silent_ms: int
    links: Mapping[str, Presence]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A worker in the list."""

    id: str
    name: str
    state: str
    doing: str
    standing: Standing
    device: str
    execution_class: str
    units_per_s: int
    accepted: int
    rejected: int
    expired: int
    reliability: Reliability
    earned_msat: int
    reference: bool
    #: when it was heard last; 0: just now
    seen_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    label: str
    count: int
    path: str
    is_here: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    wish: Wish
    lines: Sequence[Line]
    tabs: Sequence[Tab]
    #: that match; `first` and `last` of them are on this page, counted from 1
    total: int
    first: int
    last: int
    newer: str
    older: str
    #: workers that ever enrolled and were looked at
    enrolled: int
    #: only the latest were looked at
    is_cut: bool


@dataclass(frozen=True, slots=True)
class _Found:
    """What a worker is found by."""

    id: str
    name: str
    standing: Standing
    reference: bool
    seen_ms: int
    state: str

    @property
    def words(self) -> set[str]:
        marks = {str(self.standing)} | ({"reference"} if self.reference else set[str]())
        return {self.state} | marks


def roster(tx: Transaction, wish: Wish, presences: Presences) -> Roster:
    held = {one.worker_id: one for one in tx.find(Replica, state=[str(state) for state in LIVE])}
    everybody, is_cut = _everybody(tx, held, presences)
    matching = [one for one in everybody if _matches(one, wish.query)]
    counts = Counter(word for one in matching for word in one.words)
    chosen = [one for one in matching if not wish.state or wish.state in one.words]
    chosen.sort(key=lambda one: _order(one, presences))
    pages = max(-(-len(chosen) // PAGE), 1)
    page = min(wish.page, pages)
    shown = chosen[(page - 1) * PAGE : page * PAGE]
    return Roster(
        wish=wish,
        lines=_lines(tx, shown, held, presences),
        tabs=_tabs(wish, len(matching), counts),
        total=len(chosen),
        first=(page - 1) * PAGE + 1 if shown else 0,
        last=(page - 1) * PAGE + len(shown),
        newer=wish.path(page=page - 1) if page > 1 else "",
        older=wish.path(page=page + 1) if page < pages else "",
        enrolled=len(everybody),
        is_cut=is_cut,
    )


def _everybody(tx: Transaction, held: Mapping[str, Replica], presences: Presences) -> tuple[list[_Found], bool]:
    names = ("id", "name", "standing", "reference", "last_seen_ms", "roles")
    rows = tx.pick(Party, names, order="last_seen_ms", descending=True, limit=MOST_PARTIES)
    known = {row[0] for row in rows}
    # a worker that stays attached for weeks was written down when it came
    absent = sorted(presences.links.keys() - known)
    rows += tx.pick(Party, names, id=absent) if absent and len(known) == MOST_PARTIES else []
    found: list[_Found] = []
    for name, title, standing, reference, seen_ms, roles in rows:
        if Role.WORKER in roles.split(","):
            link = presences.links.get(name)
            state = state_of(link, is_busy=name in held, silent_ms=presences.silent_ms)
            found.append(_Found(name, title, standing, reference, link.last_seen_ms if link else seen_ms, state))
    return found, len(known) == MOST_PARTIES


def _matches(one: _Found, query: str) -> bool:
    wanted = query.casefold()
    return one.name.casefold().startswith(wanted) or one.id.startswith(wanted)


def _order(one: _Found, presences: Presences) -> tuple[bool, str, int, str]:
    """Who is attached by name, then those who left last."""
    is_away = one.id not in presences.links
    return is_away, "" if is_away else (one.name or one.id).casefold(), -one.seen_ms if is_away else 0, one.id


def _tabs(wish: Wish, total: int, counts: Mapping[str, int]) -> list[Tab]:
    tabs = [Tab(label="all", count=total, path=wish.path(state=""), is_here=not wish.state)]
    for state in (*ACTIVITIES, *MARKS):
        # what nobody is in is left out, unless one is there to see that it is empty
        if counts.get(state) or wish.state == state:
            path, count = wish.path(state=state), counts.get(state, 0)
            tabs.append(Tab(label=state, count=count, path=path, is_here=wish.state == state))
    return tabs


def _lines(tx: Transaction, shown: Sequence[_Found], held: Mapping[str, Replica], presences: Presences) -> list[Line]:
    ids = sorted(one.id for one in shown)
    if not ids:
        return []
    ended = {state: tx.count(Lease, "worker_id", worker_id=ids, state=state) for state in ENDINGS}
    accounts = {one.id: one for one in tx.find(Account, id=[worker_account(name) for name in ids])}
    said = {one.worker_id: one for one in tx.find(Attachment, worker_id=ids)}
    jobs = {name for one in shown if (hand := held.get(one.id)) for name in (hand.job_id,)}
    names = dict(tx.pick(Job, ("id", "name"), id=sorted(jobs))) if jobs else {}
    lines: list[Line] = []
    for one in shown:
        attempts = attempts_of(tx, one.id)
        machine = machine_of(presences.links.get(one.id), said.get(one.id))
        account = accounts.get(worker_account(one.id))
        link = presences.links.get(one.id)
        lines.append(
            Line(
                id=one.id,
                name=one.name or one.id,
                state=one.state,
                doing=doing(one.state, held.get(one.id), names),
                standing=one.standing,
                device=machine.device_name or machine.device,
                execution_class=machine.execution_class,
                units_per_s=history(attempts[:20]).units_per_s,
                accepted=ended["accepted"].get(one.id, 0),
                rejected=ended["rejected"].get(one.id, 0),
                expired=ended["expired"].get(one.id, 0),
                reliability=reliability(attempts),
                earned_msat=account.credits_posted if account else 0,
                reference=one.reference,
                seen_ms=0 if link is not None and one.state != "silent" else one.seen_ms,
            )
        )
    return lines


def doing(state: str, hand: Replica | None, jobs: Mapping[str, str]) -> str:
    """ "learn of news, 42 %"."""
    if hand is None or state != "busy":
        return DOING.get(state, "not connected")
    return f"{hand.phase} of {isolated(jobs.get(hand.job_id, hand.job_id))}, {int(100 * hand.progress)} %"
