"""Recipe `generate`: answers to prompts, drawn from one model or several, as a map stage.

split (executor) makes prompts into tokens, part by part; map answers each part, once for each model; audits check a
sample; join (executor) puts the words together: one row a prompt with all its answers. Which model gave which is kept
in the rows, and shown to nobody who judges them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...errors import InvalidInput
from ...jobs.spec import StageSpec, holds_out, model_input
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
from .orders import MOST_ROWS, AuditOrder, GenerateOrder, JoinAnswersOrder, PromptsOrder, Sampling

#: of rows that were drawn, whatever the model
DRAWN = frozenset({"rows", "tokens", "ended"})
Rows = Annotated[int, Field(ge=1, le=MOST_ROWS)]


class SamplingParams(BaseModel):
    """How answers are drawn, for every recipe that draws some."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: Annotated[float, Field(ge=0, le=100, description="0: always the likeliest token")] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1, description="draw from the smallest set with this probability")] = 1.0
    max_new_tokens: Annotated[int, Field(ge=1, le=65_536, description="tokens of an answer at most")] = 128


class GenerateParams(SamplingParams):
    """Parameters of `generate`."""

    answers: Annotated[int, Field(ge=1, le=64, description="answers to each prompt, from each model")] = 2
    max_length: Annotated[
        int, Field(ge=2, le=2**20, description="tokens of a prompt; longer ones lose their start")
    ] = 256
    batch_size: Annotated[Rows, Field(description="answers on the device at once")] = 32
    chat_template: Annotated[
        Literal["model", "chatml"], Field(description="'model': the base model's own; 'chatml': for one that has none")
    ] = "model"
    label: Annotated[
        str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="what the base model is called in votes")
    ] = "policy"
    precision: Annotated[Literal["fp32", "bf16"], Field(description="compute precision")] = "fp32"


