"""Recipe `grpo`: the answers of a group are each other's measure (Shao et al., arXiv 2402.03300), and RLOO, where each
answer is measured by the others (Ahmadian et al., arXiv 2402.14740). The learn loop is our own: TRL's draws its answers
inside `train()`, ours are verified shards of their own phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from ...errors import InvalidInput
from ...jobs.spec import StageSpec
from ..base import StageFacts
from .policy import Policy
from .policy_params import PolicyParams


class GrpoParams(PolicyParams):
    """Parameters of `grpo`."""

    advantage: Annotated[
        Literal["grpo", "rloo"], Field(description="an answer's measure: its group's mean, or the mean of the others")
    ] = "grpo"
    answers: Annotated[int, Field(ge=2, le=64, description="answers drawn for each prompt: the group")] = 8
    scale_by_deviation: Annotated[
        bool, Field(description="grpo: over the group's deviation; without, the loss of Dr. GRPO")
    ] = True
    average: Annotated[
        Literal["answers", "tokens", "constant"],
        Field(description="token losses: per answer first, over all tokens, or over the longest allowed"),
    ] = "tokens"


class Grpo(Policy):
    kind: ClassVar[str] = "grpo"
    Params: ClassVar[type[BaseModel]] = GrpoParams

    def freeze(self, stage: StageSpec, facts: StageFacts) -> StageSpec:
        frozen = super().freeze(stage, facts)
        if frozen.params["advantage"] == "rloo" and not frozen.params["scale_by_deviation"]:
            raise InvalidInput(
                "grpo.no_deviation",
                f"Stage {stage.name!r} leaves out the group's deviation, which rloo never divides by.",
                next_step="Leave scale_by_deviation out, or use advantage: grpo.",
                stage=stage.name,
                key="params.scale_by_deviation",
            )
        return frozen

    def advantage(self, params: Mapping[str, Any]) -> Any:
        return params["advantage"]

    def own(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {"scale_by_deviation": params["scale_by_deviation"], "average": params["average"]}
