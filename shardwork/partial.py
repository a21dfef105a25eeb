"""PartialDownload: an artifact on its way to a folder, kept in "<folder>.part" until it is whole.

Owns the files on disk: every leaf is checked before it is written and again when a killed download goes on. The folder
appears by one rename once all files are fsynced. Blocking; `transfer` calls it from threads, one call at a time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from contextlib import suppress
from io import FileIO
from pathlib import Path

from .artifact import LEAF_BYTES, Leaf, Manifest, open_leaf_file, read_leaf
from .errors import Conflict, Corrupt, LimitExceeded

#: left free on the disk
RESERVE_BYTES = 64 << 20


class PartialDownload:
    """After `open`, `done` leaves are on disk and match. Close it, whatever happened."""

    def __init__(self, into: Path, manifest: Manifest) -> None:
        self.manifest = manifest
        self.done = 0
        self._into = into
        self._part = into.with_name(into.name + ".part")
        self._files = self._part / "files"
        self._file: FileIO | None = None
        self._lock = -1

    def open(self) -> None:
        """Goes on from what an earlier attempt left. Raises Conflict "artifact.download_busy" while another one runs,
        LimitExceeded "artifact.no_space" when the rest does not fit."""
        self._take_lock()
        self._recover()
        self._check_space()

    @property
    def done_bytes(self) -> int:
        if self.done == self.manifest.leaf_count:
            return self.manifest.total_bytes
        leaf = self.manifest.leaf(self.done)
        earlier = (entry.size for entry in self.manifest.files if entry.path.encode() < leaf.path.encode())
        return sum(earlier) + leaf.offset_bytes

    def append(self, data: memoryview) -> None:
        """Checks and writes the next leaf. Raises Corrupt "artifact.bad_leaf", LimitExceeded "artifact.no_space"."""
        leaf = self.manifest.leaf(self.done)
        leaf.check(data)
        try:
            self._write(leaf, data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _no_space(self._into, self.manifest.total_bytes - self.done_bytes) from error
        self.done += 1

    def finish(self) -> None:
        """Makes the folder appear, whole and durable. Raises Conflict "artifact.folder_exists"."""
        folders: set[Path] = {self._files}
        for entry in self.manifest.files:
            path = self._files / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if not entry.leaves:
                path.write_bytes(b"")
            folders.update(parent for parent in path.parents if parent.is_relative_to(self._files))
        for folder in folders:
            _sync(folder)
        if self._into.exists():
            raise Conflict("artifact.folder_exists", "The folder appeared meanwhile.", folder=self._into)
        self._files.rename(self._into)
        _sync(self._into.parent)
        shutil.rmtree(self._part)

    def close(self) -> None:
        """Lets go of the files; what is done stays for the next attempt."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take_lock(self) -> None:
        self._part.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self._part / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                "artifact.download_busy",
                "Another download fills this folder.",
                next_step="Wait for it, or choose another folder.",
                folder=self._into,
            ) from None

    def _recover(self) -> None:
        note = self._part / "manifest"
        known = self.manifest.to_bytes()
        if not note.exists() or note.read_bytes() != known:
            with suppress(FileNotFoundError):
                shutil.rmtree(self._files)
            note.write_bytes(known)
        self._files.mkdir(exist_ok=True)
        buffer = bytearray(LEAF_BYTES)
        for entry in self.manifest.files:
            good = self._good_leaves(entry.path, len(entry.leaves), buffer)
            self.done += good
            if good < len(entry.leaves):
                return

    def _good_leaves(self, path: str, count: int, buffer: bytearray) -> int:
        """How many of the file's first leaves lie on disk whole; synced, as a kill may have come before that."""
        good = 0
        with suppress(FileNotFoundError, Corrupt), open_leaf_file(self._files / path) as file:
            for number in range(self.done, self.done + count):
                self.manifest.leaf(number).check(read_leaf(file, buffer))
                good += 1
            os.fsync(file.fileno())
        return good

    def _check_space(self) -> None:
        missing = self.manifest.total_bytes - self.done_bytes
        if missing and shutil.disk_usage(self._part).free < missing + RESERVE_BYTES:
            raise _no_space(self._into, missing)

    def _write(self, leaf: Leaf, data: memoryview) -> None:
        if self._file is None:
            path = self._files / leaf.path
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = FileIO(os.open(path, flags, 0o600), "w")
        # by offset and cut there, so that a torn leaf of an earlier attempt is replaced
        self._file.seek(leaf.offset_bytes)
        self._file.truncate()
        while data:
            data = data[self._file.write(data) or 0 :]
        if leaf.number + 1 == self.manifest.leaf_count or self.manifest.leaf(leaf.number + 1).index == 0:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _no_space(into: Path, missing_bytes: int) -> LimitExceeded:
    return LimitExceeded(
        "artifact.no_space",
        "The disk has no room for this artifact.",
        next_step="Free space, then run it again; what arrived is kept.",
        folder=into,
        missing_bytes=missing_bytes,
    )
