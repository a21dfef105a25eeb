"""The line: jobs that have work waiting, in the fair order, read once for a round of granting and charged as it grants.

Owns the rows of `Share`; the order itself is `fairness`. Nothing is kept between rounds but what never changes of a
job, so several coordinators share one order, and a restart forgets nothing. Used by `granting`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from shardwork.recipes.base import PEOPLE_PHASES

from ..machine.states import LIVE
from ..records import Job, JobState, Replica, ReplicaState, Share
from ..store.base import Transaction
from .fairness import HEAVIEST, WEIGHTS, Place, first, served


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """What never changes of a job, and is asked of it at every grant."""

    owner: str
    created_ms: int
    weight: int
    device: str

    @classmethod
    def of(cls, job: Job) -> JobFacts:
        schedule = json.loads(job.spec_json).get("schedule", {})
        return cls(
            owner=job.owner,
            created_ms=job.created_ms,
            weight=WEIGHTS[schedule.get("priority", "normal")],
            device=schedule.get("device", "any"),
        )


class KnownJobs:
    """Facts of jobs with work, kept in memory."""

    def __init__(self) -> None:
        self._facts: dict[str, JobFacts] = {}

    def of(self, tx: Transaction, job_id: str) -> JobFacts | None:
        """None for a job that is not stored."""
        if job_id not in self._facts:
            job = tx.get(Job, job_id)
            if job is None:
                return None
            self._facts[job_id] = JobFacts.of(job)
        return self._facts[job_id]

    def forget_all_but(self, jobs: Mapping[str, int]) -> None:
        """Keeps memory bounded; called with the jobs that have work."""
        if len(self._facts) > 2 * len(jobs) + 1_000:
            self._facts = {name: facts for name, facts in self._facts.items() if name in jobs}


class Line:
    """Running jobs with something ready, for one transaction. `most_running`: shards of one requester that may run at
    the same time; 0: any number."""

    def __init__(self, tx: Transaction, known: KnownJobs, *, most_running: int = 0) -> None:
        self._tx = tx
        waiting = tx.count(Replica, "job_id", state=ReplicaState.READY)
        running = tx.count(Job, "id", state=JobState.RUNNING) if waiting else {}
        #: replicas that wait, by job
        self.waiting = {job: count for job, count in waiting.items() if job in running}
        self._running = running
        self._facts: dict[str, JobFacts] = {}
        #: requester -> its jobs that wait and were not dropped; their places are read when its turn comes
        self._jobs: dict[str, dict[str, Place | None]] = defaultdict(dict)
        self._shares: dict[str, dict[str, Share]] = {}
        known.forget_all_but(self.waiting)
        for job in self.waiting:
            if (facts := known.of(tx, job)) is not None:
                self._facts[job] = facts
                self._jobs[facts.owner][job] = None
        self._everybody = tx.get(Share, "", "") or Share(owner="", job_id="")
        self._owners = {owner: tx.get(Share, owner, "") or Share(owner=owner, job_id="") for owner in self._jobs}
        self._left = self._quota(known, most_running) if most_running else None

    def head(self) -> str | None:
        """The job whose turn it is."""
        owners = (Place(name=owner, virtual=self._owners[owner].virtual) for owner, jobs in self._jobs.items() if jobs)
        owner = first(owners, self._everybody.clock)
        if owner is None:
            return None
        found = first(self._places(owner.name), self._owners[owner.name].clock)
        return found.name if found else None

    def facts(self, job: str) -> JobFacts:
        """Of a job that waits."""
        return self._facts[job]

    def drop(self, job: str) -> None:
        """Nobody idle can do anything for it in this round."""
        self._jobs[self._facts[job].owner].pop(job, None)

    def charge(self, job: str, taken: int) -> None:
        """The job was given a shard of this cost, which its requester is charged too."""
        name = self._facts[job].owner
        owner, shares = self._owners[name], self._shares_of(name)
        mine = shares.get(job) or Share(owner=name, job_id=job)
        place = self._place(job)
        virtual, clock = served(place, owner.clock, taken)
        shares[job] = replace(mine, virtual=virtual)
        virtual_of_owner, everybody = served(
            Place(name=name, virtual=owner.virtual, weight=HEAVIEST), self._everybody.clock, taken
        )
        self._owners[name] = replace(owner, virtual=virtual_of_owner, clock=clock)
        self._everybody = replace(self._everybody, clock=everybody)
        if job in self._jobs[name]:
            self._jobs[name][job] = self._place(job)
        for row in (shares[job], self._owners[name], self._everybody):
            self._tx.put(row)
        self.waiting[job] -= 1
        if self._left is not None:
            self._left[name] -= 1
            if self._left[name] <= 0:
                self._jobs[name].clear()

    def _places(self, owner: str) -> list[Place]:
        jobs = self._jobs[owner]
        found: list[Place] = []
        for job, place in jobs.items():
            known = place or self._place(job)
            found.append(known)
        if None in jobs.values():
            self._jobs[owner] = {place.name: place for place in found}
        return found

    def _place(self, job: str) -> Place:
        facts = self._facts[job]
        share = self._shares_of(facts.owner).get(job)
        return Place(name=job, virtual=share.virtual if share else 0, weight=facts.weight, since_ms=facts.created_ms)

    def _quota(self, known: KnownJobs, most: int) -> dict[str, int]:
        """How many more shards of each requester may run; those with none left are not in line."""
        running: Counter[str] = Counter()
        for job, count in running_on_workers(self._tx).items():
            if (facts := known.of(self._tx, job)) is not None:
                running[facts.owner] += count
        left = {owner: most - running[owner] for owner in self._jobs}
        for owner, more in left.items():
            if more <= 0:
                self._jobs[owner].clear()
        return left

    def _shares_of(self, owner: str) -> dict[str, Share]:
        """Shares of the requester's jobs that have not ended; those that have are closed on the way."""
        if owner not in self._shares:
            rows = [one for one in self._tx.find(Share, owner=owner, open=True) if one.job_id]
            away = [one for one in rows if one.job_id not in self._running]
            paused = self._tx.count(Job, "id", state=JobState.PAUSED) if away else {}
            for one in away:
                if one.job_id not in paused:
                    self._tx.put(replace(one, open=False))
            self._shares[owner] = {one.job_id: one for one in rows}
        return self._shares[owner]


def running_on_workers(tx: Transaction) -> Counter[str]:
    """Shards of each job that workers hold. What people are asked takes no worker's time."""
    live = [str(state) for state in LIVE]
    running = Counter(tx.count(Replica, "job_id", state=live))
    running.subtract(tx.count(Replica, "job_id", state=live, phase=sorted(PEOPLE_PHASES)))
    return running
