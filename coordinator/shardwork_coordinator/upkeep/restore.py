"""Restore: a backup back into an empty folder, checked before it may be served.

The database gets its name last: a restore that was cut short, or that found something wrong, leaves nothing that
`serve` would start; nor can anybody serve the folder meanwhile. Copies, never links: the backup stays what it is.
Called by `commands`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shardwork.errors import Conflict, ShardworkError

from ..artifacts import ArtifactStore
from ..artifacts.disk import sync_folder
from ..artifacts.opening import sealer_of
from .examined import examine
from .filling import Filling
from .snapshot import ARTIFACTS, DATABASE, JOURNAL, KEYS, MOST_NAMED, PACKS, Snapshot, copy_private, digest, sync_tree

DRAFT = f"{DATABASE}.restoring"
#: what `serve` locks: nobody serves a folder that is being restored, and nothing is restored under whoever serves
SERVED = "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was restored and checked."""

    snapshot: Snapshot
    artifacts_checked: int
    #: rows of stored content whose bytes are not in the backup, because they lie in an object store
    artifacts_elsewhere: int
    #: contents that rows need and that the backup lacks or has damaged, where that was allowed
    artifacts_lost: tuple[str, ...]


async def restore(source: Path, target: Path, *, reads_all: bool = True, allows_loss: bool = False) -> Restored:
    """Makes the data folder `target` from the backup. `reads_all`: every leaf of every artifact is checked, not only
    that it is there. `allows_loss`: artifacts that are missing or damaged are left out. Raises InvalidInput "backup.…",
    Conflict "restore.not_empty", "restore.changed", "restore.artifacts"."""
    snapshot = Snapshot.read(source)
    _check_source(source, snapshot)
    filling = Filling(
        folder=target,
        draft=DRAFT,
        whole=DATABASE,
        parts=frozenset({ARTIFACTS, KEYS, JOURNAL}),
        lock=SERVED,
        refusal=Conflict(
            "restore.not_empty",
            "A backup is restored into a new or empty folder that nobody uses; nothing is overwritten.",
            next_step="Move the old data folder away, and keep it until you are sure.",
            folder=target,
        ),
    )
    with filling.begun():
        _copy(source, target, snapshot)
        needed = (await examine(target / DRAFT)).contents
        elsewhere = bool(snapshot.artifacts_elsewhere)
        lost = () if elsewhere else _leave_out_damaged(target, needed, reads_all=reads_all)
        if lost and not allows_loss:
            raise _incomplete(lost)
        done = Restored(
            snapshot=snapshot,
            artifacts_checked=len(list((target / ARTIFACTS / PACKS).iterdir())) if not elsewhere else 0,
            artifacts_elsewhere=len(needed) if elsewhere else 0,
            artifacts_lost=lost,
        )
        sync_tree(target)
        (target / DRAFT).rename(target / DATABASE)
        sync_folder(target)
    return done


def _check_source(source: Path, snapshot: Snapshot) -> None:
    """Raises Conflict "restore.changed"."""
    gone = [name for name in (DATABASE, *(f"{KEYS}/{name}" for name in snapshot.keys)) if not (source / name).is_file()]
    if gone or digest(source / DATABASE) != snapshot.database_sha256:
        raise Conflict(
            "restore.changed",
            "This backup does not hold the database and the keys that were backed up.",
            next_step="Take another copy of the backup, or an older one.",
            folder=source,
            missing=", ".join(gone),
        )


def _copy(source: Path, target: Path, snapshot: Snapshot) -> None:
    """Artifacts before keys: where both are and the database is not, `serve` begins nothing anew. However early this is
    killed, no fresh coordinator starts under the old one's name."""
    (target / ARTIFACTS).mkdir(mode=0o700)
    if (source / ARTIFACTS).exists():
        shutil.copytree(source / ARTIFACTS, target / ARTIFACTS, dirs_exist_ok=True)
    for name in snapshot.keys:
        copy_private(source / KEYS / name, target / KEYS / name)
    if (source / JOURNAL).exists():
        copy_private(source / JOURNAL, target / JOURNAL)
    copy_private(source / DATABASE, target / DRAFT)


def _leave_out_damaged(target: Path, needed: frozenset[str], *, reads_all: bool) -> tuple[str, ...]:
    """The contents that rows need and that are not there whole. What is damaged is taken away, whoever needs it: the
    same content may be sent again, and would not be taken beside it."""
    key = target / KEYS / "storage.key"
    contents = ArtifactStore.open(target / ARTIFACTS, sealer=sealer_of(key, seals=False))
    packs = target / ARTIFACTS / PACKS
    try:
        present = {path.name for path in packs.iterdir()}
        damaged = {name for name in present if not _is_whole(contents, name, reads_all=reads_all)}
    finally:
        contents.close()
    for name in damaged:
        shutil.rmtree(packs / name)
    return tuple(sorted(needed - (present - damaged)))


def _incomplete(lost: tuple[str, ...]) -> Conflict:
    return Conflict(
        "restore.artifacts",
        f"{len(lost)} artifacts are missing or damaged in this backup.",
        next_step="Take another copy of the backup, or an older one. With --allow-loss everything else comes back: "
        "books, keys and jobs, of which those fail that need what is lost.",
        lost=", ".join(lost[:MOST_NAMED]),
    )


def _is_whole(contents: ArtifactStore, name: str, *, reads_all: bool) -> bool:
    try:
        leaves: Iterator[bytes] = contents.read_leaves(name) if reads_all else iter(())
        contents.manifest(name)
        for _ in leaves:
            pass
    except ShardworkError:
        return False
    return True
