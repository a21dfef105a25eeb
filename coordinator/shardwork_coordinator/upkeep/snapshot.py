"""Snapshot: what a backup's folder holds, and the file that says so.

    backup.json            what this is, from when, by which version, with digests
    coordinator.db         the database, consistent in itself
    keys/                  the coordinator's keys, mode 0600
    artifacts/             whole artifacts, and the store's own notes
    simulated-payments.jsonl    the pretend payment node's journal, where there is one

`backup.json` is written last: a folder without it is no backup. Used by `backup` and `restore`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Generator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from shardwork.errors import Conflict, InvalidInput

FORMAT = 1
SAYS = "backup.json"
DATABASE, KEYS, ARTIFACTS, JOURNAL = "coordinator.db", "keys", "artifacts", "simulated-payments.jsonl"
PACKS = "packs"
#: findings that an error names
MOST_NAMED = 5


#: names in the folder of keys and no paths: what is copied goes nowhere else
KeyName = Annotated[str, StringConstraints(pattern=r"\A[^./][^/]*\z")]


class _Form(BaseModel):
    """What every format says."""

    format: int
    software_version: str = ""


class Snapshot(BaseModel):
    """What `backup.json` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    software_version: str
    #: the database's revision
    revision: str
    created_ms: int
    database_sha256: str
    database_bytes: int
    keys: list[KeyName]
    #: whole artifacts in the folder; 0 where they lie in an object store
    artifacts: int
    artifact_bytes: int
    #: empty, or the object store that holds the artifacts and is not copied
    artifacts_elsewhere: str
    transfers: int
    accounts: int

    @classmethod
    def read(cls, folder: Path) -> Snapshot:
        """Raises InvalidInput "backup.not_one" or "backup.newer"."""
        try:
            text = (folder / SAYS).read_bytes()
            # first: another format has other fields
            form = _Form.model_validate_json(text)
            if form.format == FORMAT:
                return cls.model_validate_json(text)
        except (FileNotFoundError, NotADirectoryError, ValidationError) as error:
            raise InvalidInput(
                "backup.not_one",
                "This is not a whole backup.",
                next_step="Name the folder that `shardwork-coordinator backup` made; one that was cut short has no "
                f"{SAYS}.",
                folder=folder,
            ) from error
        raise InvalidInput(
            "backup.newer",
            "A newer version of Shardwork made this backup.",
            next_step="Restore it with the version that made it.",
            made_by=form.software_version,
        )


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def reading(database: Path) -> Generator[sqlite3.Connection, None, None]:
    """A connection that writes nothing. Raises Conflict "backup.damaged" for a file that is no whole database, and
    InvalidInput "store.unusable" when the disk or a permission is what is wrong."""
    try:
        with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            yield connection
    except sqlite3.OperationalError as error:
        raise InvalidInput(
            "store.unusable",
            "The database can't be used.",
            next_step="Nothing was changed. Check the disk and the folder's permissions.",
            reason=str(error),
        ) from error
    except sqlite3.DatabaseError as error:
        raise damaged(str(error)) from error


def damaged(found: str) -> Conflict:
    return Conflict(
        "backup.damaged",
        "The database is damaged.",
        next_step="Keep it as it is, and restore the last backup that is whole.",
        found=found,
    )


def revision_of(database: Path) -> str:
    """Raises Conflict "backup.damaged" for a database that no coordinator made."""
    with reading(database) as connection:
        is_ours = "select 1 from sqlite_master where name = 'alembic_version'"
        if connection.execute(is_ours).fetchone() is None:
            raise damaged("it is empty, or of another program")
        return str(connection.execute("select version_num from alembic_version").fetchone()[0])


def copy_private(source: Path, target: Path) -> None:
    """A file that only its owner may read, whatever the umask."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.touch(mode=0o600)
    shutil.copyfile(source, target)


def sync_tree(folder: Path) -> None:
    """Everything in the folder survives a power cut."""
    for path in [folder, *folder.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
