"""Snapshot: what a backup's folder holds, and the file that says so.

    backup.json            what this is, from when, by which version, with digests
    coordinator.db         the database, consistent in itself
    keys/                  the coordinator's keys, mode 0600
    artifacts/             whole artifacts, and the store's own notes
    simulated-payments.jsonl    the pretend payment node's journal, where there is one

`backup.json` is written last: a folder without it is no backup. Used by `backup` and `restore`.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from shardwork.errors import InvalidInput

FORMAT = 1
SAYS = "backup.json"
DATABASE, KEYS, ARTIFACTS, JOURNAL = "coordinator.db", "keys", "artifacts", "simulated-payments.jsonl"
PACKS = "packs"
CHUNK_BYTES = 1 << 20


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
    keys: list[str]
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
            found = cls.model_validate_json((folder / SAYS).read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValidationError) as error:
            raise InvalidInput(
                "backup.not_one",
                "This is not a whole backup.",
                next_step="Name the folder that `shardwork-coordinator backup` made; one that was cut short has no "
                f"{SAYS}.",
                folder=folder,
            ) from error
        if found.format != FORMAT:
            raise InvalidInput(
                "backup.newer",
                "A newer version of Shardwork made this backup.",
                next_step="Restore it with the version that made it.",
                made_by=found.software_version,
            )
        return found


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def revision_of(database: Path) -> str:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return str(connection.execute("select version_num from alembic_version").fetchone()[0])
    finally:
        connection.close()


def copy_private(source: Path, target: Path) -> None:
    """A file that only its owner may read, whatever the umask."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.touch(mode=0o600)
    shutil.copyfile(source, target)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
