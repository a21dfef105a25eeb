"""trackio: its own local database, shown by `trackio show`. Nothing is uploaded."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from .trackers import PROJECT, Place


class TrackioTracker:
    def __init__(self, run: Any) -> None:
        self._run = run

    @property
    def shown_by(self) -> str:
        return f"trackio show --project {PROJECT}"

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        self._run.finish()


def open_tracker(place: Place) -> TrackioTracker:
    trackio: Any = importlib.import_module("trackio")

    # no metrics of this machine: it only watches
    run = trackio.init(
        project=PROJECT, name=place.run, resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False
    )
    return TrackioTracker(run)