class Generate:
    kind: ClassVar[str] = "generate"
    stage_type: ClassVar[StageType] = StageType.MAP
    Params: ClassVar[type[BaseModel]] = GenerateParams

    def freeze(self, stage: StageSpec, facts: StageFacts) -> StageSpec:
        if stage.base_model is None:
            raise InvalidInput(
                "generate.no_model",
                f"Stage {stage.name!r} names no model that answers.",
                next_step="Set base_model to a model folder, or to an earlier stage's `stage.model`.",
                stage=stage.name,
                key="base_model",
            )
        if holds_out(stage) or stage.continue_from is not None:
            raise InvalidInput(
                "generate.not_learning",
                f"Stage {stage.name!r} answers every prompt and learns nothing: it holds no rows out.",
                next_step="Remove eval_data, eval_fraction and continue_from.",
                stage=stage.name,
            )
        params = validate_params(GenerateParams, stage).model_dump(mode="json")
        if params["label"] in stage.models:
            raise InvalidInput(
                "generate.two_models_one_name",
                f"Two models of stage {stage.name!r} are called {params['label']!r}.",
                next_step="Give the base model another params.label.",
                stage=stage.name,
                key="params.label",
            )
        return stage.model_copy(update={"params": params})

    def makes(self, stage: StageSpec) -> Mapping[str, Content]:
        return {"rows": Content.ANSWERS}

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
        order = PromptsOrder(
            parts=given.stage.plan.shards_per_round,
            max_length=params["max_length"],
            chat_template=params["chat_template"],
            most_rows=MOST_ROWS // params["answers"],
        )
        inputs = {name: given.artifacts[name] for name in ("data", "base")}
        return ShardPlan(index=0, order_json=order.canonical_json(), inputs=inputs, work_units=0)

    def _map(self, given: PlanInput) -> list[ShardPlan]:
        """Every part for every model: shard model x parts + part."""
        params, facts, parts = given.stage.params, given.facts, _parts(given)
        shards: list[ShardPlan] = []
        for place, (_, base) in enumerate(_models(given)):
            for part in range(parts):
                prompts = int(given.numbers.get(f"prompts.{part}", max(1, -(-facts.rows // parts))))
                order = _drawn(params, prompts)
                tokens = order.rows * (params["max_length"] + params["max_new_tokens"])
                shards.append(
                    ShardPlan(
                        index=place * parts + part,
                        order_json=order.canonical_json(),
                        inputs={"base": given.artifacts[base], "prompts": given.artifacts[f"part-{part}"]},
                        work_units=tokens * facts.run_params,
                        memory_bytes=facts.run_params * 8,
                        tokens=tokens,
                    )
                )
        return shards

    def _join(self, given: PlanInput) -> ShardPlan:
        parts, models = _parts(given), _models(given)
        labels = tuple(label for label, _ in models)
        order = JoinAnswersOrder(models=labels, parts=parts, of=_drawn(given.stage.params, 1))
        names = [f"part-{part}" for part in range(parts)]
        names += [f"output-{number}" for number in range(parts * len(models))]
        inputs = {"base": given.artifacts["base"], **{name: given.artifacts[name] for name in names}}
        return ShardPlan(index=0, order_json=order.canonical_json(), inputs=inputs, work_units=0)

    def check(self, phase: str, order_json: str, reported: Reported) -> Finding:
        if phase == AUDIT_PHASE:
            return check_audit(AuditOrder.model_validate_json(order_json), reported)
        return check_claimed(GenerateOrder.model_validate_json(order_json), reported, "answers", DRAWN)

    def compute(self, phase: str, order_json: str, context: Context) -> Computed:
        match phase:
            case "map":
                return context.trainer.generate(GenerateOrder.model_validate_json(order_json), context)
            case "audit":
                return context.trainer.audit(AuditOrder.model_validate_json(order_json), context)
            case "split":
                from .phases.prompts import split

                return split(PromptsOrder.model_validate_json(order_json), context)
            case "join":
                from .phases.rows import join

                return join(JoinAnswersOrder.model_validate_json(order_json), context)
            case _:
                raise InvalidInput("recipe.unknown_phase", f"Recipe 'generate' has no phase {phase!r}.")

    def observe(self, seen: Observed) -> Observation:
        return Observation(measures=drawn(seen.metrics)) if seen.phase == "map" else Observation()

    def audit(self, phase: str, done: ShardPlan, seed: bytes, draw: bytes) -> ShardPlan | None:
        if phase != "map":
            return None
        return plan_audit(GenerateOrder.model_validate_json(done.order_json), done, seed, draw)

    def alike(self, phase: str, order_json: str, first: Mapping[str, float], late: Mapping[str, float]) -> bool:
        return alike(GenerateOrder.model_validate_json(order_json), first, late)

    def audited(self, order_json: str, claimed: Mapping[str, float], found: Mapping[str, float]) -> Finding:
        return judge_audit(AuditOrder.model_validate_json(order_json), claimed, found)


def _drawn(params: Mapping[str, Any], prompts: int) -> GenerateOrder:
    return GenerateOrder(
        tuning=None,
        first_prompt=0,
        prompts=prompts,
        answers=params["answers"],
        sampling=sampling_of(params),
        max_length=params["max_length"],
        batch_size=params["batch_size"],
        precision=Precision(params["precision"]),
    )


def sampling_of(params: Mapping[str, Any]) -> Sampling:
    return Sampling(temperature=params["temperature"], top_p=params["top_p"], max_new_tokens=params["max_new_tokens"])


def drawn(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean length of answers in tokens, and the share that ended by themselves."""
    rows = sum(one.get("rows", 0.0) for one in metrics)
    if not rows:
        return {}
    return {
        "length": sum(one["tokens"] for one in metrics) / rows,
        "ended": sum(one["ended"] for one in metrics) / rows,
    }


def _parts(given: PlanInput) -> int:
    """Parts that the split made; before that, as many as it will make."""
    most = MOST_ROWS // given.stage.params["answers"]
    asked = max(given.stage.plan.shards_per_round, -(-given.facts.rows // most))
    return int(given.numbers.get("parts", min(asked, max(given.facts.rows, 1))))


def _models(given: PlanInput) -> list[tuple[str, str]]:
    """(label, input) of each model that answers."""
    return [(given.stage.params["label"], "base"), *((name, model_input(name)) for name in sorted(given.stage.models))]
