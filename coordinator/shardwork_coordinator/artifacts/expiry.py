"""Expiry: deletes uploads that nobody finished, and stored content that no job and no result needs.

What counts as needed is `quota.claims`; content of the executor's is always. A row goes back to "staging" first, in the
transaction in which nobody claims it, so that no job can be submitted with it; then its bytes are deleted, unless
another party stored the same content. Runs in `app`.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from collections.abc import Iterable
from dataclasses import replace

from shardwork.clock import Clock

from ..machine.verdicts import lease_id
from ..records import Artifact, ArtifactState, Replica
from ..store.base import Store, Transaction
from .quota import LEASED, ArtifactLimits, claims
from .store import ArtifactStore

SWEEP_S = 600.0
#: rows looked at in one transaction
PAGE = 200
#: whose content is never loose: the executor's, which leases and finished jobs grant on
HOUSE = "house"

_log = logging.getLogger(__name__)


class Expiry:
    """One per coordinator process."""

    def __init__(self, store: Store, contents: ArtifactStore, clock: Clock, limits: ArtifactLimits) -> None:
        self._store, self._contents, self._clock, self._limits = store, contents, clock, limits

    async def run(self) -> None:
        """Sweeps now and then until cancelled."""
        while True:
            try:
                await self.sweep()
            except Exception:
                _log.exception("a sweep of uploads failed")
            await asyncio.sleep(SWEEP_S)

    async def sweep(self) -> None:
        """One look at every upload and every artifact."""
        discarded = await asyncio.to_thread(self._contents.discard_stale, self._limits.keep_s)
        deleted, ids = 0, [""]
        while ids := await self._store.read(functools.partial(_ids_after, last=ids[-1])):
            deleted += await self._expire(ids)
        if discarded or deleted:
            _log.info("deleted %d unfinished uploads and %d artifacts that nothing needs", discarded, deleted)

    async def _expire(self, ids: list[str]) -> int:
        before_ms = self._clock.now_ms() - int(self._limits.keep_s * 1000)
        if await self._store.read(lambda tx: _loose(tx, ids, before_ms)):
            await self._store.write(lambda tx: _drop(tx, ids, before_ms))
        orphans = await self._store.read(lambda tx: [one for one in ids if _is_orphan(tx, one, before_ms)])
        return await asyncio.to_thread(self._delete, orphans)

    def _delete(self, orphans: Iterable[str]) -> int:
        there = [one for one in orphans if self._contents.has(one)]
        return sum(1 for one in there if self._contents.delete(one))


def _ids_after(tx: Transaction, *, last: str) -> list[str]:
    """The next artifacts by id. Two owners' rows of one content may fall on two pages; the second finds nothing new."""
    rows = tx.find(Artifact, order="id", after=last, limit=PAGE)
    return list(dict.fromkeys(row.id for row in rows))


def _loose(tx: Transaction, ids: list[str], before_ms: int) -> list[Artifact]:
    """Rows of stored content that nothing needs and that are old enough."""
    rows = itertools.chain.from_iterable(tx.find(Artifact, id=one, state=ArtifactState.STORED) for one in ids)
    old = [row for row in rows if row.owner != HOUSE and row.created_ms <= before_ms]
    needed = {owner: claims(tx, owner) | _uploading(tx, owner) for owner in {row.owner for row in old}}
    return [row for row in old if not needed[row.owner] & {row.id, row.purpose}]


def _uploading(tx: Transaction, owner: str) -> set[str]:
    """Leases of the party, for whose result an output may be there already while the next is still on its way."""
    return {lease_id(replica) for replica in tx.find(Replica, worker_id=owner, state=LEASED)}


def _drop(tx: Transaction, ids: list[str], before_ms: int) -> None:
    for row in _loose(tx, ids, before_ms):
        tx.put(replace(row, state=ArtifactState.STAGING))


def _is_orphan(tx: Transaction, artifact_id: str, before_ms: int) -> bool:
    rows = tx.find(Artifact, id=artifact_id)
    return all(row.state is ArtifactState.STAGING and row.created_ms <= before_ms for row in rows)
