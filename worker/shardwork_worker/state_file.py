"""The journal: the lease in hand, on disk, so that a killed agent goes on where it was instead of computing again.

Owns one small JSON file, replaced atomically and fsynced before each step that must not be repeated or forgotten:
accepted, computed, handed in. The lease writes it; the app reads it once at start. A disk that refuses it is tried
again by the agent.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardwork.partial import RESERVE_BYTES

#: as large as a journal may get
TRIAL_BYTES = 64 * 1024
#: free beyond what a download leaves alone, or the next one would be refused at once
ROOM_BYTES = 2 * RESERVE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """What the child handed back. The folders stay until the lease ends."""

    #: output name -> folder
    outputs: Mapping[str, str]
    #: output name -> artifact id of the folder; committed to, so a folder that changed since is not handed in
    artifact_ids: Mapping[str, str]
    metrics: Mapping[str, float]
    compute_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    #: serialised Envelope of the offer, exactly as received
    offer: bytes
    computed: Computed | None = None
    #: exact payload of the submission once it may have been sent: a retry must repeat it byte for byte
    submission: bytes = b""
    bytes_down: int = field(default=0)


class Journal:
    """The file. At most one lease is in it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def folder(self) -> Path:
        return self._path.parent

    def load(self) -> LeaseRecord | None:
        """The lease that was in hand; None when there was none. An unreadable file is set aside, not deleted."""
        try:
            return _parse(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            self._path.replace(self._path.with_suffix(".unreadable"))
            return None

    def save(self, record: LeaseRecord) -> None:
        """Durable on return."""
        replace_durably(self._path, _encode(record))

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)


def replace_durably(path: Path, data: bytes) -> None:
    """Writes a 0600 file so that after a crash either the old or the new bytes are there, never a mixture."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def takes_files(folders: Iterable[Path]) -> bool:
    """Whether each folder has room and takes a file durably. Blocking; leaves nothing behind."""
    return all(_takes_a_file(folder) for folder in folders)


def _takes_a_file(folder: Path) -> bool:
    trial = folder / ".trial"
    try:
        if shutil.disk_usage(folder).free < ROOM_BYTES:
            return False
        with trial.open("wb") as file:
            file.write(bytes(TRIAL_BYTES))
            file.flush()
            os.fsync(file.fileno())
        trial.unlink()
    except OSError:
        return False
    return True


def _encode(record: LeaseRecord) -> bytes:
    computed = record.computed
    raw: dict[str, Any] = {
        "format": "shardwork.journal.v1",
        "offer": base64.b64encode(record.offer).decode(),
        "submission": base64.b64encode(record.submission).decode(),
        "bytes_down": record.bytes_down,
        "computed": None
        if computed is None
        else {
            "outputs": dict(computed.outputs),
            "artifact_ids": dict(computed.artifact_ids),
            "metrics": dict(computed.metrics),
            "compute_ms": computed.compute_ms,
        },
    }
    return json.dumps(raw, sort_keys=True).encode()


def _parse(data: bytes) -> LeaseRecord:
    raw = json.loads(data)
    if raw["format"] != "shardwork.journal.v1":
        raise ValueError("another format")
    computed = raw["computed"]
    return LeaseRecord(
        offer=base64.b64decode(raw["offer"], validate=True),
        submission=base64.b64decode(raw["submission"], validate=True),
        bytes_down=int(raw["bytes_down"]),
        computed=None if computed is None else Computed(**computed),
    )
