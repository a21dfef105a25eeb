"""A stage's local inputs laid out as the folders that are uploaded: the model's files, and data in a fixed order.

Files are hard links where the file system allows it and copies elsewhere, in a folder of their own that goes away
afterwards; the person's files are never touched. Used by `submit`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staging_area(cache_dir: Path) -> Generator[Path, None, None]:
    """An empty private folder, removed at the end."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="staging-", dir=cache_dir) as folder:
        yield Path(folder)


def stage_model(source: Path, names: Sequence[str], into: Path) -> Path:
    """Exactly the named files of the model folder `source`; whatever else lies there never travels."""
    for name in names:
        _place(source / name, into / name)
    return into


def stage_data(files: Sequence[Path], into: Path) -> Path:
    """Data files as `00000-name.jsonl`: the prefix keeps the job file's order and equal names apart."""
    for number, file in enumerate(files):
        _place(file, into / f"{number:05d}-{file.name}")
    return into


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    real = source.resolve()  # a link to a file is welcome here, and an artifact holds regular files only
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)
