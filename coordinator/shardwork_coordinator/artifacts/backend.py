"""Backend: where whole artifacts are kept. A local folder of our own, or an object store by URL through obstore.

An artifact appears at once or not at all: its manifest is the last thing that becomes visible. Keys are
"packs/<artifact id>/<n>" and "packs/<artifact id>/manifest". Called by `store` only.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import obstore
from obstore.store import ObjectStore

from shardwork.ids import ArtifactId

from .disk import make_folder, sync_folder
from .staging import MANIFEST_NAME, delete_folder


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
        """Removes what a deletion left that was cut short. Not while another one runs."""
        ...

    def read(self, artifact_id: ArtifactId, pack: int, offset_bytes: int, size_bytes: int) -> bytes:
        """A range of a pack; shorter or empty when the pack is damaged or lost, the caller checks digests."""
        ...

    def publish(self, artifact_id: ArtifactId, staged: Path) -> None:
        """Takes over a staged folder whose files are all synced. The folder is gone afterwards. Idempotent."""
        ...


class FolderBackend:
    """A local folder. Publishing is one rename of a synced folder and a sync of its new parent."""

    def __init__(self, root: Path) -> None:
        self._packs = root / "packs"
        make_folder(self._packs)

    def manifest(self, artifact_id: ArtifactId) -> bytes | None:
        try:
            return (self._packs / artifact_id / MANIFEST_NAME).read_bytes()
        except FileNotFoundError:
            return None

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
        gone = self._packs / f".{artifact_id}.{secrets.token_hex(8)}"
        try:
            if _is_young(folder, unused_s):
                return False
            folder.rename(gone)
        except FileNotFoundError:
            return True
        # asked once more where nobody finds it: whoever kept it in between got the answer that it is here
        if _is_young(gone, unused_s):
            with suppress(OSError):
                gone.rename(folder)
                return False
        delete_folder(gone)
        sync_folder(self._packs)
        return True

    def clean(self) -> None:
        for gone in list(self._packs.glob(".*")):
            delete_folder(gone)

    def publish(self, artifact_id: ArtifactId, staged: Path) -> None:
        target = self._packs / artifact_id
        try:
            os.utime(staged / MANIFEST_NAME)
            staged.rename(target)
        except OSError:
            # somebody else published the same content first; the same id means the same bytes
            if self.keep(artifact_id):
                delete_folder(staged)
            elif target.exists():
                raise
            else:
                staged.rename(target)
        sync_folder(self._packs)
        sync_folder(staged.parent)


class ObjectBackend:
    """S3, GCS, Azure or memory. Puts are durable when they answer; the manifest is put last."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def manifest(self, artifact_id: ArtifactId) -> bytes | None:
        try:
            return bytes(obstore.get(self._store, _key(artifact_id, MANIFEST_NAME)).bytes())
        except FileNotFoundError:
            return None

    def has(self, artifact_id: ArtifactId) -> bool:
        try:
            obstore.head(self._store, _key(artifact_id, MANIFEST_NAME))
        except FileNotFoundError:
            return False
        return True

    def read(self, artifact_id: ArtifactId, pack: int, offset_bytes: int, size_bytes: int) -> bytes:
        try:
            return bytes(
                obstore.get_range(self._store, _key(artifact_id, str(pack)), start=offset_bytes, length=size_bytes)
            )
        except FileNotFoundError:
            return b""

    def keep(self, artifact_id: ArtifactId) -> bool:
        data = self.manifest(artifact_id)
        if data is None:
            return False
        # an object has no other time than that of its last put
        obstore.put(self._store, _key(artifact_id, MANIFEST_NAME), data)
        return True

    def delete(self, artifact_id: ArtifactId, *, unused_s: float) -> bool:
        name = _key(artifact_id, MANIFEST_NAME)
        try:
            changed = obstore.head(self._store, name)["last_modified"]
        except FileNotFoundError:
            return True
        if time.time() - changed.timestamp() < unused_s:
            return False
        obstore.delete(self._store, name)
        listed = obstore.list(self._store, prefix=f"packs/{artifact_id}")  # pyright: ignore[reportUnknownMemberType]
        for batch in listed:
            obstore.delete(self._store, [found["path"] for found in batch])
        return True

    def clean(self) -> None:
        """A deletion that was cut short leaves packs without a manifest; the next one of that id takes them along."""

    def publish(self, artifact_id: ArtifactId, staged: Path) -> None:
        if not self.keep(artifact_id):
            packs = sorted((path for path in staged.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
            for path in [*packs, staged / MANIFEST_NAME]:
                obstore.put(self._store, _key(artifact_id, path.name), path)
        delete_folder(staged)


def _key(artifact_id: ArtifactId, name: str) -> str:
    return f"packs/{artifact_id}/{name}"


def _is_young(folder: Path, unused_s: float) -> bool:
    return time.time() - (folder / MANIFEST_NAME).stat().st_mtime < unused_s
