"""Reading and checking a job file before anything is measured, priced or sent. Needs no coordinator.

`shardwork.jobs.file` names every wrong key at once; here each recipe also says what it misses in its stage. Used by
`plan` and whoever asks whether a file is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..jobs.file import LoadedJob, load, load_values
from ..recipes import recipe
from ..recipes.base import StageFacts


def validate(file: Path) -> LoadedJob:
    """The job, ready to be measured. Raises InvalidInput (JobFileInvalid carries all problems)."""
    return _frozen(load(file))


def validate_values(values: Mapping[str, object], folder: Path) -> LoadedJob:
    """The same for a job that is written in a program; relative paths are read from `folder`."""
    return _frozen(load_values(values, folder))


def _frozen(loaded: LoadedJob) -> LoadedJob:
    for stage in loaded.spec.stages:
        recipe(stage.recipe).freeze(stage, StageFacts())
    return loaded
