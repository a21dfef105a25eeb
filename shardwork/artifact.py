"""Artifact: an immutable set of files, named by the SHA-256 of its canonical manifest.

Owns the manifest, its bytes, the rules for paths, and hashing a folder against it. Moving the bytes is `transfer`
(agent, client) and the coordinator's `artifacts` package; who may read them is `rpc.artifacts`.

Canonical bytes (big-endian, nothing optional, so one manifest has one encoding):

    b"shardwork.manifest.v1\\n"   u32 number of files
    per file, sorted by the UTF-8 bytes of its path:
        u16 length of path   path in UTF-8   u64 size in bytes   32 bytes BLAKE3 per leaf

A leaf is 1 MiB of one file; the last leaf of a file may be shorter and an empty file has none, so the number of leaves
follows from the size. The cap keeps a manifest inside one 4 MiB gRPC message: 127 GiB in large files.
Empty folders are not part of an artifact.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import FileIO
from itertools import repeat
from pathlib import Path

from blake3 import blake3

from .errors import Conflict, Corrupt, InvalidInput, LimitExceeded, NotFound
from .ids import ArtifactId

LEAF_BYTES = 1 << 20
DIGEST_BYTES = 32
FILES_MAX = 10_000
PATH_MAX_BYTES = 512
PATH_MAX_PARTS = 32
#: below gRPC's 4 MiB with room for the message around it
MANIFEST_MAX_BYTES = (4 << 20) - (64 << 10)

#: backslashes, control characters, line separators, and marks that turn the order of letters around, with which
#: "gpj.exe" looks like another name than it is
_FORBIDDEN = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_MAGIC = b"shardwork.manifest.v1\n"
_COUNT = struct.Struct(">I")
_PATH = struct.Struct(">H")
_SIZE = struct.Struct(">Q")


def leaf_digest(data: bytes | bytearray | memoryview) -> bytes:
    """BLAKE3 of one leaf, 32 bytes."""
    return blake3(data).digest()


def leaves_of(size_bytes: int) -> int:
    """How many leaves a file of this size has."""
    return -(-size_bytes // LEAF_BYTES)


def check_path(path: str) -> None:
    """Raises InvalidInput "artifact.bad_path" unless the path stays inside the artifact's folder on every system."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise _bad_path(path, "it is not valid UTF-8") from None
    parts = path.split("/")
    if not path or len(encoded) > PATH_MAX_BYTES:
        raise _bad_path(path, f"it must have 1 to {PATH_MAX_BYTES} bytes")
    if len(parts) > PATH_MAX_PARTS:
        raise _bad_path(path, f"it must have at most {PATH_MAX_PARTS} parts")
    if any(part in ("", ".", "..") for part in parts):
        raise _bad_path(path, "it must be relative, without empty parts, '.' or '..'")
    if _FORBIDDEN.search(path):
        raise _bad_path(path, "backslashes, control characters and marks of direction are refused")


