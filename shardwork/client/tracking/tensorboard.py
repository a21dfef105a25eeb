"""TensorBoard: one event folder a job, read by `tensorboard --logdir`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .trackers import Place


class TensorboardTracker:
    def __init__(self, folder: Path, writer: Any) -> None:
        self._folder, self._writer = folder, writer

    @property
    def shown_by(self) -> str:
        return f"tensorboard --logdir {self._folder.parent}"

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def open_tracker(place: Place) -> TensorboardTracker:
    summary: Any = importlib.import_module("tensorboard.summary")

    folder = place.folder / "tensorboard" / place.job_id
    return TensorboardTracker(folder, summary.Writer(str(folder)))
