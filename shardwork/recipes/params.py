"""What a job file may set for every learning recipe, with bounds and what `auto` means.

Owns no value: what `auto` becomes is `measure`'s and `averaging`'s, and a kind adds parameters of its own. Pure; called
by the recipes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InvalidInput
from ..jobs.spec import StageSpec

Auto = Literal["auto"]
#: bounds of what may also be "auto": outside of them a shard would fail on every worker, or cost less than nothing
Rate = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Steps = Annotated[int, Field(ge=0, le=10**8)]
Batch = Annotated[int, Field(ge=1, le=4096)]
Length = Annotated[int, Field(ge=2, le=2**20)]


class LearningParams(BaseModel):
    """Parameters that pretrain and sft share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: Annotated[
        Rate | Auto, Field(description="peak learning rate; 'auto' derives it from the size and the method")
    ] = "auto"
    schedule: Annotated[
        Literal["cosine", "linear", "constant", "wsd"],
        Field(description="shape of the learning rate after warm-up; wsd: stable, then down over the last fifth"),
    ] = "cosine"
    final_rate: Annotated[
        Ratio | Auto,
        Field(description="share of the rate left at the end; 'auto': 0.1, and 0.5 where shards are averaged"),
    ] = "auto"
    warmup_steps: Annotated[
        Steps | Auto, Field(description="'auto': 5 % of all steps, and 10 % where shards are averaged")
    ] = "auto"
    batch_size: Annotated[
        Batch | Auto,
        Field(description="rows a step, or sequences of packed rows; 'auto' derives it from the size and the rows"),
    ] = 8
    micro_batch_size: Annotated[
        Batch | Auto, Field(description="rows on the device at once; 'auto': the whole batch")
    ] = "auto"
    max_length: Annotated[Length | Auto, Field(description="tokens a row; 'auto': 256, or the model's limit")] = "auto"
    packing: Annotated[
        bool | Auto,
        Field(
            description="pretrain: documents end to end, cut at max_length; sft: whole rows that share a sequence "
            "and do not see each other. 'auto': pretrain does, sft pads"
        ),
    ] = "auto"
    overlong: Annotated[
        Literal["auto", "split", "truncate", "drop", "refuse"],
        Field(description="rows of more than max_length tokens; 'auto' splits text and cuts rows with answers"),
    ] = "auto"
    beta1: Annotated[float, Field(ge=0, lt=1, description="AdamW's first decay")] = 0.9
    beta2: Annotated[
        Beta | Auto, Field(description="AdamW's second decay; 'auto': 0.95, and 0.98 where shards are averaged")
    ] = "auto"
    weight_decay: Annotated[
        Decay | Auto,
        Field(description="'auto': 0.1 over what averaging multiplies the rate by, and 0 for LoRA"),
    ] = "auto"
    clip_norm: Annotated[float, Field(gt=0, allow_inf_nan=False, description="gradient clipping")] = 1.0
    patience: Annotated[
        int | None,
        Field(ge=1, le=1000, description="end the stage after so many rounds without a better held-out loss"),
    ] = None
    outer: Annotated[
        Literal["auto", "mean", "nesterov"],
        Field(description="outer step; 'auto' measures candidates on held-out rows each round"),
    ] = "auto"
    encoding: Annotated[
        Literal["int8", "bf16", "fp32"], Field(description="how updates travel; fp32 is exact and 4 times larger")
    ] = "int8"
    precision: Annotated[
        Literal["fp32", "bf16"], Field(description="compute precision; bf16 keeps fp32 master weights")
    ] = "fp32"
    gradient_checkpointing: Annotated[
        bool, Field(description="compute each block twice instead of keeping it: less memory, a third more arithmetic")
    ] = False
    allow_large: Annotated[
        bool, Field(description="train more than 1.5B parameters at once, which is refused otherwise")
    ] = False
    # the means of A and B are not the mean of BA, and yet rounds recover what docs/training says; with A frozen, where
    # the mean is exact, 4 shards recovered a fifth less (as in bench/recovery, one seed)
    merge: Annotated[
        Literal["mean", "ffa"],
        Field(description="lora: 'mean' averages A and B each; 'ffa' freezes A, so that the mean of BA is exact"),
    ] = "mean"


def validate_params(model: type[BaseModel], stage: StageSpec) -> BaseModel:
    """The stage's params as the recipe's model. Raises InvalidInput "recipe.params" naming the first wrong key."""
    try:
        return model.model_validate(stage.params)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            "recipe.params",
            f"Parameter {key!r} of stage {stage.name!r} is wrong: {first['msg']}.",
            next_step=f"Known parameters: {', '.join(sorted(model.model_fields))}.",
            stage=stage.name,
            key=f"params.{key}",
        ) from error
