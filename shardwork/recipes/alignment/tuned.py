"""Tuned: what recipes share that improve a model by an objective other than the next token.

They learn as `sft` does (method, adapter, schedule, averaging), from rows of another kind. Owns the parameters that
mean nothing to them and the choice of what is published; a kind says its objective.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ...errors import InvalidInput
from ...jobs.spec import StageSpec
from ..base import Content, PlanInput, ShardPlan, StageFacts
from ..learning import LearningRecipe
from ..objectives import LearnObjective
from ..orders import EvaluateOrder, LearnOrder, PrepareOrder, PublishOrder
from ..sft import LORA_ONLY, PARTIAL_ONLY, Sft, TuningParams, refuse
from .guards.safety import ASKED_TOKENS

#: of `sft`, with the value that asks for nothing: rows here are no texts that a loss could be spread over
MEANINGLESS: Mapping[str, object] = {"packing": False}
#: million parameters of what papers call a large model
LARGE = 7000


#: what `params.safety` is, for the kinds whose model answers
SAFETY = "ask the base and the published model a few prompts that should or should not be refused"


class TunedParams(TuningParams):
    """What every kind of tuning by an objective may set."""

    method: Annotated[
        Literal["lora", "full", "partial"],
        Field(description="what learns: an adapter, all weights, or the last layers"),
    ] = "lora"
    publish: Annotated[
        Literal["auto", "adapter", "merged"],
        Field(description="lora: an adapter, or a whole model that other stages can read; 'auto': as its kind needs"),
    ] = "auto"


class Tuned(Sft):
    """Base of reward, dpo, ppo and grpo. Stateless."""

    kind: ClassVar[str]
    #: of sft's rate for the same size and method: at a million parameters, where bench/alignment.py measured it, and at
    #: seven billion, from what is published; in between it falls by a power of the size
    RATE: ClassVar[float] = 1.0
    LARGE_RATE: ClassVar[float] = 1.0
    #: sequences of one row
    SEQUENCES: ClassVar[int] = 1
    #: an adapter is published as one, unless the job says otherwise
    MERGES: ClassVar[bool] = False

    def objective(self, params: Mapping[str, Any], given: PlanInput, index: int = 0) -> LearnObjective:
        raise NotImplementedError

    def freeze(self, stage: StageSpec, facts: StageFacts) -> StageSpec:
        if stage.base_model is None:
            raise InvalidInput(
                f"{self.kind}.no_base_model",
                f"Stage {stage.name!r} tunes a model but names none.",
                next_step="Set base_model to a model folder, or to an earlier stage's `stage.model`.",
                stage=stage.name,
                key="base_model",
            )
        frozen = LearningRecipe.freeze(self, stage, facts)
        refuse(frozen, MEANINGLESS, f"{self.kind}.no_text", "of learning from text", "sft")
        if frozen.params["method"] != "lora":
            refuse(frozen, {**LORA_ONLY, "publish": "auto"}, f"{self.kind}.lora_only", "an adapter's", "lora")
        if frozen.params["method"] != "partial":
            refuse(frozen, PARTIAL_ONLY, f"{self.kind}.partial_only", "of tuning the last layers", "partial")
        return frozen

    def auto_rate(self, params: Mapping[str, Any], facts: StageFacts) -> float:
        """A large model is moved by far less than a small one, and by feedback less than by text."""
        size = max(facts.run_params, 1_000_000) / 1e6
        fall = math.log(self.RATE / self.LARGE_RATE) / math.log(LARGE)
        return float(self.RATE * size**-fall * super().auto_rate(params, facts))

    def published(self, params: Mapping[str, Any]) -> Content:
        return Content.ADAPTER if params.get("method", "lora") == "lora" and not self.merges(params) else Content.MODEL

    def merges(self, params: Mapping[str, Any]) -> bool:
        """Whether an adapter is published inside its base's weights."""
        asked = params.get("publish", "auto")
        return params.get("method", "lora") == "lora" and (self.MERGES if asked == "auto" else asked == "merged")

    def _plan_prepare(self, given: PlanInput) -> Sequence[ShardPlan]:
        return [
            _changed(plan, PrepareOrder, self.prepared(given.stage.params)) for plan in super()._plan_prepare(given)
        ]

    def prepared(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """What else `prepare` is told."""
        return {}

    def _plan_learn(self, given: PlanInput) -> Sequence[ShardPlan]:
        times = self.SEQUENCES
        return [
            replace(
                _changed(plan, LearnOrder, {"objective": self.objective(given.stage.params, given, plan.index)}),
                work_units=times * plan.work_units,
            )
            for plan in super()._plan_learn(given)
        ]

    def _plan_evaluate(self, given: PlanInput) -> Sequence[ShardPlan]:
        times = self.SEQUENCES
        return [
            replace(
                _changed(plan, EvaluateOrder, {"objective": self.objective(given.stage.params, given)}),
                work_units=times * plan.work_units,
            )
            for plan in super()._plan_evaluate(given)
        ]

    def _plan_publish(self, given: PlanInput) -> Sequence[ShardPlan]:
        # a stage that was frozen before it was known is published as it was quoted
        safety = bool(given.stage.params.get("safety", False))
        more = ASKED_TOKENS * given.facts.run_params if safety else 0
        changes = {"merged": self.merges(given.stage.params), "safety": safety, **self.sampled()}
        return [
            replace(
                _changed(plan, PublishOrder, changes),
                inputs={**plan.inputs, **self.asked(given)},
                work_units=plan.work_units + more,
            )
            for plan in super()._plan_publish(given)
        ]

    def sampled(self) -> dict[str, Any]:
        """Fields of a publish order that say what the model is sampled from."""
        return {}

    def asked(self, given: PlanInput) -> dict[str, str]:
        """Inputs of publishing that hold prompts to sample from."""
        return {}


def _changed(
    plan: ShardPlan,
    kind: type[PrepareOrder] | type[LearnOrder] | type[EvaluateOrder] | type[PublishOrder],
    changes: Mapping[str, Any],
) -> ShardPlan:
    """The plan with these fields of its order set."""
    order = kind.model_validate_json(plan.order_json).model_copy(update=dict(changes))
    return replace(plan, order_json=order.canonical_json())
