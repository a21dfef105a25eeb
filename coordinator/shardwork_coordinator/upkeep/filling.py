"""Filling: a folder that a backup or a restore fills holds a draft's name until it is whole.

One process fills it at a time. What fails or is interrupted is cleared away at once; what was killed is cleared away by
whoever fills the folder next. Anything else in it is somebody's, and refused. Used by `backup` and `restore`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from shardwork.errors import Conflict

#: how the scratch folder of `examined` begins
SCRATCH = ".examined-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """A folder to be filled."""

    folder: Path
    #: name of the file that is there from the beginning; its caller gives it the name `whole` at the end
    draft: str
    whole: str
    #: names of what is put in beside it
    parts: frozenset[str]
    #: name of the file that is locked meanwhile
    lock: str
    #: raised for a folder that is not empty, or that another process uses
    refusal: Conflict

    @contextlib.contextmanager
    def begun(self) -> Generator[None, None, None]:
        """An empty folder of mode 0700, as there will be keys in it. Raises `refusal`."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check()
        with self._held():
            # again: another process may have filled it before this one held it
            self._check()
            self.folder.chmod(0o700)
            self._clear()
            (self.folder / self.draft).touch(mode=0o600)
            try:
                yield
            except BaseException:
                # with its draft renamed it is whole, and stays
                if (self.folder / self.draft).exists():
                    self._clear()
                    (self.folder / self.draft).unlink()
                raise

    def _check(self) -> None:
        found = {path.name for path in self.folder.iterdir()}
        was_cut_short = self.draft in found and self.whole not in found
        cleared = {name for name in found if self._is_part(name)} | {self.draft} if was_cut_short else set[str]()
        if found - cleared - {self.lock}:
            raise self.refusal

    def _is_part(self, name: str) -> bool:
        return name in self.parts or name.startswith(SCRATCH)

    @contextlib.contextmanager
    def _held(self) -> Generator[None, None, None]:
        """The lock ends with the process."""
        handle = os.open(self.folder / self.lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._take(handle)
            yield
        finally:
            os.close(handle)

    def _take(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise self.refusal from error

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if not self._is_part(path.name):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
