"""Recipe `pretrain`: next-token learning on plain text packed into full rows, from scratch or from a base model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from ..errors import InvalidInput
from ..jobs.spec import StageSpec
from ..models.presets import check_preset
from .base import StageFacts
from .learning import LearningRecipe
from .orders import Method, Tuning
from .params import LearningParams

#: where a base model brings its own tokenizer
UNUSED_VOCABULARY = 2048
Vocabulary = Annotated[int, Field(ge=258, le=262_144)]


class PretrainParams(LearningParams):
    """Parameters of `pretrain`."""

    preset: Annotated[
        str | None, Field(description="from scratch: a named size (tiny-1m … 1b); leave out when base_model is given")
    ] = None
    vocab_size: Annotated[
        Vocabulary | Literal["auto"],
        Field(description="from scratch: size of the tokenizer trained on the data; 'auto': the preset's"),
    ] = "auto"


class Pretrain(LearningRecipe):
    kind: ClassVar[str] = "pretrain"
    Params: ClassVar[type[BaseModel]] = PretrainParams

    def freeze(self, stage: StageSpec, facts: StageFacts) -> StageSpec:
        frozen = super().freeze(stage, facts)
        preset = frozen.params["preset"]
        if (stage.base_model is None) == (preset is None):
            raise InvalidInput(
                "pretrain.base_or_preset",
                f"Stage {stage.name!r} needs either a base_model to continue from or params.preset to start from.",
                next_step="Set params.preset to a size such as tiny-1m, or base_model to a model folder; not both.",
                stage=stage.name,
                key="params.preset",
            )
        vocabulary = check_preset(preset).vocab if preset is not None else UNUSED_VOCABULARY
        if frozen.params["vocab_size"] != "auto":
            return frozen
        return frozen.model_copy(update={"params": {**frozen.params, "vocab_size": vocabulary}})

    def tuning(self, params: Mapping[str, Any], seed: str = "") -> Tuning:
        return Tuning(method=Method.FULL)
