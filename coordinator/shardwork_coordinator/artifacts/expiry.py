"""Expiry: deletes uploads that nobody finished, and stored content that no job, lease or owner keeps any more.

Mark: `retention.needs` of every job, in small reads. Sweep: a row that no need covers goes back to "staging" in a
transaction that looks again at what began meanwhile, so that no job can be submitted with it. Collect: bytes that no
row holds are deleted; the list of them is the store's own, so what a crash left between the two goes with the next
sweep. Several coordinators may sweep at the same time: each step is idempotent, and `backend` deletes nothing that
somebody looked at lately. Runs in `app`, and by hand from `cli`.
"""

from __future__ import annotations

import asyncio
import functools
import json
from dataclasses import dataclass, field, replace

from shardwork.clock import Clock

from ..failpoints import AFTER, BEFORE, hit
from ..machine.attempts import lease_id
from ..records import Artifact, ArtifactState, Job, Replica
from ..store.base import Store, Transaction
from ..telemetry.logs import Log
from .figures import StorageFigures
from .quota import LEASED, ArtifactLimits
from .retention import HOUSE, HUB, Ages, Need, is_over, named, needs, offered, outputs_only
from .store import ArtifactStore

SWEEP_S = 600.0
#: rows looked at in one transaction
PAGE = 200
#: jobs that were submitted so long before a mark began are looked at again: another coordinator's clock may be behind
SLACK_MS = 600_000

_log = Log("artifacts.expiry")


@dataclass(slots=True, kw_only=True)
class Swept:
    """What one sweep did, or would do."""

    uploads: int = 0
    rows: int = 0
    #: ids whose bytes were deleted
    artifacts: list[str] = field(default_factory=list[str])
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Mark:
    """(artifact, owner) pairs that are kept, as of a moment."""

    at_ms: int
    kept: frozenset[tuple[str, str]]


