"""A stage's local inputs laid out as the folders that are uploaded: the model's files, and data in a fixed order.

Model files, JSONL and text are hard links where the file system allows it and copies elsewhere, in a folder of their
own that goes away afterwards; the person's files are never touched. What a killed command left behind goes with the
next one. Used by `submit`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..dataset.line import Source
from ..dataset.source import source_files
from ..dataset.staged import convert, staged_suffix, travels_as_it_is

PREFIX = "staging-"
#: of a data file's name; disks take 255, and a number and an ending are added
NAME_BYTES = 120
#: between making a folder and locking it lie milliseconds
FRESH_S = 10.0


@contextmanager
def staging_area(cache_dir: Path) -> Generator[Path, None, None]:
    """An empty private folder, removed at the end."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    for left in cache_dir.glob(f"{PREFIX}*"):
        _remove_abandoned(left)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=cache_dir) as folder:
        lock = _locked(Path(folder))
        try:
            yield Path(folder)
        finally:
            if lock is not None:
                os.close(lock)


def _locked(folder: Path) -> int | None:
    """A lock that ends with this process; None while another process holds it, or where there are no locks."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_abandoned(folder: Path) -> None:
    """Removes a staging folder that no living command holds; a fresh one may not be locked yet, so age decides too."""
    try:
        if time.time() - folder.stat().st_mtime < FRESH_S:
            return
    except OSError:
        return
    lock = _locked(folder)
    if lock is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def stage_model(source: Path, names: Sequence[str], into: Path) -> Path:
    """Exactly the named files of the model folder `source`; whatever else lies there never travels."""
    for name in names:
        _place(source / name, into / name)
    return into


def stage_data(sources: Sequence[Source], into: Path, recipe: str = "") -> Path:
    """Data files as `00000-name.jsonl`: the prefix keeps the job file's order and equal names apart.

    JSONL and text lie as they are, everything else is written as JSONL, with what the recipe reads. Several sources
    have a folder each, `source-000` …, by which the coordinator tells them apart.
    """
    into.mkdir(parents=True, exist_ok=True)
    apart = len(sources) > 1
    for number, file in enumerate(source_files(sources, recipe)):
        folder = into / f"source-{file.source:03d}" if apart else into
        name = travelling_name(file.path.with_suffix(staged_suffix(file)))
        if travels_as_it_is(file):
            _place(file.path, folder / f"{number:05d}-{name}")
        else:
            folder.mkdir(exist_ok=True)
            convert(file, folder / f"{number:05d}-{name}")
    return into


def travelling_name(file: Path) -> str:
    """The file's name as far as every disk and every terminal can bear it; over there it only helps to find a row."""
    stem = unicodedata.normalize("NFC", file.stem)
    plain = "".join(letter if letter.isprintable() and letter != "\\" else "_" for letter in stem)
    return plain.encode()[:NAME_BYTES].decode("utf-8", "ignore") + file.suffix.lower()


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    real = source.resolve()  # a link to a file is welcome here, and an artifact holds regular files only
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)
