"""InputCache: artifacts as folders on the executor's disk, kept between tasks up to a size.

Owns `<scratch>/cache/<artifact id>/`. A task gets hard links of its own, so dropping an entry never takes files away
from a task that reads them, in whichever process. Used by executor children only; several may share one cache.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from .artifacts import ArtifactStore

#: every task looks at all that is kept, so tiny artifacts are bounded by their number
MOST_ENTRIES = 500


class InputCache:
    def __init__(self, folder: Path, store: ArtifactStore, *, limit_bytes: int) -> None:
        self._folder = folder
        self._store = store
        self._limit_bytes = limit_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, artifact_id: str) -> bool:
        return (self._folder / artifact_id).exists()

    def link(self, artifact_id: str, into: Path) -> Path:
        """Puts the artifact's files at the new folder `into` and returns it. Raises NotFound "artifact.not_found"."""
        entry = self._folder / artifact_id
        try:
            _link_folder(entry, into)
        except FileNotFoundError:  # not cached, or dropped meanwhile by another process
            shutil.rmtree(into, ignore_errors=True)
            self._store.materialise(artifact_id, into)
            self.keep(artifact_id, into)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.utime(entry)
        return into

    def keep(self, artifact_id: str, folder: Path) -> None:
        """Remembers a folder that holds exactly this artifact; beyond the limit, drops what was unused for longest."""
        entry = self._folder / artifact_id
        if not entry.exists():
            # under another name first: an entry is whole or absent
            part = self._folder / f".{secrets.token_hex(8)}"
            _link_folder(folder, part)
            try:
                part.rename(entry)
            except OSError:
                shutil.rmtree(part, ignore_errors=True)
        self._shrink()

    def make_room(self) -> None:
        """Drops everything, for a disk that is full; whatever is missing is read from the store again."""
        for _, _, entry in self._entries():
            self._drop(entry)

    def _shrink(self) -> None:
        used = 0
        for number, (_, size, entry) in enumerate(sorted(self._entries(), reverse=True)):
            used += size
            if used > self._limit_bytes or number >= MOST_ENTRIES:
                self._drop(entry)

    def _drop(self, entry: Path) -> None:
        # under another name first: nobody may link half of it
        gone = self._folder / f".{secrets.token_hex(8)}"
        with contextlib.suppress(OSError):
            entry.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _entries(self) -> list[tuple[float, int, Path]]:
        """(last use, bytes, folder) of each."""
        found: list[tuple[float, int, Path]] = []
        for entry in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                size = sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())
                found.append((entry.stat().st_mtime, size, entry))
        return found


def _link_folder(source: Path, into: Path) -> None:
    """A copy of the tree made of hard links. Raises FileNotFoundError when the source is not, or no longer, there."""
    before = source.stat().st_ino
    into.mkdir(parents=True)
    for path in sorted(source.rglob("*")):
        target = into / path.relative_to(source)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            os.link(path, target)
    if source.stat().st_ino != before:
        raise FileNotFoundError(source)
