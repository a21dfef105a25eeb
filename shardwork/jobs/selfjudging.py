"""Selfjudging: whether a judge made some of the answers that it judges, which it may only where the job says so.

A model likes its own words; so the default is no. Owns where answers came from, through every stage between. Pure.
Called by whoever takes a job in: references are compared as they are written, and uploads by their content.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping

from ..errors import InvalidInput
from .spec import STAGE_OUTPUT, JobSpec, StageSpec

#: (stage, key, reference) -> what stands for the model; equal for the same one
Named = Callable[[StageSpec, str, str], str]


def as_written(stage: StageSpec, key: str, reference: str) -> str:
    """A folder in another spelling is the same folder; a scheme's two slashes stay what they are."""
    return reference if ":" in reference else posixpath.normpath(reference)


def as_uploaded(inputs: Mapping[str, str]) -> Named:
    """`inputs`: "stage.key" -> artifact id."""
    return lambda stage, key, reference: inputs.get(f"{stage.name}.{key}") or as_written(stage, key, reference)


def refuse_self_judging(spec: JobSpec, named: Named = as_written) -> None:
    """Raises InvalidInput "judge.judges_itself"."""
    known: dict[str, StageSpec] = {}
    for stage in spec.stages:
        if stage.recipe == "judge" and stage.base_model and stage.params.get("judges_itself") is not True:
            judge = named(stage, "base_model", stage.base_model)
            for maker, role, model in _makers(stage, known, frozenset()):
                if named(maker, role, model) == judge:
                    raise _refused(stage, maker, model)
        known |= dict.fromkeys(spec.names_of(stage.name), stage)


def _makers(
    stage: StageSpec, known: Mapping[str, StageSpec], seen: frozenset[str]
) -> Iterator[tuple[StageSpec, str, str]]:
    """(stage, key, reference) of each model that wrote what this stage reads; `known`: stages before it, by name."""
    for value in stage.data_paths:
        source = known.get(value.partition(".")[0]) if STAGE_OUTPUT.match(value) else None
        if source is None or source.name in seen:
            continue
        if source.recipe == "generate":
            yield from ((source, f"models.{role}", model) for role, model in source.models.items())
            if source.base_model:
                yield source, "base_model", source.base_model
        else:
            yield from _makers(source, known, seen | {source.name})


def _refused(stage: StageSpec, maker: StageSpec, model: str) -> InvalidInput:
    return InvalidInput(
        "judge.judges_itself",
        f"The judge of stage {stage.name!r} made answers that it is to judge, in stage {maker.name!r}.",
        next_step="Set base_model to another model, or params.judges_itself: true if that is meant.",
        stage=stage.name,
        key="base_model",
        model=model,
    )
