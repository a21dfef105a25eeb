"""Disk: the file operations that must survive a power cut. A rename is durable once its folder was synced."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from shardwork.errors import LimitExceeded


def sync_folder(folder: Path) -> None:
    """Makes the folder's names durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Creates the folder and its missing parents durably."""
    missing = [folder]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """The file holds all of the data or does not exist, also after a power cut."""
    temporary = path.with_name(path.name + ".tmp")
    with refusing_full_disk(path), temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_folder(path.parent)


@contextmanager
def refusing_full_disk(path: Path) -> Generator[None, None, None]:
    """Turns "no space left" into LimitExceeded "artifact.no_space"; other errors pass."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise LimitExceeded(
            "artifact.no_space",
            "The disk that stores artifacts is full.",
            next_step="Free space on the coordinator's disk, then send it again; what arrived is kept.",
            folder=path.parent.name,
        ) from error


def is_full(error: OSError) -> bool:
    """Whether the disk or the user's quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
