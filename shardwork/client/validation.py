"""Reading and checking a job file before anything is measured, priced or sent. Needs no coordinator.

`shardwork.jobs.file` names every wrong key at once; here each recipe also says what it misses in its stage. Used by
`plan` and whoever asks whether a file is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import InvalidInput
from ..jobs.file import JobFileInvalid, LoadedJob, load, load_values
from ..problem import Problem
from ..recipes import recipe
from ..recipes.base import StageFacts
from ..why import Why


def validate(file: Path) -> LoadedJob:
    """The job, ready to be measured. Raises InvalidInput (JobFileInvalid carries all problems)."""
    return _frozen(load(file))


def validate_values(values: Mapping[str, object], folder: Path) -> LoadedJob:
    """The same for a job that is written in a program; relative paths are read from `folder`."""
    return _frozen(load_values(values, folder))


def _frozen(loaded: LoadedJob) -> LoadedJob:
    problems: list[Problem] = []
    for stage in loaded.spec.stages:
        try:
            recipe(stage.recipe).freeze(stage, StageFacts())
        except InvalidInput as error:
            problems.append(_problem(loaded, stage.name, error.why))
    if problems:
        raise JobFileInvalid(loaded.file, problems, code=problems[0].code)
    return loaded


def _problem(loaded: LoadedJob, stage: str, why: Why) -> Problem:
    """What a recipe found wrong in its stage, with the place of its key in the job file."""
    key = why.evidence.get("key", "")
    place = loaded.place(stage, key) if key else {"file": loaded.file}
    return Problem(
        file=loaded.file,
        line=int(place["line"]) if "line" in place else None,
        key=place.get("key", ""),
        code=why.code,
        sentence=why.sentence,
        fix=why.next_step,
    )
