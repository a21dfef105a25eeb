"""ObjectBackend: whole artifacts in S3, GCS, Azure or memory through obstore.

Puts are durable when they answer; the manifest is put last and deleted first. Nothing here can be renamed at once, so
a deletion announces itself with a mark beside the packs, looks again, and takes the mark away last: whoever keeps or
publishes the same content meanwhile sees the mark, or was seen. That needs a store that is consistent after a write,
as all of these are. Called by `store` only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import obstore
from obstore.store import ObjectStore

from shardwork.errors import Unreachable
from shardwork.ids import ArtifactId

from ..failpoints import AFTER, BEFORE, hit
from .reach import reaching
from .staging import MANIFEST_NAME, delete_folder

#: the mark of a deletion
DYING = "dying"
#: how long a publication waits for a deletion to end
WAIT_S = 30.0
LOOK_S = 0.1
#: whoever deletes needs seconds; a mark this old was left by a crash, and anybody ends its deletion
DEAD_S = 600.0


class ObjectBackend:
    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    @reaching
    def manifest(self, artifact_id: ArtifactId) -> bytes | None:
        try:
            return bytes(obstore.get(self.store, key(artifact_id, MANIFEST_NAME)).bytes())
        except FileNotFoundError:
            return None

    @reaching
    def note(self, name: str) -> bytes | None:
        try:
            return bytes(obstore.get(self.store, name).bytes())
        except FileNotFoundError:
            return None

    @reaching
    def put_note(self, name: str, data: bytes) -> None:
        obstore.put(self.store, name, data)

    @reaching
    def has(self, artifact_id: ArtifactId) -> bool:
        return self._age_s(artifact_id, MANIFEST_NAME) is not None

    @reaching
    def read(self, artifact_id: ArtifactId, pack: int, offset_bytes: int, size_bytes: int) -> bytes:
        try:
            found = obstore.get_range(self.store, key(artifact_id, str(pack)), start=offset_bytes, length=size_bytes)
        except FileNotFoundError:
            return b""
        return bytes(found)

    @reaching
    def keep(self, artifact_id: ArtifactId) -> bool:
        data = self.manifest(artifact_id)
        if data is None:
            return False
        # an object has no other time than that of its last put
        obstore.put(self.store, key(artifact_id, MANIFEST_NAME), data)
        # a deletion that looked before this put left its mark before it looked
        return self._age_s(artifact_id, DYING) is None

    @reaching
    def delete(self, artifact_id: ArtifactId, *, unused_s: float) -> bool:
        if self._is_young(artifact_id, unused_s):
            return False
        obstore.put(self.store, key(artifact_id, DYING), b"")
        hit("effect:mark_dying", AFTER)
        if self._is_young(artifact_id, unused_s):
            obstore.delete(self.store, key(artifact_id, DYING))
            return False
        self._remove(artifact_id)
        return True

    @reaching
    def clean(self) -> None:
        """Ends deletions that were cut short."""
        for artifact_id in self.ids():
            age_s = self._age_s(artifact_id, DYING)
            if age_s is not None and age_s > DEAD_S:
                self._remove(artifact_id)

    @reaching
    def ids(self) -> list[ArtifactId]:
        listed = obstore.list_with_delimiter(self.store, prefix="packs")  # pyright: ignore[reportUnknownMemberType]
        return sorted(ArtifactId(prefix.rstrip("/").rpartition("/")[2]) for prefix in listed["common_prefixes"])

    @reaching
    def publish(self, artifact_id: ArtifactId, staged: Path) -> None:
        self._wait_for_deletion(artifact_id)
        if not self.keep(artifact_id):
            packs = sorted((path for path in staged.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
            for path in [*packs, staged / MANIFEST_NAME]:
                obstore.put(self.store, key(artifact_id, path.name), path)
        delete_folder(staged)

    @reaching
    def adopt(self, artifact_id: ArtifactId, packs: list[str], manifest: bytes) -> None:
        """As `publish`, for packs that were checked under other keys of this store. They are gone afterwards."""
        self._wait_for_deletion(artifact_id)
        if not self.keep(artifact_id):
            for number, source in enumerate(packs):
                obstore.copy(self.store, source, key(artifact_id, str(number)))
            obstore.put(self.store, key(artifact_id, MANIFEST_NAME), manifest)
        if packs:
            obstore.delete(self.store, packs)

    def _wait_for_deletion(self, artifact_id: ArtifactId) -> None:
        """Returns when no deletion is under way. Raises Unreachable "artifact.being_deleted"."""
        end = time.monotonic() + WAIT_S
        while (age_s := self._age_s(artifact_id, DYING)) is not None:
            if age_s > DEAD_S:
                self._remove(artifact_id)
            elif time.monotonic() > end:
                raise Unreachable(
                    "artifact.being_deleted",
                    "An older copy of this content is just being deleted.",
                    next_step="Send it again in a minute.",
                    artifact=artifact_id,
                )
            else:
                time.sleep(LOOK_S)

    def _remove(self, artifact_id: ArtifactId) -> None:
        """The manifest first, so that nobody finds half of it; the mark last."""
        hit("effect:remove_objects", BEFORE)
        _delete(self.store, key(artifact_id, MANIFEST_NAME))
        hit("effect:remove_objects", AFTER)
        for batch in self._objects(artifact_id):
            obstore.delete(self.store, [path for path, _ in batch if not path.endswith(f"/{DYING}")])
        _delete(self.store, key(artifact_id, DYING))

    def _is_young(self, artifact_id: ArtifactId, unused_s: float) -> bool:
        """By its manifest; packs without one are an upload that goes on, or what a crash left of one."""
        age_s = self._age_s(artifact_id, MANIFEST_NAME)
        if age_s is None:
            others = (
                changed for batch in self._objects(artifact_id) for path, changed in batch if not path.endswith(DYING)
            )
            age_s = time.time() - max(others, default=0.0)
        return age_s < unused_s

    def _objects(self, artifact_id: ArtifactId) -> Iterator[list[tuple[str, float]]]:
        """(key, time of its last put), in batches."""
        listed = obstore.list(self.store, prefix=f"packs/{artifact_id}")  # pyright: ignore[reportUnknownMemberType]
        for batch in listed:
            yield [(found["path"], found["last_modified"].timestamp()) for found in batch]

    def _age_s(self, artifact_id: ArtifactId, name: str) -> float | None:
        """Seconds since the object was put; None when it is not there."""
        try:
            changed = obstore.head(self.store, key(artifact_id, name))["last_modified"]
        except FileNotFoundError:
            return None
        return time.time() - changed.timestamp()


def key(artifact_id: ArtifactId, name: str) -> str:
    return f"packs/{artifact_id}/{name}"


def _delete(store: ObjectStore, path: str) -> None:
    """Some stores refuse to delete what is not there."""
    try:
        obstore.delete(store, path)
    except FileNotFoundError:
        pass
