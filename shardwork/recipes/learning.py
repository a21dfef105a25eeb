"""What every learning recipe shares: set-up, rounds of [learn, merge, evaluate, apply], publish.

Owns how a learning stage is cut into shards and how its light checks read. A kind (`pretrain`, `sft`) subclasses
`LearningRecipe` and says what its parameters mean. Pure; torch stays behind `Context.trainer`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..dataset.lengths import Layout, layout
from ..errors import Internal, InvalidInput
from ..ids import derive_seed
from ..jobs.spec import StageSpec, holds_out
from ..why import Why
from . import averaging
from .base import Computed, Context, Finding, PlanInput, Reported, RoundKind, ShardPlan, StageFacts, StageType
from .continuing import odd_metric
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

SCREEN_FROM_SHARDS = 4
MOST_EVAL_BATCH = 16
DELTA_FILES = frozenset({"delta.safetensors", "m.safetensors", "v.safetensors", "update.json"})
#: kinds of file that a published model and its samples may hold: nothing that runs
PUBLISHED = (".safetensors", ".json", ".jsonl", ".md", ".jinja", ".txt", ".model")
#: tokens that publishing reads and writes to see what was learned by heart: 32 rows of at most 96
PROBED_TOKENS = 3072
#: what it may report of that, of training rows and of held-out ones
MEMORY_METRICS = frozenset(
    f"memorised.{side}.{name}"
    for side in ("train", "held_out")
    for name in ("rows", "reproduced", "longest_run", "mean_run")
)
#: nats a token: a model that knows nothing is near ln(vocabulary), some 12 at most, and one that diverged, or a
#: candidate that overshot, may be far above
MOST_LOSS, WORST_LOSS = 100.0, 1e6

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
    # the means of A and B are not the mean of BA, and yet 4 shards recovered 93 % of data parallelism's gain so, on
    # shuffled rows and by topic; with A frozen, where the mean is exact, 74 %, and 79 % at twice the rate (as in
    # bench/recovery, one seed)
    gradient_checkpointing: Annotated[
        bool, Field(description="compute each block twice instead of keeping it: less memory, a third more arithmetic")
    ] = False
    allow_large: Annotated[
        bool, Field(description="train more than 1.5B parameters at once, which is refused otherwise")
    ] = False
    merge: Annotated[
        Literal["mean", "ffa"],
        Field(description="lora: 'mean' averages A and B each; 'ffa' freezes A, so that the mean of BA is exact"),
    ] = "mean"


class LearningRecipe:
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
        expected = {"init": {"checkpoint"}, "learn": {"delta"}, "evaluate": set[str](), "publish": {"model", "samples"}}
        if phase not in expected:
            return _refused("check.unknown_phase", f"No worker phase is called {phase!r}.")
        if set(reported.outputs) != expected[phase]:
            return _refused(
                "check.outputs",
                "The outputs are not the ones this phase makes.",
                expected=", ".join(sorted(expected[phase])) or "none",
                got=", ".join(sorted(reported.outputs)) or "none",
            )
        bad = [name for name, value in reported.metrics.items() if not math.isfinite(value)]
        if bad:
            return _refused("check.not_finite", "A metric is not a finite number.", metric=bad[0])
        if phase == "learn":
            return _check_learn(LearnOrder.model_validate_json(order_json), reported)
        if phase == "evaluate":
            return _check_evaluate(EvaluateOrder.model_validate_json(order_json), reported)
        return _check_memory(reported) if phase == "publish" else _check_files(phase, reported)

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


def base_id(given: PlanInput) -> str:
    """What an adapter names as its base: the job file's own words, or the job's stage when that is a machine's path."""
    named = given.stage.base_model or ""
    if named and not named.startswith(("/", ".", "~")) and "\\" not in named:
        return named
    tail = named.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    return tail or f"{given.job_name}-{given.stage.name}-base"


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


