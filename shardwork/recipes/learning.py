"""What every learning recipe shares: set-up, rounds of [learn, merge, evaluate, apply], publish.

Owns how a learning stage is cut into shards. What a job may set is `params`, the light checks are `checks`. A kind
(`pretrain`, `sft`) subclasses `LearningRecipe` and says what its parameters mean. Pure; torch stays behind
`Context.trainer`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel

from ..dataset.lengths import Layout, layout
from ..errors import Internal, InvalidInput
from ..ids import derive_seed
from ..jobs.spec import StageSpec, holds_out
from . import averaging, checks
from .base import (
    Computed,
    Content,
    Context,
    Finding,
    PlanInput,
    Reported,
    RoundKind,
    ShardPlan,
    StageFacts,
    StageType,
    Unaudited,
)
from .checks import PROBED_TOKENS
from .method import check_full
from .orders import (
    ApplyOrder,
    EvaluateOrder,
    InitOrder,
    LearnOrder,
    MergeOrder,
    Optimizer,
    Precision,
    PrepareOrder,
    PublishOrder,
    Schedule,
    Tuning,
)
from .params import validate_params

SCREEN_FROM_SHARDS = 4
MOST_EVAL_BATCH = 16


class LearningRecipe(Unaudited):
    """Base of the learning kinds. Stateless."""

    kind: ClassVar[str]
    stage_type: ClassVar[StageType] = StageType.ROUNDS
    Params: ClassVar[type[BaseModel]]

    # ---- what a kind says -------------------------------------------------------------------------------------

    def tuning(self, params: Mapping[str, Any], seed: str = "") -> Tuning:
        """What learns. `seed`: hex, for what is drawn once for the whole stage and never learns."""
        raise Internal("recipe.incomplete", "A learning recipe must say what it tunes.", recipe=self.kind)

    def auto_rate(self, params: Mapping[str, Any], facts: StageFacts) -> float:
        """4e-3 at 1M parameters, falling so that published sizes get their rates within a third (Brown et al., arXiv
        2005.14165, table 2.1: 6e-4 at 125M, 1.2e-4 at 6.7B). tiny-1m after 150 steps of 16 x 64 tokens reached 5.01 at
        2e-3, 4.72 at 4e-3 and 4.65 at 8e-3."""
        return float(4e-3 * (max(facts.run_params, 1_000_000) / 1e6) ** -0.4)

    def auto_batch(self, stage: StageSpec, length: int, facts: StageFacts) -> int:
        """Rows a step of one shard: all shards of a round together take 32k tokens a step at 1M parameters, growing
        with the root of the size (Brown et al., table 2.1: 0.5M tokens at 125M, 1M at 1.3B)."""
        tokens = 32_768 * math.sqrt(max(facts.run_params, 1_000_000) / 1e6)
        return min(max(round(tokens / (length * stage.plan.shards_per_round)), 1), 512)

    def chosen(self, stage: StageSpec, facts: StageFacts) -> tuple[tuple[str, str, str], ...]:
        """(key, value, why) of each parameter that was left to us, as `freeze` sets it."""
        asked, params = validate_params(self.Params, stage).model_dump(mode="json"), self.freeze(stage, facts).params
        size = f"{facts.run_params:,} parameters"
        rounds = self._averaged(stage)
        shards, steps = stage.plan.shards_per_round, stage.plan.rounds * stage.plan.inner_steps
        many = f"{shards} shard{'s' if shards != 1 else ''} of rows of {params['max_length']}"
        reasons = {
            "learning_rate": f"for {params.get('method', 'full')} learning of {size}{rounds.words}",
            "final_rate": "averaging takes out noise" if shards > 1 else "the noise of one shard has to settle",
            "beta2": "averages of shards vary less" if shards > 1 else "the usual",
            "warmup_steps": f"{rounds.warmup:.0%} of {steps} steps".replace("%", " %"),
            "batch_size": f"for {size} and {many}",
            "max_length": "the default, or the model's limit where that is less",
            "weight_decay": "none for an adapter, 0.1 for weights at one machine's rate",
        }
        return tuple((key, f"{params[key]:g}", why) for key, why in reasons.items() if asked[key] == "auto")

    def from_scratch(self, stage: StageSpec) -> bool:
        return stage.base_model is None

    def _averaged(self, stage: StageSpec) -> averaging.Tuned:
        plan = stage.plan
        return averaging.tuned(plan.shards_per_round, plan.inner_steps, from_scratch=self.from_scratch(stage))

    # ---- planning ---------------------------------------------------------------------------------------------

    def freeze(self, stage: StageSpec, facts: StageFacts) -> StageSpec:
        params = validate_params(self.Params, stage).model_dump(mode="json")
        steps = stage.plan.rounds * stage.plan.inner_steps
        check_full(stage, params, facts)
        if params["merge"] != "mean" and params.get("method", "full") != "lora":
            raise InvalidInput(
                "merge.needs_lora",
                f"Stage {stage.name!r} learns no adapter, so its A cannot be frozen.",
                next_step="Use merge: mean.",
                stage=stage.name,
                key="params.merge",
            )
        if params["patience"] is not None and not holds_out(stage):
            raise InvalidInput(
                "patience.needs_eval",
                f"Stage {stage.name!r} holds no rows out, so nobody can say when it stops improving.",
                next_step="Set eval_fraction or eval_data, or leave patience out.",
                stage=stage.name,
                key="params.patience",
            )
        _check_warmup(stage, params["warmup_steps"], steps)
        rounds = self._averaged(stage)
        if params["learning_rate"] == "auto":
            params["learning_rate"] = float(f"{self.auto_rate(params, facts) * rounds.gain:.3g}")
        if params["final_rate"] == "auto":
            params["final_rate"] = rounds.final_rate
        if params["beta2"] == "auto":
            params["beta2"] = rounds.beta2
        if params["warmup_steps"] == "auto":
            params["warmup_steps"] = math.ceil(steps * rounds.warmup)
        if params["max_length"] == "auto":
            params["max_length"] = 256
        if params["packing"] == "auto":
            params["packing"] = self.kind == "pretrain"
        if params["batch_size"] == "auto":
            params["batch_size"] = self.auto_batch(stage, params["max_length"], facts)
        if params["micro_batch_size"] == "auto":
            params["micro_batch_size"] = params["batch_size"]
        if params["weight_decay"] == "auto":
            params["weight_decay"] = 0.0 if params.get("method") == "lora" else float(f"{0.1 / rounds.gain:.3g}")
        return stage.model_copy(update={"params": params})

    def makes(self, stage: StageSpec) -> Mapping[str, Content]:
        return {"model": self.published(stage.params), "checkpoint": Content.CHECKPOINT}

    def published(self, params: Mapping[str, Any]) -> Content:
        """What its model is; of params as they are written, frozen or not."""
        return Content.MODEL

    def learn_rounds(self, stage: StageSpec) -> int:
        return stage.plan.rounds

    def phases(self, kind: RoundKind, artifacts: Mapping[str, str]) -> tuple[str, ...]:
        match kind:
            case RoundKind.SETUP:
                return ("prepare", "init")
            case RoundKind.PUBLISH:
                return ("publish",)
            case _:
                evaluate = ("evaluate",) if "eval" in artifacts else ()
                return ("learn", "merge", *evaluate, "apply")

    def plan(self, given: PlanInput) -> Sequence[ShardPlan]:
        planners = {
            "prepare": self._plan_prepare,
            "init": self._plan_init,
            "learn": self._plan_learn,
            "merge": self._plan_merge,
            "evaluate": self._plan_evaluate,
            "apply": self._plan_apply,
            "publish": self._plan_publish,
        }
        return planners[given.phase](given)

    def candidates(self, stage: StageSpec, artifacts: Mapping[str, str], number: int) -> tuple[str, ...]:
        """Outer steps worth computing in round `number`: one shard a round is exact with rate 1, and without held-out
        rows none can be chosen by measurement."""
        if stage.plan.shards_per_round == 1:
            return ("mean",)
        outer = stage.params["outer"]
        if outer == "auto":
            return averaging.candidates(number, stage.plan.rounds) if "eval" in artifacts else ("mean",)
        return (outer,)

    def _tuning(self, given: PlanInput) -> Tuning:
        drawn = self.tuning(given.stage.params, derive_seed(given.job_id, given.stage.name, "adapter").hex())
        if drawn.frozen_a_seed and given.stage.continue_from is not None:
            return drawn.model_copy(update={"carried_a": True})
        return drawn

    def _plan_prepare(self, given: PlanInput) -> Sequence[ShardPlan]:
        params, stage = given.stage.params, given.stage
        order = PrepareOrder(
            recipe=self.kind,
            max_length=params["max_length"],
            eval_fraction=stage.eval_fraction,
            seed=derive_seed(given.job_id, stage.name, "rows").hex(),
            preset=params.get("preset") if stage.base_model is None else None,
            vocab_size=params.get("vocab_size") if stage.base_model is None else None,
            train_on_prompt=params.get("train_on_prompt", False),
            chat_template=params.get("chat_template", "model"),
            packing=params["packing"],
            overlong=params["overlong"],
            weights=stage.weights,
            tuning=self._tuning(given),
        )
        # a model from scratch that goes on keeps the tokenizer whose ids its weights know
        inputs = _pick(given, "data", "eval_data", *(("parent",) if self.from_scratch(stage) else ("base",)))
        return [ShardPlan(index=0, order_json=order.canonical_json(), inputs=inputs, work_units=0)]

    def _plan_init(self, given: PlanInput) -> Sequence[ShardPlan]:
        tuning, from_scratch = self._tuning(given), self.from_scratch(given.stage)
        order = InitOrder(
            tuning=tuning,
            from_scratch=from_scratch,
            continues=given.stage.continue_from is not None,
            carries=from_scratch or bool(tuning.frozen_a_seed),
        )
        return [
            ShardPlan(
                index=0,
                order_json=order.canonical_json(),
                inputs=_pick(given, "base", "parent"),
                work_units=given.facts.run_params + given.facts.trained_params,
                memory_bytes=given.facts.run_params * 8,
            )
        ]

    def _plan_learn(self, given: PlanInput) -> Sequence[ShardPlan]:
        stage, params, facts = given.stage, given.stage.params, given.facts
        plan = stage.plan
        rows_per_shard = plan.inner_steps * params["batch_size"]
        tokens = rows_per_shard * params["max_length"]
        inputs = _pick(given, "base", "checkpoint", "train", "parent_checkpoint", "step", "moments")
        shards: list[ShardPlan] = []
        for index in range(plan.shards_per_round):
            order = LearnOrder(
                tuning=self._tuning(given),
                from_scratch=self.from_scratch(stage),
                schedule=Schedule(
                    kind=params["schedule"],
                    learning_rate=params["learning_rate"],
                    warmup_steps=params["warmup_steps"],
                    total_steps=plan.rounds * plan.inner_steps,
                    # a job frozen by an earlier version has none
                    min_ratio=params.get("final_rate", averaging.ALONE.final_rate),
                ),
                optimizer=Optimizer(
                    beta1=params["beta1"],
                    beta2=params["beta2"],
                    weight_decay=params["weight_decay"],
                    clip_norm=params["clip_norm"],
                ),
                start_step=(given.round_number - 1) * plan.inner_steps,
                steps=plan.inner_steps,
                first_row=((given.round_number - 1) * plan.shards_per_round + index) * rows_per_shard,
                batch_size=params["batch_size"],
                micro_batch_size=min(params["micro_batch_size"], params["batch_size"]),
                max_length=params["max_length"],
                encoding=params["encoding"],
                precision=Precision(params["precision"]),
                gradient_checkpointing=params["gradient_checkpointing"],
                packed=layout(params["packing"], self.kind) is Layout.PACKED,
            )
            shards.append(
                ShardPlan(
                    index=index,
                    order_json=order.canonical_json(),
                    inputs=inputs,
                    work_units=tokens * (2 * facts.run_params + facts.trained_params),
                    memory_bytes=facts.run_params * 4 + facts.trained_params * 16,
                    tokens=tokens,
                )
            )
        return shards

    def _plan_merge(self, given: PlanInput) -> Sequence[ShardPlan]:
        deltas = sorted((name for name in given.artifacts if name.startswith("delta-")), key=_number)
        tokens = given.stage.plan.inner_steps * given.stage.params["batch_size"] * given.stage.params["max_length"]
        usual = "screened_mean" if len(deltas) >= SCREEN_FROM_SHARDS else "mean"
        order = MergeOrder(
            rule=usual if given.aggregate == "auto" else given.aggregate,
            steps=given.stage.plan.inner_steps,
            weights=tuple(tokens for _ in deltas),
            candidates=self.candidates(given.stage, given.artifacts, given.round_number),
            encoding=given.stage.params["encoding"],
        )
        inputs = {**_pick(given, "checkpoint", "outer"), **{name: given.artifacts[name] for name in deltas}}
        return [ShardPlan(index=0, order_json=order.canonical_json(), inputs=inputs, work_units=0)]

    def _plan_evaluate(self, given: PlanInput) -> Sequence[ShardPlan]:
        candidates = self.candidates(given.stage, given.artifacts, given.round_number)
        order = EvaluateOrder(
            tuning=self._tuning(given),
            from_scratch=self.from_scratch(given.stage),
            candidates=candidates,
            max_length=given.stage.params["max_length"],
            batch_size=min(MOST_EVAL_BATCH, *(given.stage.params[key] for key in ("batch_size", "micro_batch_size"))),
            precision=Precision(given.stage.params["precision"]),
        )
        steps = {f"step-{name}": given.artifacts[f"step-{name}"] for name in candidates}
        rows = int(given.numbers.get("eval_rows", 0))
        tokens = max(rows, 1) * given.stage.params["max_length"]
        return [
            ShardPlan(
                index=0,
                order_json=order.canonical_json(),
                inputs={**_pick(given, "base", "checkpoint", "eval"), **steps},
                work_units=tokens * given.facts.run_params * (len(candidates) + 1),
                memory_bytes=given.facts.run_params * 8,
                tokens=tokens,
            )
        ]

    def _plan_apply(self, given: PlanInput) -> Sequence[ShardPlan]:
        order = ApplyOrder(steps=given.stage.plan.inner_steps, encoding=given.stage.params["encoding"])
        inputs = {
            "checkpoint": given.artifacts["checkpoint"],
            "step": given.artifacts["chosen_step"],
            "moments": given.artifacts["new_moments"],
        }
        return [ShardPlan(index=0, order_json=order.canonical_json(), inputs=inputs, work_units=0)]

    def _plan_publish(self, given: PlanInput) -> Sequence[ShardPlan]:
        order = PublishOrder(
            tuning=self._tuning(given),
            from_scratch=self.from_scratch(given.stage),
            job_id=given.job_id,
            job_name=given.job_name,
            stage=given.stage.name,
            recipe=self.kind,
            base_id=base_id(given),
            card=tuple(given.card),
            chat_template=given.stage.params.get("chat_template", "model"),
        )
        checkpoint = given.artifacts.get("best_checkpoint", given.artifacts["checkpoint"])
        return [
            ShardPlan(
                index=0,
                order_json=order.canonical_json(),
                inputs={**_pick(given, "base", "probe"), "checkpoint": checkpoint},
                # loading, sampling, and going on from some rows to see what was learned by heart
                work_units=given.facts.run_params * (64 + PROBED_TOKENS),
                memory_bytes=given.facts.run_params * 12,
            )
        ]

    # ---- checking and computing -------------------------------------------------------------------------------

    def check(self, phase: str, order_json: str, reported: Reported) -> Finding:
        return checks.check(phase, order_json, reported)

    def compute(self, phase: str, order_json: str, context: Context) -> Computed:
        match phase:
            case "init":
                return context.trainer.init(InitOrder.model_validate_json(order_json), context)
            case "learn":
                return context.trainer.learn(LearnOrder.model_validate_json(order_json), context)
            case "evaluate":
                return context.trainer.evaluate(EvaluateOrder.model_validate_json(order_json), context)
            case "publish":
                return context.trainer.publish(PublishOrder.model_validate_json(order_json), context)
            case _:
                raise InvalidInput("recipe.unknown_phase", f"Recipe {self.kind!r} has no phase {phase!r}.")


def _check_warmup(stage: StageSpec, warmup: int | str, steps: int) -> None:
    """A rate that is never reached is a mistake, and one that nobody would see."""
    if isinstance(warmup, int) and warmup > steps:
        raise InvalidInput(
            "warmup.too_long",
            f"Stage {stage.name!r} warms up for {warmup:,} steps and takes {steps:,}: its rate would never be reached.",
            next_step="Use warmup_steps: auto, or fewer.",
            stage=stage.name,
            key="params.warmup_steps",
        )


def base_id(given: PlanInput) -> str:
    """What an adapter names as its base: the job file's own words, or the job's stage when that is a machine's path."""
    named = given.stage.base_model or ""
    if named and not named.startswith(("/", ".", "~")) and "\\" not in named:
        return named
    tail = named.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    return tail or f"{given.job_name}-{given.stage.name}-base"


def _pick(given: PlanInput, *names: str) -> dict[str, str]:
    return {name: given.artifacts[name] for name in names if name in given.artifacts}


def _number(name: str) -> int:
    return int(name.rsplit("-", 1)[-1])
