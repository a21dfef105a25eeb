"""Weights & Biases: offline unless WANDB_MODE says otherwise; `wandb sync` uploads what lies here."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .trackers import PROJECT, Place

MODE = "WANDB_MODE"
#: steps must not go back there, and those of a second stage would
STEP = "round"


class WandbTracker:
    def __init__(self, run: Any, folder: Path) -> None:
        self._run, self._folder = run, folder

    @property
    def shown_by(self) -> str:
        return f"wandb sync --include-offline {self._folder / 'wandb'}/*"

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log({**scalars, STEP: step})

    def close(self) -> None:
        self._run.finish()


def open_tracker(place: Place) -> WandbTracker:
    wandb: Any = importlib.import_module("wandb")

    mode = os.environ.get(MODE) or "offline"
    run = wandb.init(project=PROJECT, id=place.job_id, name=place.run, resume="allow", dir=str(place.folder), mode=mode)
    run.define_metric("*", step_metric=STEP)
    return WandbTracker(run, place.folder)
