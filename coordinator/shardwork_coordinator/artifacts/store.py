"""ArtifactStore: content in and out by artifact id, for the coordinator's RPC layer and its executor processes.

Every upload is staged per owner until it is whole, also when the content exists already: an owner proves that it has
the bytes by sending them, and sees nothing of anybody else's upload. Whole artifacts are shared. Calls block and may
come from any thread; calls for one upload are serialised here.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from obstore.store import from_url

from shardwork.artifact import LEAF_BYTES, Manifest, describe_folder, open_leaf_file, read_leaf
from shardwork.errors import Conflict, InvalidInput, NotFound
from shardwork.ids import ArtifactId

from .backend import Backend, FolderBackend
from .direct import Direct, can_sign
from .disk import make_folder
from .objects import ObjectBackend
from .packs import Packs
from .sealing import NOTE, OVERHEAD_BYTES, PLAIN, Seal, Sealer
from .staging import MANIFEST_NAME, Staging, delete_folder

_ID = re.compile(r"[0-9a-f]{64}")
#: whole artifacts that somebody looked at so lately are not deleted: he may be writing the row that needs them
UNUSED_S = 3600.0
_OWNER = re.compile(r"[0-9a-z-]{0,64}")


@dataclass(slots=True)
class _Upload:
    """A place for one staging; the lock serialises its calls."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    staging: Staging | None = None


