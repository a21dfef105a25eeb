"""Restore: a backup back into an empty folder, checked before it may be served.

The database gets its name last: a restore that was cut short, or that found something wrong, leaves nothing that
`serve` would start. Copies, never links: the backup stays what it is. Called by `commands`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shardwork.errors import Conflict, ShardworkError

from ..artifacts import ArtifactStore
from ..artifacts.opening import sealer_of
from .examined import examine
from .snapshot import ARTIFACTS, DATABASE, JOURNAL, KEYS, PACKS, Snapshot, copy_private, digest

DRAFT = f"{DATABASE}.restoring"
#: findings that are named
MOST_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was restored and checked."""

    snapshot: Snapshot
    artifacts_checked: int
    #: rows of stored content whose bytes are not in the backup, because they lie in an object store
    artifacts_elsewhere: int


async def restore(source: Path, target: Path, *, reads_all: bool = True) -> Restored:
    """Makes the data folder `target` from the backup. `reads_all`: every leaf of every artifact is checked, not only
    that it is there. Raises InvalidInput "backup.…", Conflict "restore.not_empty", "restore.changed",
    "restore.artifacts"."""
    snapshot = Snapshot.read(source)
    if digest(source / DATABASE) != snapshot.database_sha256:
        raise Conflict(
            "restore.changed",
            "The database in this backup is not the one that was backed up.",
            next_step="Take another copy of the backup, or an older one.",
            folder=source,
        )
    _check_target(target)
    for name in snapshot.keys:
        copy_private(source / KEYS / name, target / KEYS / name)
    if (source / JOURNAL).exists():
        copy_private(source / JOURNAL, target / JOURNAL)
    if (source / ARTIFACTS).exists():
        shutil.copytree(source / ARTIFACTS, target / ARTIFACTS)
    copy_private(source / DATABASE, target / DRAFT)
    needed = (await examine(target / DRAFT)).contents
    elsewhere = bool(snapshot.artifacts_elsewhere)
    checked = 0 if elsewhere else _check_artifacts(target, needed, reads_all=reads_all)
    (target / DRAFT).rename(target / DATABASE)
    return Restored(snapshot=snapshot, artifacts_checked=checked, artifacts_elsewhere=len(needed) if elsewhere else 0)


def _check_target(target: Path) -> None:
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise Conflict(
            "restore.not_empty",
            "A backup is restored into a new or empty folder; nothing is overwritten.",
            next_step="Move the old data folder away, and keep it until you are sure.",
            folder=target,
        )


def _check_artifacts(target: Path, needed: frozenset[str], *, reads_all: bool) -> int:
    """How many contents were checked. Raises Conflict "restore.artifacts" naming those that are missing or damaged."""
    key = target / KEYS / "storage.key"
    contents = ArtifactStore.open(target / ARTIFACTS, sealer=sealer_of(key, seals=False))
    try:
        present = sorted(path.name for path in (target / ARTIFACTS / PACKS).iterdir())
        missing = sorted(needed.difference(present))
        damaged = [name for name in present if not _is_whole(contents, name, reads_all=reads_all)]
    finally:
        contents.close()
    if missing or damaged:
        raise Conflict(
            "restore.artifacts",
            f"{len(missing)} artifacts are missing and {len(damaged)} are damaged in this backup.",
            next_step="Take another copy of the backup, or an older one. The folder that was begun may be deleted.",
            missing=", ".join(missing[:MOST_NAMED]),
            damaged=", ".join(damaged[:MOST_NAMED]),
        )
    return len(present)


def _is_whole(contents: ArtifactStore, name: str, *, reads_all: bool) -> bool:
    try:
        leaves: Iterator[bytes] = contents.read_leaves(name) if reads_all else iter(())
        contents.manifest(name)
        for _ in leaves:
            pass
    except ShardworkError:
        return False
    return True