def _pick(given: PlanInput, *names: str) -> dict[str, str]:
    return {name: given.artifacts[name] for name in names if name in given.artifacts}


def _number(name: str) -> int:
    return int(name.rsplit("-", 1)[-1])


def _refused(code: str, sentence: str, **evidence: str) -> Finding:
    return Finding(Why(code=code, sentence=sentence, evidence=evidence))


def _check_learn(order: LearnOrder, reported: Reported) -> Finding:
    files, wanted = set(reported.output_files["delta"]), DELTA_FILES
    if wanted - files:
        return _refused("check.files", "The delta lacks files.", missing=", ".join(sorted(wanted - files)))
    if files - wanted:
        return _refused("check.files", "The delta holds files that are no part of it.", extra=min(files - wanted)[:80])
    for name in ("train_loss", "loss_first", "loss_last", "tokens"):
        if name not in reported.metrics:
            return _refused("check.metrics", "A metric of the learn phase is missing.", metric=name)
    for name, most_loss in (("train_loss", MOST_LOSS), ("loss_first", WORST_LOSS), ("loss_last", WORST_LOSS)):
        if not 0 <= reported.metrics[name] < most_loss:
            sentence = "The reported loss is not plausible."
            return _refused("check.loss_range", sentence, metric=name, loss=str(reported.metrics[name]))
    most = order.steps * order.batch_size * order.max_length
    if not 0 < reported.metrics["tokens"] <= most:
        return _refused(
            "check.tokens",
            "The reported tokens do not fit the order.",
            tokens=str(reported.metrics["tokens"]),
            most=str(most),
        )
    return Finding()


def _check_evaluate(order: EvaluateOrder, reported: Reported) -> Finding:
    wanted = {"before.test_loss"}
    for name in order.candidates:
        wanted |= {f"{name}.selection_loss", f"{name}.test_loss", f"{name}.test_se"}
    missing = wanted - set(reported.metrics)
    if missing:
        return _refused("check.metrics", "A metric of the evaluation is missing.", metric=sorted(missing)[0])
    extra = set(reported.metrics) - wanted
    if extra:
        return _refused("check.metrics", "The evaluation names a metric that was not asked for.", metric=min(extra))
    limits = {name: WORST_LOSS if name.endswith("_loss") else math.inf for name in sorted(wanted)}
    odd = [name for name, most in limits.items() if not 0 <= reported.metrics[name] <= most]
    if odd:
        sentence = "A loss is not plausible."
        return _refused("check.loss_range", sentence, metric=odd[0], loss=str(reported.metrics[odd[0]]))
    return Finding()


def _check_memory(reported: Reported) -> Finding:
    told = {name: value for name, value in reported.metrics.items() if name.startswith("memorised.")}
    odd = [name for name in sorted(told) if name not in MEMORY_METRICS or not 0 <= told[name] <= PROBED_TOKENS]
    odd += [
        f"memorised.{side}.reproduced"
        for side in ("train", "held_out")
        if told.get(f"memorised.{side}.reproduced", 0) > told.get(f"memorised.{side}.rows", 0)
    ]
    if odd:
        return _refused(
            "check.metrics", "What was learned by heart is told in numbers that cannot be.", metric=odd[0][:80]
        )
    return _check_files("publish", reported)


def _check_files(phase: str, reported: Reported) -> Finding:
    for name, files in sorted(reported.output_files.items()):
        bad = [path for path in sorted(files) if not path.endswith(PUBLISHED)]
        if bad:
            sentence = "An output holds a kind of file that is not allowed."
            return _refused("check.files", sentence, output=name, file=bad[0][:80])
    name = "checkpoint" if phase == "init" else "model"
    odd = odd_metric(reported) if phase == "init" else ""
    if odd:
        return _refused("check.metrics", "What is told of the checkpoint that it began with cannot be.", metric=odd)
    if not any(path.endswith(".safetensors") for path in reported.output_files[name]):
        return _refused("check.files", "An output holds no weights.", output=name)
    return Finding()