class ArtifactStore:
    def __init__(self, backend: Backend, spool: Path, sealer: Sealer = PLAIN) -> None:
        """Raises Conflict "storage.wrong_key" when the store needs keys that `sealer` lacks."""
        self._backend = backend
        self._sealer = sealer
        #: whether addresses are signed where that can be
        self.signs = True
        known = backend.note(NOTE)
        sealer.check(known)
        if (wanted := sealer.note(known)) != known and sealer.current:
            backend.put_note(NOTE, wanted)
        self._spool = spool
        self._uploads: dict[Path, _Upload] = {}
        self._lock = threading.Lock()
        make_folder(spool)

    @classmethod
    def open(cls, location: str | Path, *, spool: Path | None = None, sealer: Sealer = PLAIN) -> ArtifactStore:
        """A folder, or "s3://…", "gs://…", "az://…", "memory://". `spool` is the local folder for uploads that are not
        whole yet: inside a local store by default, else a temporary folder, which a reboot may empty."""
        text = str(location)
        if "://" not in text:
            root = Path(text)
            return cls(FolderBackend(root), spool or root / "uploads", sealer)
        url = text + "/" if text.endswith("://") else text
        return cls(
            ObjectBackend(from_url(url)),
            spool or Path(tempfile.gettempdir()) / f"shardwork-spool-{os.getuid()}",
            sealer,
        )

    @property
    def direct(self) -> Direct | None:
        """Signed addresses, where the store makes any. None for what is encrypted: no key leaves the coordinator."""
        if not self.signs or self._sealer.current or not isinstance(self._backend, ObjectBackend):
            return None
        return Direct(self._backend) if can_sign(self._backend) else None

    def is_sealed(self, artifact_id: str) -> bool:
        """Whether stored content is encrypted, in whichever way new content is stored."""
        return self._stored(artifact_id)[1] is not None

    def has(self, artifact_id: str) -> bool:
        """Whether the whole artifact is stored."""
        return _ID.fullmatch(artifact_id) is not None and self._backend.has(ArtifactId(artifact_id))

    def keep(self, artifact_id: str) -> bool:
        """Whether the whole artifact is stored, and stays so for a while even if nobody needs it: for whoever is about
        to write the row that does."""
        return _ID.fullmatch(artifact_id) is not None and self._backend.keep(ArtifactId(artifact_id))

    def delete(self, artifact_id: str) -> bool:
        """Deletes a whole artifact that no row needs, unless somebody asked to keep it lately. False: it is there."""
        return self._backend.delete(_checked_id(artifact_id), unused_s=UNUSED_S)

    def ids(self) -> list[ArtifactId]:
        """Ids of everything that takes room, whole or not."""
        return self._backend.ids()

    def manifest(self, artifact_id: str) -> Manifest:
        """Raises NotFound "artifact.not_found"."""
        return self._stored(artifact_id)[0]

    def _stored(self, artifact_id: str) -> tuple[Manifest, Seal | None]:
        """The manifest, and how its leaves are sealed."""
        known = _checked_id(artifact_id)
        data = self._backend.manifest(known)
        if data is None:
            raise not_found(artifact_id)
        opened, seal = self._sealer.open_manifest(known, data)
        return Manifest.parse(opened), seal

    def free_bytes(self) -> int:
        """Room for uploads, in bytes."""
        return shutil.disk_usage(self._spool).free

    def staged_bytes(self, artifact_id: str, *, owner: str = "") -> int:
        """What of this owner's upload lies on the disk."""
        with suppress(FileNotFoundError):
            packs = [path for path in self._folder(artifact_id, owner).iterdir() if path.name != MANIFEST_NAME]
            return sum(path.stat().st_size for path in packs)
        return 0

    def begin(self, manifest: Manifest, *, owner: str = "") -> int:
        """Opens or continues this owner's upload; answers how many leaves are durable already."""
        folder = self._folder(manifest.id, owner)
        with self._alone(folder) as upload:
            if upload.staging is None or upload.staging.published:
                upload.staging = self._reopened(folder, manifest.id) or Staging.create(folder, manifest, self._sealer)
            return upload.staging.sync()

    def append(self, artifact_id: str, leaves: bytes | bytearray | memoryview, *, owner: str = "") -> int:
        """Checks whole leaves and writes them behind the last; answers how many are written (durable after `sync`).
        Raises Corrupt "artifact.bad_leaf", InvalidInput "artifact.torn_leaf", NotFound "artifact.no_upload"."""
        with self._staged(artifact_id, owner) as staging:
            return staging.append(leaves)

    def sync(self, artifact_id: str, *, owner: str = "") -> int:
        """Makes what was written durable; answers the number of durable leaves."""
        with self._staged(artifact_id, owner) as staging:
            return staging.sync()

    def durable_leaves(self, artifact_id: str, *, owner: str = "") -> int:
        """Leaves of this owner's upload that survive a power cut."""
        with self._staged(artifact_id, owner) as staging:
            return staging.durable

    def upload_manifest(self, artifact_id: str, *, owner: str = "") -> Manifest:
        """What this owner said it will send. Raises NotFound "artifact.no_upload"."""
        with self._staged(artifact_id, owner) as staging:
            return staging.manifest

    def complete(self, artifact_id: str, *, owner: str = "") -> None:
        """Publishes a whole upload; durable when it returns. Raises Conflict "artifact.incomplete"."""
        folder = self._folder(artifact_id, owner)
        with self._staged(artifact_id, owner) as staging:
            durable = staging.sync()
            if not staging.whole:
                raise Conflict(
                    "artifact.incomplete",
                    "The upload is not whole yet.",
                    next_step="Send the remaining leaves.",
                    durable_leaves=durable,
                    leaves=staging.manifest.leaf_count,
                )
            self._backend.publish(staging.manifest.id, folder)
            staging.published = True
            self._forget(folder)

    def release(self, artifact_id: str, *, owner: str = "") -> None:
        """Syncs and forgets an interrupted upload, so that it costs no memory until it goes on."""
        folder = self._folder(artifact_id, owner)
        with self._alone(folder) as upload:
            if upload.staging is not None and not upload.staging.published:
                upload.staging.sync()
            self._forget(folder)

    def close(self) -> None:
        """Syncs and forgets all uploads; for the end of the process. They go on after the next start."""
        with self._lock:
            uploads = list(self._uploads.values())
            self._uploads.clear()
        for upload in uploads:
            with upload.lock:
                if upload.staging is not None:
                    upload.staging.sync()

    def discard(self, artifact_id: str, *, owner: str = "") -> None:
        """Deletes an upload that will not go on. Whole artifacts stay."""
        folder = self._folder(artifact_id, owner)
        with self._alone(folder) as upload:
            if upload.staging is not None:
                upload.staging.close()
                upload.staging = None
            delete_folder(folder)
            self._forget(folder)

    def discard_stale(self, older_than_s: float) -> int:
        """Deletes uploads that nobody continued for so long; answers how many. For `expiry`."""
        self._backend.clean()
        if can_sign(self._backend) and isinstance(self._backend, ObjectBackend):
            Direct(self._backend).clean()
        limit = time.time() - older_than_s
        return sum(1 for folder in list(self._spool.iterdir()) if self._discard_if_stale(folder, limit))

    def _discard_if_stale(self, folder: Path, limit: float) -> bool:
        with self._alone(folder) as upload:
            if upload.staging is not None:
                return False
            is_stale = False
            with suppress(FileNotFoundError):
                is_stale = max(path.stat().st_mtime for path in (folder, *folder.iterdir())) < limit
            if is_stale:
                delete_folder(folder)
            # last, or the next one to begin would have the folder deleted under it
            self._forget(folder)
            return is_stale

    def read_leaves(self, artifact_id: str, first: int = 0, count: int | None = None) -> Iterator[bytes]:
        """The leaves [first, first + count), each checked against its digest, one piece per leaf.
        Raises NotFound "artifact.not_found", InvalidInput "artifact.no_such_leaf", Corrupt "artifact.bad_leaf"."""
        manifest, seal = self._stored(artifact_id)
        last = manifest.leaf_count if count is None else first + count
        if not 0 <= first <= last <= manifest.leaf_count:
            raise InvalidInput(
                "artifact.no_such_leaf", "The artifact has no such leaf.", leaf=last, leaves=manifest.leaf_count
            )
        return self._read(manifest, seal, range(first, last))

    def put_folder(self, folder: Path) -> Manifest:
        """Stores a local folder durably; for executors, which hold the content already."""
        manifest = describe_folder(folder)
        if self.keep(manifest.id):
            return manifest
        owner = f"put-{os.getpid()}-{secrets.token_hex(4)}"
        buffer = bytearray(LEAF_BYTES)
        self.begin(manifest, owner=owner)
        try:
            for entry in manifest.files:
                with open_leaf_file(folder / entry.path) as file:
                    while leaf := read_leaf(file, buffer):
                        self.append(manifest.id, leaf, owner=owner)
            self.complete(manifest.id, owner=owner)
        except BaseException:
            self.discard(manifest.id, owner=owner)
            raise
        return manifest

    def materialise(self, artifact_id: str, into: Path) -> Manifest:
        """Writes the artifact's files to the folder `into`, which must not exist; checked leaf by leaf, there whole or
        not at all. Not fsynced: the store keeps the durable copy. Raises Conflict "artifact.folder_exists"."""
        if into.exists():
            raise Conflict("artifact.folder_exists", "The folder exists already.", folder=into)
        manifest, seal = self._stored(artifact_id)
        into.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into.parent, prefix=f".{into.name}.") as temporary:
            files = Path(temporary) / "files"
            files.mkdir()
            pieces = self._read(manifest, seal, range(manifest.leaf_count))
            for entry in manifest.files:
                path = files / entry.path
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    for _ in entry.leaves:
                        file.write(next(pieces))
            files.rename(into)
        return manifest

    def _reopened(self, folder: Path, artifact_id: ArtifactId) -> Staging | None:
        return Staging.reopen(folder, artifact_id, self._sealer)

    def _read(self, manifest: Manifest, seal: Seal | None, leaves: range) -> Iterator[bytes]:
        packs = Packs(manifest, OVERHEAD_BYTES if seal else 0)
        for number in leaves:
            place = packs.place(number)
            piece = self._backend.read(manifest.id, place.pack, place.offset_bytes, place.size_bytes)
            if seal is not None:
                piece = seal.open(number, piece)
            manifest.leaf(number).check(piece)
            yield piece

    @contextmanager
    def _staged(self, artifact_id: str, owner: str) -> Generator[Staging, None, None]:
        """This owner's upload, alone in this process; from disk when it was released or the coordinator restarted."""
        folder = self._folder(artifact_id, owner)
        with self._alone(folder) as upload:
            if upload.staging is None or upload.staging.published:
                upload.staging = self._reopened(folder, ArtifactId(artifact_id))
            if upload.staging is None:
                self._forget(folder)
                raise NotFound(
                    "artifact.no_upload",
                    "There is no such upload.",
                    next_step="Begin the upload again.",
                    artifact=artifact_id,
                )
            yield upload.staging

    @contextmanager
    def _alone(self, folder: Path) -> Generator[_Upload, None, None]:
        """The place of an upload while nobody else holds it. Only its holder forgets it."""
        while True:
            with self._lock:
                upload = self._uploads.setdefault(folder, _Upload())
            with upload.lock:
                # whoever held it before may have forgotten it; then somebody else may hold a newer one
                if self._uploads.get(folder) is upload:
                    yield upload
                    return

    def _forget(self, folder: Path) -> None:
        with self._lock:
            self._uploads.pop(folder, None)

    def _folder(self, artifact_id: str, owner: str) -> Path:
        if not _OWNER.fullmatch(owner):
            raise InvalidInput("artifact.bad_owner", "An owner is named by digits, small letters and '-'.", owner=owner)
        return self._spool / f"{_checked_id(artifact_id)}.{owner}"


def not_found(artifact_id: str) -> NotFound:
    """One answer for what is unknown and what is forbidden, so that ids can't be probed."""
    return NotFound(
        "artifact.not_found",
        "There is no such artifact, or you may not read it.",
        next_step="Check the id, and that the lease that grants it is still live.",
        artifact=artifact_id[:64],
    )


def _checked_id(artifact_id: str) -> ArtifactId:
    if not _ID.fullmatch(artifact_id):
        raise not_found(artifact_id)
    return ArtifactId(artifact_id)
