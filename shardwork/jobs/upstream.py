"""Upstream: whether what a stage reads of earlier ones can be enough for it.

Who compares answers needs as many of each prompt as are compared, and a blend needs a side that has a word. What the
job file already says is refused before anything is paid for. Pure. Called by whoever takes a job in.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InvalidInput
from ..recipes.alignment.consensus import ConsensusParams
from ..recipes.alignment.generate import GenerateParams
from ..recipes.alignment.people import PeopleParams
from ..recipes.params import validate_params
from .spec import STAGE_OUTPUT, JobSpec, StageSpec

#: recipes whose votes are a side of a blend
_SIDES = ("people", "judge")


def refuse_too_little(spec: JobSpec) -> None:
    """Raises InvalidInput "job.few_answers" and "blend.nobody_counts"."""
    known: dict[str, StageSpec] = {}
    for stage in spec.stages:
        read = [value for value in stage.data_paths if STAGE_OUTPUT.match(value)]
        sources = [known[name] for value in read if (name := value.partition(".")[0]) in known]
        _check_answers(stage, _compared(stage), sources)
        if stage.recipe == "consensus" and len(sources) == len(stage.data_paths):
            _check_sides(stage, sources)
        known |= dict.fromkeys(spec.names_of(stage.name), stage)


def _compared(stage: StageSpec) -> int:
    """Answers of a prompt that are looked at together."""
    if stage.recipe == "judge":
        return 2
    if stage.recipe != "people":
        return 0
    params = validate_params(PeopleParams, stage)
    assert isinstance(params, PeopleParams)
    return params.shown


def _check_answers(stage: StageSpec, needed: int, sources: Sequence[StageSpec]) -> None:
    for source in sources:
        if source.recipe != "generate":
            continue  # files and people's reviews hold what they hold
        params = validate_params(GenerateParams, source)
        assert isinstance(params, GenerateParams)
        # a model that always takes the likeliest token says the same whenever it is asked
        each = params.answers if params.temperature > 0 else 1
        if (made := each * (1 + len(source.models))) >= needed:
            continue
        raise InvalidInput(
            "job.few_answers",
            f"Stage {stage.name!r} compares {needed} answers to a prompt, and stage {source.name!r} makes {made}"
            f"{'' if params.temperature > 0 else ' that differ'}.",
            next_step="Raise its params.answers (and params.temperature above 0, or all are the same), or let other "
            "models answer beside it with models: {other: ...}.",
            stage=source.name,
            key="params.answers",
            reader=stage.name,
        )


def _check_sides(stage: StageSpec, sources: Sequence[StageSpec]) -> None:
    """Votes of none of the sides that it reads would count."""
    params = validate_params(ConsensusParams, stage)
    assert isinstance(params, ConsensusParams)
    weights = params.weights.model_dump()
    sides = {source.recipe for source in sources}
    if sides <= set(_SIDES) and not any(weights[side] for side in sides):
        told = " and ".join(sorted(sides))
        raise InvalidInput(
            "blend.nobody_counts",
            f"Stage {stage.name!r} reads votes of {told} alone, and gives them the weight 0.",
            next_step=f"Give {told} a weight above 0 in params.weights, or read votes of another side as well.",
            stage=stage.name,
            key="params.weights",
        )
