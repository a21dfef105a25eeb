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

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

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
    # left out of the JSON where it asks for nothing, as further down
    no_alarm: bool = Field(
        default=False,
        exclude_if=lambda value: not value,
        description="and no reward may have risen while votes went against its policy",
    )


class RepeatSection(Section):
    """A loop: these stages, so many times, each time on what the last one made (`shardwork.jobs.loop`)."""

    stages: Annotated[list[str], Field(min_length=1, max_length=16, description="stages that follow each other")]
    times: Annotated[int, Field(ge=1, le=16, description="how often they run")]
    start: Annotated[
        dict[str, str], Field(description="what the first time reads in place of an output of the time before")
    ] = {}
    until: Annotated[
        RunIf | None, Field(description="go on only while this stage of the loop improved by so much each time")
    ] = None


class DataSource(Section):
    """One source among a stage's data, where its path alone does not say how it is read."""

    path: Annotated[str, Field(min_length=1, description="a file, a folder or a glob")]
    weight: Annotated[
        float, Field(gt=0, le=100, allow_inf_nan=False, description="how often a pass over the data reads each row")
    ] = 1.0
    mapping: Annotated[dict[str, str], Field(description="our key: the file's own name for it")] = {}
    format: Annotated[
        Literal[
            "text",
            "messages",
            "prompt-completion",
            "preference",
            "alpaca",
            "sharegpt",
            "prompt",
            "labelled",
            "scored",
            "answers",
        ]
        | None,
        Field(description="read rows as this format and no other; left out: recognised"),
    ] = None

    @field_validator("mapping")
    @classmethod
    def _our_names(cls, value: dict[str, str]) -> dict[str, str]:
        if value:
            from ..dataset.mapping import unknown_name  # with its tokenizer, which a job without one need not wait for

            wrong = unknown_name(value)
            if wrong is not None:
                raise ValueError(f"no format has a key {wrong[0]!r} to map to; {wrong[1].rstrip('.')}")
        return value


#: names of the two ways to write an item of `data`, as pydantic puts them into an error's place
ITEM_TAGS = ("<path>", "<source>")


def _is_one(value: object) -> bool:
    return isinstance(value, (str, dict, DataSource))


def _item_tag(value: object) -> str:
    return ITEM_TAGS[0] if isinstance(value, str) else ITEM_TAGS[1]


#: a path, or a section that names one
DataItem = Annotated[
    Annotated[str, Tag(ITEM_TAGS[0])] | Annotated[DataSource, Tag(ITEM_TAGS[1])], Discriminator(_item_tag)
]


def path_of(item: str | DataSource) -> str:
    """A file, folder, glob or `stage.output`."""
    return item if isinstance(item, str) else item.path


