"""Recipe `consensus`: votes of one or several stages become preference rows, and a report; people and a judge blended.

One executor phase, join, in the round that sets other stages up: here there is nothing to set up, and nothing that a
worker would do. What it makes of votes is `shardwork.feedback`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from ...errors import InvalidInput
from ...feedback.blending import Blend, Conflict
from ...feedback.consensus import Rule
from ...jobs.spec import STAGE_OUTPUT, StageSpec
from ...why import Why
from ..base import (
    Computed,
    Content,
    Context,
    Finding,
    Observation,
    Observed,
    PlanInput,
    Reported,
    RoundKind,
    ShardPlan,
    StageFacts,
    StageType,
    Unaudited,
)
from ..params import validate_params
from .consensus_orders import ConsensusOrder
from .guards.wins import wins_among

Weight = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class Weights(BaseModel):
    """How much each side's word counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    people: Weight = 1.0
    judge: Weight = 0.5


class ConsensusParams(BaseModel):
    """Parameters of `consensus`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Annotated[Rule, Field(description="how several votes on a pair become one verdict")] = Rule.DAWID_SKENE
    weights: Annotated[Weights, Field(description="of people's and of a judge's verdict; 0 leaves it out")] = Weights()
    conflict: Annotated[Conflict, Field(description="where people prefer one answer and the judge the other")] = (
        Conflict.PEOPLE_FIRST
    )
    least_confidence: Annotated[float, Field(ge=0.5, lt=1, description="preferences are at least so sure")] = 0.5


class Consensus(Unaudited):
    kind: ClassVar[str] = "consensus"
    stage_type: ClassVar[StageType] = StageType.MAP
    Params: ClassVar[type[BaseModel]] = ConsensusParams

    def freeze(self, stage: StageSpec, facts: StageFacts) -> StageSpec:
        if stage.base_model or stage.continue_from or stage.eval_data or stage.eval_fraction or stage.models:
            raise InvalidInput(
                "consensus.not_learning",
                f"Stage {stage.name!r} counts votes: base_model, continue_from, models, eval_data and eval_fraction "
                "mean nothing to it.",
                next_step="Remove them.",
                stage=stage.name,
            )
        if stage.weights:
            raise InvalidInput(
                "consensus.no_data_weights",
                f"Stage {stage.name!r} weighs whose votes they are, not where they come from.",
                next_step="Remove the weights of its data, and set params.weights: {people: 1.0, judge: 0.5}.",
                stage=stage.name,
                key="data",
            )
        if file := next((one for one in stage.data_paths if not STAGE_OUTPUT.match(one)), None):
            raise InvalidInput(
                "consensus.no_votes",
                f"Stage {stage.name!r} reads votes of earlier stages, and {file!r} is none.",
                next_step="Name them as `stage.votes`, of stages of recipe people, judge or consensus.",
                stage=stage.name,
                key="data",
            )
        params = validate_params(ConsensusParams, stage)
        assert isinstance(params, ConsensusParams)
        _check_blend(params, stage.name)
        return stage.model_copy(update={"params": params.model_dump(mode="json")})

    def makes(self, stage: StageSpec) -> Mapping[str, Content]:
        return {"rows": Content.PREFERENCES, "votes": Content.VOTES, "report": Content.REPORT}

    def reads(self, stage: StageSpec) -> frozenset[Content]:
        return frozenset({Content.VOTES})

    def learn_rounds(self, stage: StageSpec) -> int:
        return 0

    def phases(self, kind: RoundKind, artifacts: Mapping[str, str]) -> tuple[str, ...]:
        return ("join",)

    def plan(self, given: PlanInput) -> Sequence[ShardPlan]:
        params = ConsensusParams.model_validate(given.stage.params)
        names = [f"data-{place}" if place else "data" for place in range(len(given.stage.data_paths))]
        order = ConsensusOrder(
            sources=len(names),
            rule=params.rule,
            people=params.weights.people,
            judge=params.weights.judge,
            conflict=params.conflict,
            least_confidence=params.least_confidence,
            spent_msat=tuple(int(given.numbers.get(f"spent_msat.{place}", 0)) for place in range(len(names))),
            took_ms=tuple(int(given.numbers.get(f"took_ms.{place}", 0)) for place in range(len(names))),
        )
        inputs = {name: given.artifacts[name] for name in names}
        return [ShardPlan(index=0, order_json=order.canonical_json(), inputs=inputs, work_units=0)]

    def check(self, phase: str, order_json: str, reported: Reported) -> Finding:
        sentence = "Votes are counted by the coordinator; no worker hands this in."
        return Finding(Why(code="check.for_the_executor", sentence=sentence))

    def compute(self, phase: str, order_json: str, context: Context) -> Computed:
        if phase != "join":
            raise InvalidInput("recipe.unknown_phase", f"Recipe 'consensus' has no phase {phase!r}.")
        from .phases.agreeing import join

        return join(ConsensusOrder.model_validate_json(order_json), context)

    def observe(self, seen: Observed) -> Observation:
        return Observation(measures=dict(seen.metrics[0]), numbers=wins_among(seen.metrics[0]))


def _check_blend(params: ConsensusParams, stage: str) -> None:
    """Raises the blend's complaint about contradictory weights, with the key that is to be changed."""
    try:
        Blend(people=params.weights.people, judge=params.weights.judge, conflict=params.conflict)
    except InvalidInput as error:
        why = error.why
        raise InvalidInput(
            why.code, why.sentence, next_step=why.next_step, **{**why.evidence, "stage": stage, "key": "params.weights"}
        ) from error
