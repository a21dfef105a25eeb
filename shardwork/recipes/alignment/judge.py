"""Recipe `judge`: a model says which of two answers is better, as a map stage (RLAIF).

split (executor) draws pairs and writes what the judge reads, each pair in both orders; map asks the judge for the
probability of one token and of nothing else; audits check a sample; join (executor) makes votes of it, and preferences
where both orders agree. What the judge might say is never read: answers can't talk to whoever reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...errors import InvalidInput
from ...ids import derive_seed
from ...jobs.spec import StageSpec, holds_out
from ..base import (
    AUDIT_PHASE,
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
)
from ..orders import Precision
from ..params import validate_params
from .auditing import alike, check_audit, check_claimed, judge_audit, plan_audit
from .guards.alarms import of_verdicts
from .guards.wins import wins_among
from .orders import AuditOrder, JudgeOrder, JudgePairsOrder, JudgeVerdictsOrder

#: pairs of one shard: each names two numbers among its metrics
MOST_PAIRS = 400


class JudgeParams(BaseModel):
    """Parameters of `judge`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rubric: Annotated[str, Field(max_length=8000, description="what 'better' means; left out: our own words")] = ""
    principles: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=2000)]],
        Field(max_length=50, description="rules that the better answer keeps, one by one"),
    ] = []
    pairs_per_prompt: Annotated[int, Field(ge=1, le=64, description="comparisons drawn from a prompt's answers")] = 1
    max_length: Annotated[int, Field(ge=64, le=2**20, description="tokens of what it reads of a pair")] = 1024
    batch_size: Annotated[int, Field(ge=1, le=MOST_PAIRS, description="pairs on the device at once")] = 8
    length_controlled: Annotated[bool, Field(description="leave out what length alone explains")] = True
    leave_out_appeals: Annotated[
        bool, Field(description="don't ask about pairs of which an answer speaks to the judge")
    ] = True
    least_confidence: Annotated[float, Field(ge=0.5, lt=1, description="preferences are at least so sure")] = 0.5
    chat_template: Annotated[
        Literal["model", "chatml"], Field(description="'model': the judge's own; 'chatml': for one that has none")
    ] = "model"
    label: Annotated[
        str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="what the judge is called in votes")
    ] = "judge"
    judges_itself: Annotated[bool, Field(description="the judge may have made some of the answers")] = False
    precision: Annotated[Literal["fp32", "bf16"], Field(description="compute precision")] = "fp32"