class StageSpec(Section):
    """One stage: a recipe, what it reads and how much of it to do."""

    #: 1-40 of a-z, 0-9, '-' and '_'; left out where a job has one stage: its recipe
    name: str
    #: what kind of work it is; its parameters go into `params`
    recipe: str
    base_model: Annotated[
        str | None,
        Field(description="folder in Hugging Face layout, `stage.model`, offered:NAME, or hub:ORG/NAME@REVISION"),
    ] = None
    data: Annotated[
        list[DataItem],
        Field(
            description="files, folders or globs: JSONL, JSON, CSV, TSV, Parquet, text; or `stage.output`; or sources"
        ),
    ] = []
    eval_data: Annotated[
        list[DataItem], Field(description="held-out files, as `data` without weights; never sent to training workers")
    ] = []
    eval_fraction: Annotated[float | None, Field(gt=0, lt=0.5, description="share of rows held out")] = None
    #: the recipe's own parameters; every `auto` is frozen by the plan
    params: dict[str, Any] = {}
    #: how much work it is
    plan: PlanSection = PlanSection()
    timeout_hours: Annotated[
        float | None, Field(gt=0, le=8_784, description="end the job when this stage takes longer")
    ] = None
    # these two are left out of the JSON where there is none: a coordinator of the version before does not know the keys
    continue_from: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="begin at a checkpoint: `JOB.stage.checkpoint` of your own earlier job (its best; `…@3`: that of "
        "round 3), `stage.checkpoint`, or a folder that `job download` wrote",
    )
    models: dict[str, str] = Field(
        default={},
        exclude_if=lambda value: not value,
        description="further models that it reads, by what they are to it, e.g. `{reward: score.model}`; written as "
        "base_model",
    )
    run_if: RunIf | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="a gate: `{stage: NAME, improved_by: SHARE}` runs this stage only if that one improved so much",
    )

    @field_validator("data", "eval_data", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if _is_one(value) else value

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not NAME.match(value):
            raise ValueError("a stage name is 1-40 of a-z, 0-9, '-' and '_', starting with a letter or digit")
        return value

    @field_validator("models")
    @classmethod
    def _plain_roles(cls, value: dict[str, str]) -> dict[str, str]:
        for name, reference in value.items():
            if not NAME.match(name) or not reference:
                raise ValueError("a further model has a name of a-z, 0-9, '-' and '_', and says which model it is")
        return value

    @field_validator("continue_from")
    @classmethod
    def _a_checkpoint(cls, value: str | None) -> str | None:
        meant = checkpoint_meant(value or "")
        if meant is not None:
            raise ValueError(f"a stage continues from a checkpoint; did you mean {meant!r}?")
        return value

    @property
    def data_paths(self) -> list[str]:
        return [path_of(item) for item in self.data]

    @property
    def eval_paths(self) -> list[str]:
        return [path_of(item) for item in self.eval_data]

    @property
    def weights(self) -> tuple[float, ...]:
        """Of each item of `data`; empty where every row is read once."""
        found = tuple(1.0 if isinstance(item, str) else item.weight for item in self.data)
        return found if any(weight != 1 for weight in found) else ()

    @model_validator(mode="after")
    def _one_way_to_hold_out(self) -> StageSpec:
        if self.eval_data and self.eval_fraction is not None:
            raise ValueError("give eval_data or eval_fraction, not both")
        if any(isinstance(item, DataSource) and item.weight != 1 for item in self.eval_data):
            raise ValueError("held-out rows have no weight: each is read once")
        return self


class JobSpec(Section):
    """A whole job. A flat job file becomes one stage named after its recipe (`shardwork.jobs.file`)."""

    #: for people; jobs may share a name
    name: Annotated[str, Field(min_length=1, max_length=80)]
    #: run in order; a later one may read what an earlier one made
    stages: Annotated[list[StageSpec], Field(min_length=1, max_length=64)]
    #: stages that run several times; `stages` holds them unrolled, as `name-1`, `name-2` …
    repeat: RepeatSection | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="a loop: `{stages: [NAME, …], times: 3, start: {STAGE.model: FOLDER}, until: {stage: NAME, "
        "improved_by: SHARE}}`",
    )
    #: who may see the data and how results are checked
    trust: TrustSection
    #: the most that the job may cost
    budget: BudgetSection
    schedule: Annotated[ScheduleSection, Field(description="when and where it runs beside others")] = ScheduleSection()
    report_to: Annotated[
        list[Literal["trackio", "tensorboard", "mlflow", "wandb"]],
        Field(
            max_length=4,
            description="trackers that are told each round's numbers while you watch: one, a list, or none",
        ),
    ] = []

    @field_validator("report_to", mode="before")
    @classmethod
    def _one_tracker_or_several(cls, value: Any) -> Any:
        if value is None or value == "none":
            return []
        return [value] if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _printable_name(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("a job's name holds no control characters or line breaks")
        return value

    def names_of(self, stage: str) -> tuple[str, ...]:
        """What a stage is called in references: by its name, and one of a loop by its plain name as well."""
        return (stage, stage.rpartition("-")[0]) if self.time_of(stage) else (stage,)

    def time_of(self, stage: str) -> int:
        """Which time of a loop a stage is, from 1; 0: it is in none."""
        plain, _, time = stage.rpartition("-")
        looped = self.repeat is not None and plain in self.repeat.stages and time.isdecimal()
        return int(time) if looped else 0

    @model_validator(mode="after")
    def _stages_refer_backwards(self) -> JobSpec:
        seen: set[str] = set()
        for stage in self.stages:
            if stage.name in seen:
                raise ValueError(f"two stages are named {stage.name!r}")
            for reference in references(stage):
                if reference.split(".", 1)[0] not in seen:
                    raise ValueError(f"stage {stage.name!r} reads {reference!r}, which no earlier stage makes")
            seen.update(self.names_of(stage.name))
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
        dumped = self.model_dump(by_alias=True, mode="json", exclude={"report_to"})
        if self.schedule == ScheduleSection():
            del dumped["schedule"]
        for stage in dumped["stages"]:
            if stage["timeout_hours"] is None:
                del stage["timeout_hours"]
        return json.dumps(dumped, sort_keys=True, separators=(",", ":"))


#: what a later stage may read of an earlier one
OUTPUTS = ("model", "checkpoint", "report", "rows", "votes")
STAGE_OUTPUT = re.compile(rf"^[a-z0-9][a-z0-9_-]{{0,39}}\.({'|'.join(OUTPUTS)})$")


#: `JOB.stage.checkpoint`, of a job that ran before or runs still, and maybe one round of it
JOB_CHECKPOINT = re.compile(
    r"^(?P<job>[0-9a-z]{1,40})\.(?P<stage>[a-z0-9][a-z0-9_-]{0,39})\.checkpoint(?:@(?P<round>[0-9]{1,9}))?$"
)
_OTHER_OUTPUT = re.compile(r"^((?:[0-9a-z]{1,40}\.)?[a-z0-9][a-z0-9_-]{0,39})\.(model|report|rows|votes)$")


def model_input(name: str) -> str:
    """What a stage's further model is called among its inputs."""
    return f"model-{name}"


def checkpoint_meant(value: str) -> str | None:
    """The checkpoint beside an output that is none, as with "tune.model"; None for everything else."""
    other = _OTHER_OUTPUT.match(value)
    return f"{other[1]}.checkpoint" if other else None


def is_local(value: str) -> bool:
    """Whether `continue_from` names a folder, and neither a job's nor a stage's checkpoint."""
    return not (STAGE_OUTPUT.match(value) or JOB_CHECKPOINT.match(value))


def references(stage: StageSpec) -> list[str]:
    """The `stage.output` references among what a stage reads, e.g. ["pretrain.model"]."""
    named = [stage.base_model or "", stage.continue_from or "", *stage.models.values()]
    candidates = [*named, *stage.data_paths, *stage.eval_paths]
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
