"""Staging: one upload that is not whole yet, in a local folder of its own, durable leaf by leaf.

A leaf counts once it matched its digest and was fsynced. Packs are fsynced when the next one begins, so after a crash
only the last pack can be torn: it is checked leaf by leaf on re-open and cut behind its last good leaf. One per
upload; `store` keeps the open ones and serialises calls to each.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from shardwork.artifact import Manifest, open_leaf_file
from shardwork.errors import Corrupt, InvalidInput
from shardwork.ids import ArtifactId, sha256_hex

from .disk import make_folder, refusing_full_disk, sync_folder, write_file
from .packs import Packs
from .sealing import OVERHEAD_BYTES, PLAIN, Seal, Sealer

MANIFEST_NAME = "manifest"


class Staging:
    """An open partial upload. `written` leaves lie in files, `durable` of them survive a power cut."""

    def __init__(self, folder: Path, manifest: Manifest, seal: Seal | None = None) -> None:
        self.folder = folder
        self.manifest = manifest
        self.written = 0
        self.durable = 0
        #: the folder was handed over; nothing may be written any more
        self.published = False
        self._seal = seal
        self._packs = Packs(manifest, OVERHEAD_BYTES if seal else 0)
        self._file: FileIO | None = None

    @classmethod
    def create(cls, folder: Path, manifest: Manifest, sealer: Sealer = PLAIN) -> Staging:
        """A new, empty upload; the manifest is durable before any leaf."""
        delete_folder(folder)
        make_folder(folder)
        written = sealer.seal_manifest(manifest.id, manifest.to_bytes())
        write_file(folder / MANIFEST_NAME, written)
        return cls(folder, manifest, sealer.open_manifest(manifest.id, written)[1])

    @classmethod
    def reopen(cls, folder: Path, artifact_id: ArtifactId, sealer: Sealer = PLAIN) -> Staging | None:
        """The upload as a crash or a restart left it, cut behind its last good leaf; None when there is none."""
        try:
            written = (folder / MANIFEST_NAME).read_bytes()
        except FileNotFoundError:
            return None
        try:
            # it goes on as it began, whether or not new content is encrypted now
            data, seal = sealer.open_manifest(artifact_id, written)
        except Corrupt:
            return None
        if sha256_hex(data) != artifact_id:
            return None
        staging = cls(folder, Manifest.parse(data), seal)
        staging._recover()
        return staging

    @property
    def whole(self) -> bool:
        return self.durable == self.manifest.leaf_count

    def append(self, data: bytes | bytearray | memoryview) -> int:
        """Checks and writes whole leaves behind the last one; answers the number written, durable only after `sync`.
        Raises Corrupt "artifact.bad_leaf" (good leaves before it stay), InvalidInput "artifact.torn_leaf"."""
        view = memoryview(data)
        while view:
            leaf = self.manifest.leaf(self.written)
            if len(view) < leaf.size_bytes:
                raise InvalidInput(
                    "artifact.torn_leaf", "The data ends inside a leaf.", file=leaf.path, leaf=leaf.index
                )
            piece = view[: leaf.size_bytes]
            leaf.check(piece)
            self._write(piece)
            self.written += 1
            view = view[leaf.size_bytes :]
        return self.written

    def sync(self) -> int:
        """Makes all written leaves durable, closes the file and answers their number."""
        self._close_pack()
        if self.durable < self.written:
            with self._forgetting_unsynced():
                sync_folder(self.folder)
            self.durable = self.written
        return self.durable

    def close(self) -> None:
        """Lets go of the file without syncing it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, piece: memoryview) -> None:
        place = self._packs.place(self.written)
        if self._seal is not None:
            piece = memoryview(self._seal.seal(self.written, piece))
        if place.offset_bytes == 0:
            self._close_pack()
        path = self.folder / str(place.pack)
        with refusing_full_disk(path):
            if self._file is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._file = FileIO(os.open(path, flags, 0o600), "w")
            # by offset, so that a leaf whose write failed half way is written again in its place
            self._file.seek(place.offset_bytes)
            self._file.truncate()
            while piece:
                piece = piece[self._file.write(piece) or 0 :]

    def _close_pack(self) -> None:
        if self._file is None:
            return
        with self._file as file, refusing_full_disk(self.folder), self._forgetting_unsynced():
            self._file = None
            os.fsync(file.fileno())

    @contextmanager
    def _forgetting_unsynced(self) -> Generator[None, None, None]:
        """After a sync that failed the system may have dropped what was written, and the next sync says nothing of it:
        only what was synced before counts, the rest is sent again."""
        try:
            yield
        except OSError:
            self.written = self.durable
            pack = self._packs.place(self.durable).pack
            self._cut(pack, self.durable - self._packs.leaves(pack).start)
            raise

    def _recover(self) -> None:
        for pack in range(self._packs.count):
            good = self._good_leaves(pack)
            self.written += good
            if good < len(self._packs.leaves(pack)):
                self._cut(pack, good)
                break
        self._sync_recovered()

    def _good_leaves(self, pack: int) -> int:
        """Leaves of the pack that are whole; trusts a pack that a later one proves synced."""
        path = self.folder / str(pack)
        leaves = self._packs.leaves(pack)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return 0
        if size == self._packs.size_bytes(pack) and (self.folder / str(pack + 1)).exists():
            return len(leaves)
        good = 0
        with open_leaf_file(path) as file, suppress(Corrupt):
            for number in leaves:
                leaf = self.manifest.leaf(number)
                data = file.read(self._packs.place(number).size_bytes)
                leaf.check(data if self._seal is None else self._seal.open(number, data))
                good += 1
        return good

    def _cut(self, pack: int, good: int) -> None:
        """Drops everything behind the pack's first `good` leaves."""
        path = self.folder / str(pack)
        if good:
            os.truncate(path, self._packs.place(self._packs.leaves(pack)[good]).offset_bytes)
        else:
            path.unlink(missing_ok=True)
        for later in range(pack + 1, self._packs.count):
            (self.folder / str(later)).unlink(missing_ok=True)

    def _sync_recovered(self) -> None:
        """A killed process may have left good leaves that no disk holds yet; they count only once synced."""
        last = self._packs.place(self.written - 1).pack if self.written else -1
        if last >= 0:
            with open_leaf_file(self.folder / str(last)) as file:
                os.fsync(file.fileno())
        sync_folder(self.folder)
        self.durable = self.written


def delete_folder(folder: Path) -> None:
    """Deletes a flat folder; the manifest first, so that a half-deleted one never looks like an upload."""
    with suppress(FileNotFoundError):
        (folder / MANIFEST_NAME).unlink(missing_ok=True)
        for path in list(folder.iterdir()):
            path.unlink(missing_ok=True)
        folder.rmdir()
