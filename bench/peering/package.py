"""TRL 1.12.0, the last one that carries a PPO trainer: fetched alone into a folder, and put before what is installed.

It needs nothing that the worker has not: torch, transformers, accelerate, datasets. Called by `ppo_peer` and by its
nightly test.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "1.12.0"
#: kept between calls
FOLDER = Path(tempfile.gettempdir()) / f"shardwork-bench-trl-{VERSION}"


class NotToBeHad(Exception):
    """Why TRL can't be compared with here."""


def put_first(folder: Path = FOLDER) -> None:
    """`import trl` gives this version from here on. Raises NotToBeHad."""
    if "trl" in sys.modules:
        raise NotToBeHad("another trl was imported before")
    if not (folder / "trl" / "experimental" / "ppo" / "ppo_trainer.py").exists():
        _fetch(folder)
    sys.path.insert(0, str(folder))
    try:
        import trl.experimental.ppo.ppo_trainer  # noqa: F401  # pyright: ignore
    except ImportError as error:
        sys.path.remove(str(folder))
        raise NotToBeHad(f"trl {VERSION} can't be imported: {error}") from error
    assert str(folder) in str(sys.modules["trl"].__file__)


def _fetch(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    done = subprocess.run([*command, f"trl=={VERSION}"], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise NotToBeHad(f"trl {VERSION} can't be fetched: {last}")