@dataclass(frozen=True, slots=True)
class FileEntry:
    path: str
    #: in bytes
    size: int
    #: BLAKE3 of each leaf, in order
    leaves: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf as its manifest places it."""

    #: global number: files in order, leaves in order
    number: int
    path: str
    #: number inside the file
    index: int
    size_bytes: int
    digest: bytes

    @property
    def offset_bytes(self) -> int:
        """Where it begins in its file."""
        return self.index * LEAF_BYTES

    def check(self, data: bytes | bytearray | memoryview) -> None:
        """Raises Corrupt "artifact.bad_leaf" unless the data is exactly this leaf."""
        if len(data) != self.size_bytes or leaf_digest(data) != self.digest:
            raise Corrupt(
                "artifact.bad_leaf",
                "A leaf does not match the manifest.",
                next_step="Send or fetch it again; if it happens again, the sender's copy is damaged.",
                file=self.path,
                leaf=self.index,
            )


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of an artifact, sorted by path. Invalid ones can't be built: InvalidInput or LimitExceeded."""

    files: tuple[FileEntry, ...]
    id: ArtifactId = field(init=False, compare=False)
    total_bytes: int = field(init=False, compare=False)
    leaf_count: int = field(init=False, compare=False)
    #: global number of each file's first leaf
    _starts: tuple[int, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        files = tuple(sorted(self.files, key=lambda entry: entry.path.encode("utf-8", "surrogatepass")))
        _check_files(files)
        starts: list[int] = []
        count = 0
        for entry in files:
            starts.append(count)
            count += len(entry.leaves)
        fill = object.__setattr__
        fill(self, "files", files)
        fill(self, "leaf_count", count)
        fill(self, "total_bytes", sum(entry.size for entry in files))
        fill(self, "_starts", tuple(starts))
        fill(self, "id", ArtifactId(hashlib.sha256(self.to_bytes()).hexdigest()))

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        out = bytearray(_MAGIC + _COUNT.pack(len(self.files)))
        for entry in self.files:
            path = entry.path.encode()
            out += _PATH.pack(len(path)) + path + _SIZE.pack(entry.size) + b"".join(entry.leaves)
        return bytes(out)

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Strict inverse of `to_bytes`. Raises InvalidInput "artifact.bad_manifest" on anything else."""
        if len(data) > MANIFEST_MAX_BYTES:
            raise _too_large(len(data))
        try:
            manifest = cls(_read_files(data))
        except (struct.error, UnicodeDecodeError, OverflowError):
            raise _bad_manifest("it is cut short or not UTF-8") from None
        if manifest.to_bytes() != data:
            raise _bad_manifest("it is not in canonical form")
        return manifest

    def leaf_span(self, path: str) -> tuple[int, int]:
        """(global number of the file's first leaf, number of leaves). Raises NotFound "artifact.no_such_file"."""
        for start, entry in zip(self._starts, self.files, strict=True):
            if entry.path == path:
                return start, len(entry.leaves)
        raise NotFound("artifact.no_such_file", "The artifact has no such file.", file=path, artifact=self.id)

    def leaf(self, number: int) -> Leaf:
        """The leaf with this global number. Raises InvalidInput "artifact.no_such_leaf"."""
        if not 0 <= number < self.leaf_count:
            raise InvalidInput(
                "artifact.no_such_leaf", "The artifact has no such leaf.", leaf=number, leaves=self.leaf_count
            )
        # an empty file shares its start with the next one; the last file that starts here is the one with leaves
        position = bisect_right(self._starts, number) - 1
        while not self.files[position].leaves:
            position -= 1
        return _leaf(self.files[position], number - self._starts[position], number)

    def each_leaf(self, first: int = 0) -> Iterator[Leaf]:
        """Leaves from global number `first` to the end."""
        return (self.leaf(number) for number in range(first, self.leaf_count))

    def leaf_sizes(self) -> Iterator[int]:
        """Bytes of each leaf, in order."""
        for entry in self.files:
            if entry.leaves:
                yield from repeat(LEAF_BYTES, len(entry.leaves) - 1)
                yield entry.size - (len(entry.leaves) - 1) * LEAF_BYTES


def describe_folder(folder: Path) -> Manifest:
    """Hashes every file below `folder` in 1 MiB of memory. Symlinks and special files are refused, empty folders
    skipped. Raises InvalidInput "artifact.symlink", "artifact.not_regular", "artifact.bad_path"."""
    buffer = bytearray(LEAF_BYTES)
    return Manifest(tuple(_describe_file(folder, path, buffer) for path in sorted(list_files(folder))))


def artifact_of(files: Mapping[str, bytes]) -> ArtifactId:
    """The id of the artifact of these files: path -> its bytes."""
    entries = (
        FileEntry(
            path, len(data), tuple(leaf_digest(data[at : at + LEAF_BYTES]) for at in range(0, len(data), LEAF_BYTES))
        )
        for path, data in files.items()
    )
    return Manifest(tuple(entries)).id


def verify_folder(folder: Path, manifest: Manifest) -> None:
    """Raises Corrupt "artifact.missing_file", "artifact.unexpected_file", "artifact.wrong_size" or "artifact.bad_leaf"
    unless the folder holds exactly the manifest's files."""
    found = set(list_files(folder))
    expected = {entry.path for entry in manifest.files}
    for path in sorted(found ^ expected):
        code = "artifact.missing_file" if path in expected else "artifact.unexpected_file"
        raise Corrupt(code, "The folder does not hold the manifest's files.", file=path, artifact=manifest.id)
    buffer = bytearray(LEAF_BYTES)
    for entry in manifest.files:
        with open_leaf_file(folder / entry.path) as file:
            if os.fstat(file.fileno()).st_size != entry.size:
                raise Corrupt("artifact.wrong_size", "A file has another size than the manifest says.", file=entry.path)
            for index in range(len(entry.leaves)):
                _leaf(entry, index, index).check(read_leaf(file, buffer))


def list_files(folder: Path) -> Iterator[str]:
    """Paths below `folder`, '/'-separated, in no order. Raises on symlinks, special files and hostile names."""
    if not folder.is_dir():
        raise NotFound("artifact.no_folder", "There is no such folder.", folder=folder)
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                path = prefix + entry.name
                check_path(path)
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    pending.append(path + "/")
                elif stat.S_ISREG(mode):
                    yield path
                else:
                    raise _not_a_file(path, mode)


def open_leaf_file(path: Path) -> FileIO:
    """Opens for unbuffered reading; a symlink put there meanwhile is refused by the system."""
    return FileIO(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


def read_leaf(file: FileIO, buffer: bytearray) -> memoryview:
    """The next leaf of the file in the reused buffer; valid until the next call, empty at the end of the file."""
    view = memoryview(buffer)
    filled = 0
    while filled < len(buffer):
        got = file.readinto(view[filled:])
        if not got:
            break
        filled += got
    return view[:filled]


def _describe_file(folder: Path, path: str, buffer: bytearray) -> FileEntry:
    leaves: list[bytes] = []
    size = 0
    with open_leaf_file(folder / path) as file:
        while leaf := read_leaf(file, buffer):
            leaves.append(leaf_digest(leaf))
            size += len(leaf)
    if len(leaves) != leaves_of(size):
        raise Conflict(
            "artifact.file_changed",
            "A file changed while it was read.",
            next_step="Wait until nothing writes to it, then run the same command again.",
            file=path,
        )
    return FileEntry(path, size, tuple(leaves))


def _leaf(entry: FileEntry, index: int, number: int) -> Leaf:
    size = min(LEAF_BYTES, entry.size - index * LEAF_BYTES)
    return Leaf(number, entry.path, index, size, entry.leaves[index])


def _check_files(files: tuple[FileEntry, ...]) -> None:
    if len(files) > FILES_MAX:
        raise _too_many_files(len(files))
    length = len(_MAGIC) + _COUNT.size
    taken: set[str] = set()
    for entry in files:
        check_path(entry.path)
        if entry.path in taken:
            raise _bad_manifest("a path is a file twice, or a file and a folder", file=entry.path)
        if not 0 <= entry.size < 1 << 63 or len(entry.leaves) != leaves_of(entry.size):
            raise _bad_manifest("a file's size and leaves disagree", file=entry.path)
        if any(len(digest) != DIGEST_BYTES for digest in entry.leaves):
            raise _bad_manifest("a leaf digest must have 32 bytes", file=entry.path)
        taken.add(entry.path)
        length += _PATH.size + len(entry.path.encode()) + _SIZE.size + DIGEST_BYTES * len(entry.leaves)
    _check_no_file_is_a_folder(taken)
    if length > MANIFEST_MAX_BYTES:
        raise _too_large(length)


def _check_no_file_is_a_folder(paths: set[str]) -> None:
    folders: set[str] = set()
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent and parent not in folders:
            if parent in paths:
                raise _bad_manifest("a path is a file twice, or a file and a folder", file=parent)
            folders.add(parent)
            parent = parent.rpartition("/")[0]


def _read_files(data: bytes) -> tuple[FileEntry, ...]:
    if not data.startswith(_MAGIC):
        raise _bad_manifest("it does not begin as a manifest")
    at = len(_MAGIC)
    (count,) = _COUNT.unpack_from(data, at)
    at += _COUNT.size
    # checked before reading: a message has room for half a million
    if count > FILES_MAX:
        raise _too_many_files(count)
    files: list[FileEntry] = []
    for _ in range(count):
        entry, at = _read_file(data, at)
        files.append(entry)
    if at != len(data):
        raise _bad_manifest("bytes follow its last file")
    return tuple(files)


def _read_file(data: bytes, at: int) -> tuple[FileEntry, int]:
    (length,) = _PATH.unpack_from(data, at)
    at += _PATH.size
    path = data[at : at + length].decode()
    at += length
    (size,) = _SIZE.unpack_from(data, at)
    at += _SIZE.size
    end = at + DIGEST_BYTES * leaves_of(size)
    # checked before slicing: a size of 2^63 must not become a loop of 2^43 leaves
    if end > len(data):
        raise _bad_manifest("it is cut short")
    leaves = tuple(data[start : start + DIGEST_BYTES] for start in range(at, end, DIGEST_BYTES))
    return FileEntry(path, size, leaves), end


def _bad_path(path: str, reason: str) -> InvalidInput:
    return InvalidInput(
        "artifact.bad_path",
        "A file name can't be part of an artifact.",
        next_step="Rename the file.",
        file=repr(path[:PATH_MAX_BYTES]),
        reason=reason,
    )


def _bad_manifest(reason: str, *, file: str = "") -> InvalidInput:
    return InvalidInput("artifact.bad_manifest", "These bytes are not a manifest.", reason=reason, file=repr(file))


def _too_many_files(count: int) -> LimitExceeded:
    return LimitExceeded(
        "artifact.too_many_files",
        "An artifact has at most 10,000 files.",
        next_step="Join small files, for example the rows of a data set, into larger ones.",
        files=count,
    )


def _too_large(length: int) -> LimitExceeded:
    return LimitExceeded(
        "artifact.manifest_too_large",
        "The artifact is too large for one manifest.",
        next_step="Split the folder into several artifacts.",
        manifest_bytes=length,
        limit_bytes=MANIFEST_MAX_BYTES,
    )


def _not_a_file(path: str, mode: int) -> InvalidInput:
    if stat.S_ISLNK(mode):
        return InvalidInput(
            "artifact.symlink",
            "Symbolic links can't be part of an artifact.",
            next_step="Replace the link by the file it points to.",
            file=path,
        )
    return InvalidInput(
        "artifact.not_regular",
        "Only regular files can be part of an artifact.",
        next_step="Put a plain file in its place, or take it out of the folder.",
        file=path,
    )
