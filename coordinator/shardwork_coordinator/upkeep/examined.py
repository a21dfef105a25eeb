"""Examined: whether a database that nobody writes is whole and its books add up, and which contents it needs.

Looks at a scratch copy: opening brings a database to this version's schema, and a backup must stay as it was made, for
the version that made it. Used by `backup` and `restore`.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from shardwork.errors import Conflict

from ..money.ledger import LedgerReport, check
from ..records import Artifact, ArtifactState
from ..store import SqlStore
from ..store.base import Transaction
from .filling import SCRATCH
from .snapshot import damaged, reading


@dataclass(frozen=True, slots=True)
class Examined:
    report: LedgerReport
    #: contents that rows say are stored
    contents: frozenset[str]


async def examine(database: Path) -> Examined:
    """Raises Conflict "backup.damaged" or "backup.unbalanced"."""
    _check_whole(database)
    with tempfile.TemporaryDirectory(dir=database.parent, prefix=SCRATCH) as folder:
        scratch = Path(folder) / database.name
        shutil.copyfile(database, scratch)
        store = SqlStore(f"sqlite:///{scratch.absolute()}")
        store.start()
        try:
            found = await store.read(_look)
        finally:
            store.close()
    if not found.report.balanced:
        raise Conflict(
            "backup.unbalanced",
            "The books in this database do not add up.",
            next_step="Keep it as it is, and look at `shardwork-coordinator ledger check`.",
            violation=found.report.violations[0].render(),
        )
    return found


def _look(tx: Transaction) -> Examined:
    stored = tx.find(Artifact, state=ArtifactState.STORED)
    return Examined(check(tx), frozenset(row.id for row in stored))


def _check_whole(database: Path) -> None:
    with reading(database) as connection:
        ((found,),) = connection.execute("PRAGMA integrity_check(1)").fetchall()
    if found != "ok":
        raise damaged(found)
