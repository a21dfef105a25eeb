"""Reading and checking a job file before anything is measured, priced or sent. Needs no coordinator.

`shardwork.jobs.file` names every wrong key at once; here each recipe also says what it misses in its stage. Used by
`plan` and whoever asks whether a file is right.
"""

from __future__ import annotations

from pathlib import Path

from ..jobs.file import LoadedJob, load
from ..recipes import recipe
from ..recipes.base import StageFacts


def validate(file: Path) -> LoadedJob:
    """The job, ready to be measured. Raises InvalidInput (JobFileInvalid carries all problems)."""
    loaded = load(file)
    for stage in loaded.spec.stages:
        recipe(stage.recipe).freeze(stage, StageFacts())
    return loaded
