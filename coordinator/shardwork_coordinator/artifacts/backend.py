"""Backend: where whole artifacts are kept. A local folder of our own, or an object store by URL through obstore.

An artifact appears at once or not at all: its manifest is the last thing that becomes visible. Keys are
"packs/<artifact id>/<n>" and "packs/<artifact id>/manifest". Called by `store` only.
"""

from __future__ import annotations

import os
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

    def publish(self, artifact_id: ArtifactId, staged: Path) -> None:
        target = self._packs / artifact_id
        try:
            staged.rename(target)
        except OSError:
            # somebody else published the same content first; the same id means the same bytes
            if not self.has(artifact_id):
                raise
            delete_folder(staged)
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

    def publish(self, artifact_id: ArtifactId, staged: Path) -> None:
        if not self.has(artifact_id):
            packs = sorted((path for path in staged.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
            for path in [*packs, staged / MANIFEST_NAME]:
                obstore.put(self._store, _key(artifact_id, path.name), path)
        delete_folder(staged)


def _key(artifact_id: ArtifactId, name: str) -> str:
    return f"packs/{artifact_id}/{name}"