class Judge:
    kind: ClassVar[str] = "judge"
    stage_type: ClassVar[StageType] = StageType.MAP
    Params: ClassVar[type[BaseModel]] = JudgeParams

    def freeze(self, stage: StageSpec, facts: StageFacts) -> StageSpec:
        if stage.base_model is None:
            raise InvalidInput(
                "judge.no_model",
                f"Stage {stage.name!r} names no model that judges.",
                next_step="Set base_model to a model folder; people judge in a stage of recipe people.",
                stage=stage.name,
                key="base_model",
            )
        if holds_out(stage) or stage.continue_from is not None or stage.models:
            raise InvalidInput(
                "judge.not_learning",
                f"Stage {stage.name!r} judges every pair with one model and learns nothing.",
                next_step="Remove eval_data, eval_fraction, continue_from and models.",
                stage=stage.name,
            )
        return stage.model_copy(update={"params": validate_params(JudgeParams, stage).model_dump(mode="json")})

    def makes(self, stage: StageSpec) -> Mapping[str, Content]:
        return {"rows": Content.PREFERENCES, "votes": Content.VOTES}

    def reads(self, stage: StageSpec) -> frozenset[Content]:
        return frozenset({Content.ANSWERS})

    def learn_rounds(self, stage: StageSpec) -> int:
        return 1

    def phases(self, kind: RoundKind, artifacts: Mapping[str, str]) -> tuple[str, ...]:
        return ("split",) if kind is RoundKind.SETUP else ("map", "join")

    def plan(self, given: PlanInput) -> Sequence[ShardPlan]:
        if given.phase == "split":
            return [self._split(given)]
        return [self._join(given)] if given.phase == "join" else self._map(given)

    def _split(self, given: PlanInput) -> ShardPlan:
        params = given.stage.params
        order = JudgePairsOrder(
            parts=given.stage.plan.shards_per_round,
            max_length=params["max_length"],
            seed=derive_seed(given.job_id, given.stage.name, "pairs").hex(),
            pairs_per_prompt=params["pairs_per_prompt"],
            rubric=params["rubric"],
            principles=tuple(params["principles"]),
            chat_template=params["chat_template"],
            # a stage that was frozen before it was known asks as it was quoted
            leave_out_appeals=params.get("leave_out_appeals", False),
            most_pairs=MOST_PAIRS,
        )
        inputs = {name: given.artifacts[name] for name in ("data", "base")}
        return ShardPlan(index=0, order_json=order.canonical_json(), inputs=inputs, work_units=0)

    def _map(self, given: PlanInput) -> list[ShardPlan]:
        params, facts, parts = given.stage.params, given.facts, _parts(given)
        shards: list[ShardPlan] = []
        for part in range(parts):
            pairs = int(given.numbers.get(f"pairs.{part}", max(1, -(-_pairs(given) // parts))))
            order = JudgeOrder(
                pairs=pairs,
                max_length=params["max_length"],
                batch_size=params["batch_size"],
                precision=Precision(params["precision"]),
            )
            tokens = 2 * pairs * params["max_length"]
            shards.append(
                ShardPlan(
                    index=part,
                    order_json=order.canonical_json(),
                    inputs={"base": given.artifacts["base"], "pairs": given.artifacts[f"part-{part}"]},
                    work_units=tokens * facts.run_params,
                    memory_bytes=facts.run_params * 8,
                    tokens=tokens,
                )
            )
        return shards

    def _join(self, given: PlanInput) -> ShardPlan:
        parts, params = _parts(given), given.stage.params
        order = JudgeVerdictsOrder(
            parts=parts,
            judge=params["label"],
            job_id=given.job_id,
            length_controlled=params["length_controlled"],
            least_confidence=params["least_confidence"],
        )
        names = [f"{name}-{part}" for name in ("part", "output") for part in range(parts)]
        inputs = {name: given.artifacts[name] for name in names}
        return ShardPlan(index=0, order_json=order.canonical_json(), inputs=inputs, work_units=0)

    def check(self, phase: str, order_json: str, reported: Reported) -> Finding:
        if phase == AUDIT_PHASE:
            return check_audit(AuditOrder.model_validate_json(order_json), reported)
        return check_claimed(JudgeOrder.model_validate_json(order_json), reported, "verdicts", frozenset({"tokens"}))

    def compute(self, phase: str, order_json: str, context: Context) -> Computed:
        match phase:
            case "map":
                return context.trainer.judge(JudgeOrder.model_validate_json(order_json), context)
            case "audit":
                return context.trainer.audit(AuditOrder.model_validate_json(order_json), context)
            case "split":
                from .phases.judging import split

                return split(JudgePairsOrder.model_validate_json(order_json), context)
            case "join":
                from .phases.verdicts import join

                return join(JudgeVerdictsOrder.model_validate_json(order_json), context)
            case _:
                raise InvalidInput("recipe.unknown_phase", f"Recipe 'judge' has no phase {phase!r}.")

    def observe(self, seen: Observed) -> Observation:
        """How often its two orders agree, and how often the answer that stood first won: told after `join`."""
        if seen.phase != "join":
            return Observation()
        shown = ("pairs", "rows", "flipped", "first_share", "confidence")
        wins = wins_among(seen.metrics[0])
        measures = {name: seen.metrics[0][name] for name in shown if name in seen.metrics[0]}
        return Observation(measures=measures | wins, numbers=wins, alarms=tuple(of_verdicts(seen, seen.metrics[0])))

    def audit(self, phase: str, done: ShardPlan, seed: bytes, draw: bytes) -> ShardPlan | None:
        return plan_audit(JudgeOrder.model_validate_json(done.order_json), done, seed, draw) if phase == "map" else None

    def audited(self, order_json: str, claimed: Mapping[str, float], found: Mapping[str, float]) -> Finding:
        return judge_audit(AuditOrder.model_validate_json(order_json), claimed, found)

    def alike(self, phase: str, order_json: str, first: Mapping[str, float], late: Mapping[str, float]) -> bool:
        return alike(JudgeOrder.model_validate_json(order_json), first, late)


def _pairs(given: PlanInput) -> int:
    return max(given.facts.rows, 1) * int(given.stage.params["pairs_per_prompt"])


def _parts(given: PlanInput) -> int:
    """Parts that the split made; before that, as many as it will make."""
    asked = max(given.stage.plan.shards_per_round, -(-_pairs(given) // MOST_PAIRS))
    return int(given.numbers.get("parts", min(asked, _pairs(given))))
