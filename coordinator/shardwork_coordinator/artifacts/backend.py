"""Backend: where whole artifacts are kept, as a Protocol, and the local folder; `objects` is the other one.

An artifact appears at once or not at all: its manifest is the last thing that becomes visible. Keys are
"packs/<artifact id>/<n>" and "packs/<artifact id>/manifest". Called by `store` only.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Protocol

from shardwork.ids import ArtifactId

from ..failpoints import AFTER, hit
from .disk import make_folder, sync_folder, write_file
from .staging import MANIFEST_NAME, delete_folder

#: a deletion takes seconds; one that was begun so long ago died
DEAD_S = 600.0


class Backend(Protocol):
    def manifest(self, artifact_id: ArtifactId) -> bytes | None:
        """The stored manifest's bytes; None when the artifact is not (wholly) here."""
        ...

    def has(self, artifact_id: ArtifactId) -> bool: ...

    def keep(self, artifact_id: ArtifactId) -> bool:
        """As `has`, and `delete` leaves it alone for a while."""
        ...

    def delete(self, artifact_id: ArtifactId, *, unused_s: float) -> bool:
        """Deletes it unless it was published or kept within so many seconds. True when it is not here afterwards."""
        ...

    def clean(self) -> None:
        """Ends or takes back deletions that were cut short long ago; leaves alone those that others are about."""
        ...

    def ids(self) -> list[ArtifactId]:
        """Everything that takes room here, also what is no longer, or not yet, whole."""
        ...

    def read(self, artifact_id: ArtifactId, pack: int, offset_bytes: int, size_bytes: int) -> bytes:
        """A range of a pack; shorter or empty when the pack is damaged or lost, the caller checks digests."""
        ...

    def note(self, name: str) -> bytes | None:
        """A small file of the store itself, beside the artifacts; None when it was never put."""
        ...

    def put_note(self, name: str, data: bytes) -> None: ...

    def publish(self, artifact_id: ArtifactId, staged: Path) -> None:
        """Takes over a staged folder whose files are all synced. The folder is gone afterwards. Idempotent."""
        ...


class FolderBackend:
    """A local folder. Publishing is one rename of a synced folder and a sync of its new parent."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._packs = root / "packs"
        make_folder(self._packs)

    def manifest(self, artifact_id: ArtifactId) -> bytes | None:
        try:
            return (self._packs / artifact_id / MANIFEST_NAME).read_bytes()
        except FileNotFoundError:
            return None

    def note(self, name: str) -> bytes | None:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    def put_note(self, name: str, data: bytes) -> None:
        write_file(self._root / name, data)

    def has(self, artifact_id: ArtifactId) -> bool:
        return (self._packs / artifact_id / MANIFEST_NAME).exists()

    def read(self, artifact_id: ArtifactId, pack: int, offset_bytes: int, size_bytes: int) -> bytes:
        path = self._packs / artifact_id / str(pack)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            return os.pread(descriptor, size_bytes, offset_bytes)
        finally:
            os.close(descriptor)

    def keep(self, artifact_id: ArtifactId) -> bool:
        try:
            os.utime(self._packs / artifact_id / MANIFEST_NAME)
        except FileNotFoundError:
            return False
        return True

    def delete(self, artifact_id: ArtifactId, *, unused_s: float) -> bool:
        folder = self._packs / artifact_id
        try:
            if _is_young(folder, unused_s):
                return False
            gone = self._set_aside(artifact_id, unused_s)
        except FileNotFoundError:
            return True
        hit("effect:set_aside", AFTER)
        # asked once more where nobody finds it: whoever kept it in between got the answer that it is here
        with suppress(OSError):
            if _is_young(gone, unused_s):
                gone.rename(folder)
                return False
        delete_folder(gone)
        sync_folder(self._packs)
        return True

    def _set_aside(self, artifact_id: ArtifactId, unused_s: float) -> Path:
        """Renames it to where nobody finds it. The new name says when, and how old it had to be: `clean` must judge it
        after a crash. Rounded up: what was last kept in this very second was still kept before."""
        gone = self._packs / f".{artifact_id}.{ceil(time.time())}.{int(unused_s)}.{secrets.token_hex(4)}"
        return (self._packs / artifact_id).rename(gone)

    def clean(self) -> None:
        for gone in list(self._packs.glob(".*")):
            _, artifact_id, at, unused_s, *_ = (*gone.name.split("."), "0", "0")
            set_aside_s = float(at) if at.isdigit() else 0.0
            if time.time() - set_aside_s < DEAD_S:
                continue
            with suppress(OSError):
                # somebody kept it just before it was set aside, and the deletion did not live to see that
                kept_s = (gone / MANIFEST_NAME).stat().st_mtime
                if unused_s.isdigit() and kept_s > set_aside_s - float(unused_s):
                    gone.rename(self._packs / artifact_id)
                    continue
            delete_folder(gone)

    def ids(self) -> list[ArtifactId]:
        return sorted(ArtifactId(path.name) for path in self._packs.iterdir() if not path.name.startswith("."))

    def publish(self, artifact_id: ArtifactId, staged: Path) -> None:
        target = self._packs / artifact_id
        try:
            os.utime(staged / MANIFEST_NAME)
            staged.rename(target)
        except OSError:
            # somebody else published the same content first; the same id means the same bytes
            if self.keep(artifact_id):
                delete_folder(staged)
            else:
                # what lies there has no manifest: somebody meddled, or the disk was repaired
                with suppress(FileNotFoundError):
                    self._set_aside(artifact_id, 0.0)
                staged.rename(target)
        sync_folder(self._packs)
        sync_folder(staged.parent)


def _is_young(folder: Path, unused_s: float) -> bool:
    manifest = folder / MANIFEST_NAME
    return time.time() - (manifest if manifest.exists() else folder).stat().st_mtime < unused_s
