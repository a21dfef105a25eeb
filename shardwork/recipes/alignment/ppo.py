"""Recipe `ppo`: proximal policy optimisation with a value head (Schulman et al., arXiv 1707.06347; as Ouyang et al.,
arXiv 2203.02155, use it for language models). TRL has none since 1.13: ours is our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field

from ..orders import Tuning
from .policy import Policy
from .policy_params import PolicyParams

Share = Annotated[float, Field(ge=0, le=1)]


class PpoParams(PolicyParams):
    """Parameters of `ppo`."""

    answers: Annotated[int, Field(ge=1, le=64, description="answers drawn for each prompt")] = 1
    prompts_per_shard: Annotated[int, Field(ge=1, le=512, description="prompts that a shard answers in a round")] = 32
    gamma: Annotated[Share, Field(description="discount of later rewards")] = 1.0
    lam: Annotated[Share, Field(description="lambda of generalised advantage estimation")] = 0.95
    value_clip: Annotated[float, Field(ge=0, le=100, description="how far a value may move a step")] = 0.2
    value_coefficient: Annotated[float, Field(ge=0, le=100, description="weight of the value loss")] = 0.1
    whiten: Annotated[bool, Field(description="advantages to mean 0 and deviation 1")] = True


class Ppo(Policy):
    kind: ClassVar[str] = "ppo"
    Params: ClassVar[type[BaseModel]] = PpoParams

    def tuning(self, params: Mapping[str, Any], seed: str = "") -> Tuning:
        return super().tuning(params, seed).model_copy(update={"head": "value"})

    def advantage(self, params: Mapping[str, Any]) -> Any:
        return "ppo"

    def own(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {key: params[key] for key in ("gamma", "lam", "value_clip", "value_coefficient", "whiten")}
