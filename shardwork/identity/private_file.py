"""Private files: secrets on disk that no other user can read, replace through a link, or see half written.

A private file has mode 0600, lies in a folder of mode 0700, both owned by this user. Looser ones are refused, as ssh
does. Used by `shardwork.identity.keys` and the coordinator's TLS authority; POSIX only.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path

from ..errors import InvalidInput, NotAllowed

#: a key or a certificate with its key is far smaller; anything larger is not ours
MAX_BYTES = 64 * 1024


def make_private_folder(folder: Path) -> None:
    """Creates `folder` with mode 0700, or checks that an existing one is no looser."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise InvalidInput(
                "key.not_a_folder",
                "The folder for the key is a file.",
                next_step="Move the file away, or set SHARDWORK_HOME to another folder.",
                path=folder,
            ) from None
    _check_private(folder, os.stat(folder), wanted=0o700)


def create_private(path: Path, data: bytes) -> bool:
    """Writes `data` durably to a new file; False when `path` exists, which stays as it is.

    The name appears only once all bytes are on disk, so two processes that start together agree on one content.
    """
    make_private_folder(path.parent)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # link, not rename: rename would replace a file that another process created meanwhile
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    _sync_folder(path.parent)
    return True


def read_private(path: Path) -> bytes | None:
    """The whole file, or None when there is none. Raises NotAllowed "key.loose_mode", InvalidInput "key.not_a_file"."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise _not_a_file(path) from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise _not_a_file(path)
        _check_private(path, facts, wanted=0o600)
        _check_private(path.parent, os.stat(path.parent), wanted=0o700)
        return file.read(MAX_BYTES)


def _check_private(path: Path, facts: os.stat_result, *, wanted: int) -> None:
    mode = stat.S_IMODE(facts.st_mode)
    if facts.st_uid != os.geteuid():
        raise NotAllowed(
            "key.wrong_owner",
            "A private file or folder belongs to another user.",
            next_step="Run as its owner, or choose another folder.",
            path=path,
        )
    if mode & 0o077:
        raise NotAllowed(
            "key.loose_mode",
            "Other users may open a private file or folder.",
            next_step=f"Run: chmod {wanted:o} {path}",
            path=path,
            mode=f"{mode:04o}",
            wanted=f"{wanted:04o}",
        )


def _not_a_file(path: Path) -> InvalidInput:
    return InvalidInput(
        "key.not_a_file",
        "A private file must be a regular file, not a link or a device.",
        next_step="Move it away, or give its real path.",
        path=path,
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
