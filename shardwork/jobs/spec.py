"""JobSpec: what a requester asks for, as one validated record.

Owns the shape and its defaults; one pydantic schema serves the job file, the CLI, the wire (canonical JSON) and the
docs. Reading a file and naming the wrong line is `shardwork.jobs.file`; a recipe's own parameters are validated by the
recipe (`shardwork.recipes`). A value that is not built yet is refused here, never ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,39}$")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class PlanSection(Section):
    """How much work: rounds x shards a round x inner steps."""

    rounds: Annotated[int, Field(ge=1, le=10_000, description="rounds of learning")] = 4
    shards_per_round: Annotated[int, Field(ge=1, le=1_024, description="shards that learn side by side")] = 4
    inner_steps: Annotated[int, Field(ge=1, le=10_000, description="optimiser steps a shard takes")] = 25


class TrustSection(Section):
    """Who may see the data and how results are checked. Only what is built is accepted."""

    data_class: Annotated[
        Literal["public"], Field(alias="class", description="'public': any worker may see the training rows")
    ]
    aggregate: Annotated[
        Literal["auto", "mean", "screened_mean", "norm_clip", "trimmed_mean", "median", "multi_krum", "centred_clip"],
        Field(description="'auto' screens from 4 shards a round on, and takes the weighted mean below"),
    ] = "auto"
    audit: Annotated[Literal["auto", "none"], Field(description="'auto': what this version checks, see README")] = (
        "auto"
    )


class BudgetSection(Section):
    max_sats: Annotated[int, Field(ge=1, le=21_000_000 * 100_000_000, description="the hard cap for the whole job")]


class ScheduleSection(Section):
    """When and where a job runs beside others. None of it changes what is computed."""

    priority: Annotated[
        Literal["low", "normal", "high"],
        Field(description="which of your own jobs go first; it takes nothing from other requesters"),
    ] = "normal"
    timeout_hours: Annotated[
        float | None,
        Field(gt=0, le=8_784, description="end the job after this time: valid work is paid, the rest refunded"),
    ] = None
    device: Annotated[Literal["any", "cpu", "gpu"], Field(description="kind of device that its shards may go to")] = (
        "any"
    )


class RunIf(Section):
    """A gate: the stage runs only when an earlier one taught enough."""

    stage: Annotated[str, Field(description="an earlier learning stage with held-out rows")]
    improved_by: Annotated[
        float, Field(ge=0, lt=1, description="share by which its held-out loss must have fallen, 0.01 for 1 %")
    ]


class StageSpec(Section):
    """One stage: a recipe, what it reads and how much of it to do."""

    name: str
    recipe: str
    base_model: Annotated[
        str | None, Field(description="folder in Hugging Face layout, `stage.model`, or hub:ORG/NAME@REVISION")
    ] = None
    data: Annotated[list[str], Field(description="files or globs: JSONL or text; or `stage.output`")] = []
    eval_data: Annotated[list[str], Field(description="held-out files; never sent to training workers")] = []
    eval_fraction: Annotated[float | None, Field(gt=0, lt=0.5, description="share of rows held out")] = None
    params: dict[str, Any] = {}
    plan: PlanSection = PlanSection()
    timeout_hours: Annotated[
        float | None, Field(gt=0, le=8_784, description="end the job when this stage takes longer")
    ] = None
    # left out of the JSON where there is none: a coordinator of the version before does not know the key
    run_if: RunIf | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="a gate: `{stage: NAME, improved_by: SHARE}` runs this stage only if that one improved so much",
    )

    @field_validator("data", "eval_data", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not NAME.match(value):
            raise ValueError("a stage name is 1-40 of a-z, 0-9, '-' and '_', starting with a letter or digit")
        return value

    @model_validator(mode="after")
    def _one_way_to_hold_out(self) -> StageSpec:
        if self.eval_data and self.eval_fraction is not None:
            raise ValueError("give eval_data or eval_fraction, not both")
        return self


class JobSpec(Section):
    """A whole job. A flat job file becomes one stage named after its recipe (`shardwork.jobs.file`)."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    stages: Annotated[list[StageSpec], Field(min_length=1, max_length=32)]
    trust: TrustSection
    budget: BudgetSection
    schedule: Annotated[ScheduleSection, Field(description="when and where it runs beside others")] = ScheduleSection()

    @field_validator("name")
    @classmethod
    def _printable_name(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("a job's name holds no control characters or line breaks")
        return value

    @model_validator(mode="after")
    def _stages_refer_backwards(self) -> JobSpec:
        seen: set[str] = set()
        for stage in self.stages:
            if stage.name in seen:
                raise ValueError(f"two stages are named {stage.name!r}")
            for reference in references(stage):
                if reference.split(".", 1)[0] not in seen:
                    raise ValueError(f"stage {stage.name!r} reads {reference!r}, which no earlier stage makes")
            seen.add(stage.name)
        return self

    @model_validator(mode="after")
    def _gates_can_be_judged(self) -> JobSpec:
        earlier: dict[str, StageSpec] = {}
        for stage in self.stages:
            problem = gate_problem(stage.run_if.stage, earlier) if stage.run_if else ""
            if problem:
                raise ValueError(f"stage {stage.name!r} can't run_if: {problem}")
            earlier[stage.name] = stage
        return self

    def canonical_json(self) -> str:
        """The one text form that is sent, stored and compared. What scheduling added is left out where it says
        nothing, so that a coordinator of the version before takes the job."""
        dumped = self.model_dump(by_alias=True, mode="json")
        if self.schedule == ScheduleSection():
            del dumped["schedule"]
        for stage in dumped["stages"]:
            if stage["timeout_hours"] is None:
                del stage["timeout_hours"]
        return json.dumps(dumped, sort_keys=True, separators=(",", ":"))


STAGE_OUTPUT = re.compile(r"^[a-z0-9][a-z0-9_-]{0,39}\.(model|checkpoint|report|rows)$")


def references(stage: StageSpec) -> list[str]:
    """The `stage.output` references among what a stage reads, e.g. ["pretrain.model"]."""
    candidates = [stage.base_model or "", *stage.data, *stage.eval_data]
    return [value for value in candidates if STAGE_OUTPUT.match(value)]


def holds_out(stage: StageSpec) -> bool:
    """Whether some rows are kept for evaluation."""
    return bool(stage.eval_data) or stage.eval_fraction is not None


def gate_problem(named: str, earlier: Mapping[str, StageSpec]) -> str:
    """Why the stage `named` can't decide whether a later one runs; empty when it can."""
    if named not in earlier:
        return f"{named!r} is no stage that comes before this one"
    if not holds_out(earlier[named]):
        return f"{named!r} holds no rows out, so nobody can say whether it improved"
    return ""
