"""The trackers that there are: opened by name, refused with what to install where a package is missing.

Each is a module with `open_tracker(place) -> Tracker`; a further one is a further line in `TRACKERS`.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from ...errors import InvalidInput
from ...problem import suggest

PROJECT = "shardwork"
NONE = "none"
#: name -> how its package is installed; the name is the package's, and its module's here
TRACKERS: Mapping[str, str] = {
    "trackio": "pip install 'shardwork[track]'",
    "tensorboard": "pip install 'shardwork[track]'",
    "mlflow": "pip install mlflow",
    "wandb": "pip install wandb",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Whose points these are, and a folder for a tracker that has no other."""

    job_id: str
    job_name: str
    folder: Path

    @property
    def run(self) -> str:
        """A name that no other job has."""
        return f"{self.job_name}-{self.job_id}"


class Tracker(Protocol):
    """One run in one tracker."""

    @property
    def shown_by(self) -> str:
        """How a person looks at it: a command, or where it lies."""
        ...

    def write(self, step: int, scalars: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


def chosen(names: Iterable[str]) -> tuple[str, ...]:
    """The trackers named, each once, without "none". Raises InvalidInput "tracking.unknown" and
    "tracking.missing_package"."""
    found = tuple(dict.fromkeys(name for name in names if name != NONE))
    for name in found:
        if name not in TRACKERS:
            raise InvalidInput(
                "tracking.unknown",
                f"There is no tracker {name!r}.",
                next_step=suggest(name, [*TRACKERS, NONE], what="trackers"),
                key="report_to",
            )
        if not _is_installed(name):
            raise InvalidInput(
                "tracking.missing_package",
                f"Reporting to {name} needs its package, which is not installed.",
                next_step=f"{TRACKERS[name]}, or report to another; without: --report-to none",
                tracker=name,
            )
    return found


def _is_installed(name: str) -> bool:
    """A folder of that name in the working directory, as some trackers leave behind, is no package."""
    found = find_spec(name)
    return found is not None and found.origin is not None


def open_tracker(name: str, place: Place) -> Tracker:
    """Begins or goes on with the job's run. Raises InvalidInput "tracking.failed"."""
    module = importlib.import_module(f"{__package__}.{name}")
    place.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with watched(name):
        made: Tracker = module.open_tracker(place)
    return made


@contextlib.contextmanager
def watched(name: str) -> Generator[None, None, None]:
    """What a tracker prints goes to stderr, for stdout is data; what it raises becomes an error of ours."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except Exception as error:
        raise InvalidInput(
            "tracking.failed",
            f"{name} does not take the job's numbers: {type(error).__name__}: {error}",
            next_step="The job goes on. Watch it again, with --report-to none if this stays so.",
            tracker=name,
        ) from error