class Expiry:
    """One per coordinator process."""

    def __init__(self, store: Store, contents: ArtifactStore, clock: Clock, limits: ArtifactLimits) -> None:
        self._store, self._contents, self._clock, self._limits = store, contents, clock, limits
        #: what the next sweep goes by; one sweep goes by one state of the rules
        self.limits = limits
        self.figures = StorageFigures()

    async def run(self) -> None:
        """Sweeps now and then until cancelled."""
        while True:
            try:
                await self.sweep()
            except Exception:
                self.figures.failures += 1
                _log.error("artifacts.sweep_failed")
            await asyncio.sleep(SWEEP_S)

    async def sweep(self, *, dry_run: bool = False) -> Swept:
        """One look at every job, every row and every stored artifact. `dry_run` only says what would go."""
        self._limits = self.limits
        swept, counted, mark = Swept(), StorageFigures(), await self._mark()
        dropped: dict[tuple[str, str], int] = {}
        last = ""
        while rows := await self._store.read(functools.partial(_rows_after, last=last)):
            last = rows[-1].id
            loose = [row for row in rows if self._is_loose(row, mark)]
            if loose and not dry_run:
                loose = await self._drop(loose, mark)
            dropped |= {(row.id, row.owner): row.bytes for row in loose}
            counted.count(row for row in rows if (row.id, row.owner) not in dropped)
        swept.rows = len(dropped)
        sizes = {artifact_id: size for (artifact_id, _), size in dropped.items()}
        if dry_run:
            swept.artifacts = await self._orphans(set(dropped))
        else:
            swept.uploads = await asyncio.to_thread(self._contents.discard_stale, self._limits.keep_s)
            swept.artifacts = await asyncio.to_thread(self._delete, await self._orphans(set()))
            self.figures.swept(counted, swept.artifacts, sizes, self._clock.now_ms())
        swept.bytes = sum(sizes.get(one, 0) for one in swept.artifacts)
        return swept

    async def _mark(self) -> _Mark:
        now_ms, ages = self._clock.now_ms(), self._limits.ages
        kept = await self._store.read(lambda tx: offered(tx) | named(tx, now_ms, ages))
        last = ""
        while ids := await self._store.read(functools.partial(_jobs_after, last=last)):
            last = ids[-1]
            for one in ids:
                found = await self._store.read(functools.partial(_needs_of, job_id=one, ages=ages, now_ms=now_ms))
                kept |= {(need.artifact_id, need.owner) for need in found if need.until_ms > now_ms}
        return _Mark(now_ms, frozenset(kept))

    def _is_loose(self, row: Artifact, mark: _Mark) -> bool:
        """Stored content that no need covers and that is old enough."""
        if (row.id, row.owner) in mark.kept:
            return False
        is_mirrored = row.owner == HOUSE and row.purpose.startswith(HUB)
        keep_ms = self._limits.ages.keep_ms if is_mirrored else int(self._limits.keep_s * 1000)
        return row.created_ms <= mark.at_ms - keep_ms

    async def _drop(self, loose: list[Artifact], mark: _Mark) -> list[Artifact]:
        """Takes the rows back from their owners; answers those that nothing came to need meanwhile."""

        def work(tx: Transaction) -> list[Artifact]:
            recent = tx.find(Job, order="created_ms", after=mark.at_ms - SLACK_MS)
            begun = [job for job in recent if not is_over(job, self._limits.ages, mark.at_ms)]
            held = {one for job in begun for one in json.loads(job.inputs_json).values()}
            uploading = {owner: _uploading(tx, owner) for owner in {row.owner for row in loose}}
            # who used a row meanwhile renewed its time
            same = [row for row in loose if tx.get(Artifact, row.id, row.owner) == row]
            gone = [row for row in same if row.id not in held and row.purpose not in uploading[row.owner]]
            for row in gone:
                tx.put(replace(row, state=ArtifactState.STAGING))
            return gone

        return await self._store.write(work)

    async def _orphans(self, dropped: set[tuple[str, str]]) -> list[str]:
        """Stored bytes that no row holds, whoever left them; as if the rows in `dropped` were gone."""
        stored: list[str] = [*await asyncio.to_thread(self._contents.ids)]
        before_ms = self._clock.now_ms() - int(self._limits.keep_s * 1000)
        found: list[str] = []
        for start in range(0, len(stored), PAGE):
            page = stored[start : start + PAGE]
            look = functools.partial(_unheld, ids=page, dropped=dropped, before_ms=before_ms)
            found += await self._store.read(look)
        return found

    def _delete(self, orphans: list[str]) -> list[str]:
        deleted: list[str] = []
        for one in orphans:
            hit("effect:collect", BEFORE)
            if self._contents.delete(one):
                deleted.append(one)
            hit("effect:collect", AFTER)
        return deleted


def _jobs_after(tx: Transaction, *, last: str) -> list[str]:
    return [job.id for job in tx.find(Job, order="id", after=last, limit=PAGE)]


def _needs_of(tx: Transaction, *, job_id: str, ages: Ages, now_ms: int) -> list[Need]:
    job = tx.get(Job, job_id)
    if job is None:
        return []
    return list(outputs_only(tx, job, ages) if is_over(job, ages, now_ms) else needs(tx, job, ages))


def _rows_after(tx: Transaction, *, last: str) -> list[Artifact]:
    """All rows of the next ids whose content is stored."""
    page = tx.find(Artifact, state=ArtifactState.STORED, order="id", after=last, limit=PAGE)
    # the last id of a page may have more rows on the next
    ids = dict.fromkeys(row.id for row in page)
    return [row for one in ids for row in tx.find(Artifact, id=one, state=ArtifactState.STORED)]


def _uploading(tx: Transaction, owner: str) -> set[str]:
    """Leases of the party, for whose result an output may be there already while the next is still on its way."""
    return {lease_id(replica) for replica in tx.find(Replica, worker_id=owner, state=LEASED)}


def _unheld(tx: Transaction, *, ids: list[str], dropped: set[tuple[str, str]], before_ms: int) -> list[str]:
    return [one for one in ids if not any(_holds(row, dropped, before_ms) for row in tx.find(Artifact, id=one))]


def _holds(row: Artifact, dropped: set[tuple[str, str]], before_ms: int) -> bool:
    """Whether the row keeps bytes: it is stored, or somebody began to send it lately and may be done any moment."""
    if row.state is ArtifactState.STAGING:
        return row.created_ms > before_ms
    return (row.id, row.owner) not in dropped
