"""Backup: a consistent copy of everything a coordinator needs to go on, also while it serves.

Order is what makes it consistent. Artifacts are linked before the database is copied, so that a sweep can't take one
away in between, and again afterwards, for those that came meanwhile: a row is written after its artifact is whole, so
every row of the copy finds its bytes. The payment node's journal comes last: it may know of a payment that the copy
does not, never the other way round, and nothing is paid twice. Called by `commands`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from pathlib import Path

from shardwork.errors import Conflict, InvalidInput, NotFound
from shardwork.protocol import software_version

from ..app import database_file
from ..artifacts.disk import sync_folder
from ..artifacts.opening import key_file, location
from ..cluster.identity import KEY_FILES
from ..keyring import keys_folder
from ..settings import Settings
from .examined import examine
from .filling import Filling
from .snapshot import (
    ARTIFACTS,
    DATABASE,
    FORMAT,
    JOURNAL,
    KEYS,
    MOST_NAMED,
    PACKS,
    SAYS,
    Snapshot,
    copy_private,
    digest,
    reading,
    revision_of,
    size_of,
    sync_tree,
)

DRAFT = f"{SAYS}.draft"
#: the server's own tools make a consistent dump; this is what is said of them
SERVER = (
    "Run pg_dump --format=custom --file shardwork.dump URL, then copy the folder of keys (cp -a) and the artifact "
    "store. docs/operating/backup.md has the whole recipe."
)


async def back_up(settings: Settings, target: Path, *, allows_loss: bool = False) -> Snapshot:
    """Fills the folder `target`, which must be new, empty, or of a backup that was cut short. `allows_loss`: artifacts
    that rows need and that are not there are left out. Raises InvalidInput "backup.server", Conflict
    "backup.not_empty", "backup.damaged", "backup.unbalanced", "backup.artifacts", NotFound "store.not_here"."""
    source = database_file(settings)
    if source is None:
        raise InvalidInput("backup.server", "A database server is backed up with its own tools.", next_step=SERVER)
    if not source.exists():
        raise NotFound(
            "store.not_here",
            "There is no coordinator's database here.",
            next_step="Give --data-dir the folder that `serve` uses.",
            path=source,
        )
    filling = Filling(
        folder=target,
        draft=DRAFT,
        whole=SAYS,
        # SQLite's own beside it: a copy that is killed leaves one
        parts=frozenset({ARTIFACTS, DATABASE, f"{DATABASE}-journal", KEYS, JOURNAL}),
        lock=DRAFT,
        refusal=Conflict(
            "backup.not_empty",
            "A backup goes into a new or empty folder; nothing is overwritten.",
            next_step="Name another folder, with the date in it for example.",
            folder=target,
        ),
    )
    with filling.begun():
        snapshot = await _fill(settings, source, target, allows_loss=allows_loss)
        (target / DRAFT).write_text(snapshot.model_dump_json(indent=2) + "\n", encoding="utf-8")
        sync_tree(target)
        (target / DRAFT).rename(target / SAYS)
        sync_folder(target)
    return snapshot


async def _fill(settings: Settings, source: Path, target: Path, *, allows_loss: bool) -> Snapshot:
    """Copies everything, and looks at the copy."""
    artifacts = Path(location(settings)) if "://" not in location(settings) else None
    if artifacts is not None:
        _link_artifacts(artifacts, target / ARTIFACTS)
    copy_database(source, target / DATABASE)
    if artifacts is not None:
        _link_artifacts(artifacts, target / ARTIFACTS)
    keys = _copy_keys(settings, target / KEYS)
    journal = settings.data_dir / JOURNAL
    if journal.exists():
        copy_private(journal, target / JOURNAL)
    # first: looking at it brings a scratch copy to this version's schema, and would make one of an empty file
    revision = revision_of(target / DATABASE)
    found = await examine(target / DATABASE)
    packs = {path.name for path in (target / ARTIFACTS / PACKS).iterdir()} if artifacts else set[str]()
    if artifacts and not allows_loss and (missing := found.contents - packs):
        raise _missing(artifacts, missing)
    return Snapshot(
        format=FORMAT,
        software_version=software_version(),
        revision=revision,
        created_ms=time.time_ns() // 1_000_000,
        database_sha256=digest(target / DATABASE),
        database_bytes=(target / DATABASE).stat().st_size,
        keys=keys,
        artifacts=len(packs),
        artifact_bytes=size_of(target / ARTIFACTS) if artifacts else 0,
        artifacts_elsewhere="" if artifacts else location(settings),
        transfers=found.report.transfers,
        accounts=found.report.accounts,
    )


def _missing(artifacts: Path, missing: frozenset[str]) -> Conflict:
    return Conflict(
        "backup.artifacts",
        f"{len(missing)} artifacts that jobs or their owners need are not in the artifact folder.",
        next_step="Look whether the folder is mounted and whole. With --allow-loss everything else is backed up.",
        folder=artifacts,
        missing=", ".join(sorted(missing)[:MOST_NAMED]),
    )


def copy_database(source: Path, target: Path) -> None:
    """SQLite's own backup: one moment of the database, whatever is written meanwhile. Raises Conflict
    "backup.damaged"."""
    target.touch(mode=0o600)
    with reading(source) as reader, contextlib.closing(sqlite3.connect(target)) as writer:
        reader.backup(writer)
        # one file without a log beside it
        writer.execute("PRAGMA journal_mode=DELETE")


def _link_artifacts(source: Path, target: Path) -> None:
    """Every whole artifact, by a hard link where both lie on one file system. What is in transit is left out: its
    sender goes on or begins again."""
    target.mkdir(mode=0o700, exist_ok=True)
    (target / PACKS).mkdir(mode=0o700, exist_ok=True)
    if not (source / PACKS).is_dir():
        # nothing was ever stored; whether rows say otherwise is looked at afterwards
        return
    for note in source.iterdir():
        if note.is_file() and not note.name.endswith(".tmp"):
            copy_private(note, target / note.name)
    for folder in (source / PACKS).iterdir():
        into = target / PACKS / folder.name
        if folder.name.startswith(".") or into.exists():
            continue
        try:
            _link_folder(folder, into)
        except FileNotFoundError:
            # a sweep took it: no row needs it any more
            shutil.rmtree(into, ignore_errors=True)


def _link_folder(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    for file in source.iterdir():
        try:
            os.link(file, target / file.name)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copy2(file, target / file.name)


def _copy_keys(settings: Settings, target: Path) -> list[str]:
    """The folder of keys, and the storage key wherever it lies; their names. Raises NotFound "backup.keys": without
    them nobody would know the restored coordinator again."""
    folder = keys_folder(settings)
    if missing := [name for name in KEY_FILES if not (folder / name).is_file()]:
        raise NotFound(
            "backup.keys",
            "The folder of keys does not hold all of a coordinator's keys.",
            next_step="Where they lie elsewhere, name the folder as for `serve`: SHARDWORK_KEYS_DIR.",
            folder=folder,
            missing=", ".join(missing),
        )
    files = {path.name: path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")}
    if key_file(settings).exists():
        files["storage.key"] = key_file(settings)
    for name, path in files.items():
        copy_private(path, target / name)
    return sorted(files)
