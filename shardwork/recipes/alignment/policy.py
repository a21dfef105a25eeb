"""Policy: what `ppo` and `grpo` share: a policy learns from its own answers, scored.

A round is [rollout, score or grade, learn, merge, apply]. Rollouts are drawn from the checkpoint that the round begins
with, which every shard of it names: nothing is learned from an older policy. They are audited; a learn shard computes
their log-probabilities again all the same and leaves out what was not drawn from that checkpoint. Held-out prompts are
answered and scored each round as well, and once more at the end; the best checkpoint by held-out reward is published.
Owns the plan of a round and what its numbers mean; advantages and losses are the worker's. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from ...errors import InvalidInput
from ...jobs.spec import StageSpec, model_input
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
)
from ..objectives import LearnObjective, PolicyObjective
from ..orders import LearnOrder, Precision
from .auditing import alike, check_audit, check_claimed, judge_audit, plan_audit
from .generate import DRAWN, sampling_of
from .guards.safety import observe_safety
from .orders import MOST_ROWS, AuditOrder, GenerateOrder, GradeOrder, ScoreOrder
from .policy_numbers import observe_drawn, observe_learn, observe_reward
from .policy_params import REWARD
from .rewards import Rewards
from .tuned import Tuned

#: held-out prompts that are answered each round, at most
MOST_TRIALS = 128
#: answers to them, where there are prompts enough or each is answered several times: of 24 answers the luckiest
#: checkpoint is published, not the best (the standard error of a share is 0.1)
LEAST_ANSWERS = 96
#: nats a token, in the mean over an answer, by which log-probabilities may differ when they are computed again. Honest
#: ones differed by 1e-6 in fp32 on one machine; of 576 answers in other words with an honest answer's numbers 88 % lay
#: beyond 0.05, 96 % beyond 0.01 and 99 % beyond 0.005 (bench/alignment.py, seeds 10 to 12). An answer that looks as
#: likely as what was drawn passes any bound: the audit of its draws is what refuses it
DRIFT: Mapping[Precision, float] = {Precision.FP32: 0.005, Precision.BF16: 0.05}


class Policy(Tuned):
    """Base of the kinds that learn from rollouts. Stateless."""

    kind: ClassVar[str]
    #: at 0.4M parameters, 8 rounds of 8 steps, share of held-out prompts answered as rewarded (from 0.24; seeds 0 to
    #: 2, each figure of one): grpo full 0.31 at 0.05, 0.82 at 0.5, 0.94 at 1; 4 shards 0.90 at 0.25, 0.98 at 0.5; lora
    #: 0.55 at 0.1, 0.88 at 0.3, 0.85 at 1. ppo bears less: 4 shards 0.89 at 0.3 and 0.79 at 0.5; at 1 it left its
    #: reference by 13 nats an answer in the first round (bench/alignment.py)
    RATE: ClassVar[float] = 0.4
    LARGE_RATE: ClassVar[float] = 0.05

    def freeze(self, stage: StageSpec, facts: StageFacts) -> StageSpec:
        frozen = super().freeze(stage, facts)
        params = frozen.params
        if unknown := sorted(set(stage.models) - {REWARD}):
            raise InvalidInput(
                "policy.unknown_model",
                f"Stage {stage.name!r} has no use for a model called {unknown[0]!r}.",
                next_step=f"Name the reward model models: {{{REWARD}: ...}}, and remove the others.",
                stage=stage.name,
                key=f"models.{unknown[0]}",
            )
        if (REWARD in stage.models) == bool(params["rewards"]):
            raise InvalidInput(
                "policy.one_reward",
                f"Stage {stage.name!r} needs either a reward model or rewards that can be verified.",
                next_step="Set models: {reward: STAGE.model}, or params.rewards such as {exact: 1.0}; not both.",
                stage=stage.name,
                key="params.rewards",
            )
        Rewards.read(params["rewards"].items(), params["reward_settings"])
        target, budget = params["kl_target"], params["kl_budget"]
        if target is not None and budget is not None and target >= budget:
            raise InvalidInput(
                "policy.kl_contradiction",
                f"Stage {stage.name!r} would lead the policy {target:g} nats away, and end beyond {budget:g}.",
                next_step="Set params.kl_target below params.kl_budget, or leave one of them out.",
                stage=stage.name,
                key="params.kl_target",
            )
        rows = params["prompts_per_shard"] * params["answers"]
        if rows > MOST_ROWS or params["batch_size"] > rows:
            raise InvalidInput(
                "policy.batch",
                f"Stage {stage.name!r} draws {rows} answers a shard and learns {params['batch_size']} a step.",
                next_step=f"Let prompts_per_shard x answers be {params['batch_size']} to {MOST_ROWS}.",
                stage=stage.name,
                key="params.prompts_per_shard",
            )
        return frozen

    def reads(self, stage: StageSpec) -> frozenset[Content]:
        return frozenset({Content.ANSWERS})

    def phases(self, kind: RoundKind, artifacts: Mapping[str, str]) -> tuple[str, ...]:
        scored = "score" if model_input(REWARD) in artifacts else "grade"
        match kind:
            case RoundKind.SETUP:
                return ("prepare", "init")
            case RoundKind.PUBLISH:
                return ("rollout", scored, "publish")
            case _:
                return ("rollout", scored, "learn", "merge", "apply")

    def plan(self, given: PlanInput) -> Sequence[ShardPlan]:
        planners = {"rollout": self._plan_rollout, "score": self._plan_score, "grade": self._plan_grade}
        return planners[given.phase](given) if given.phase in planners else super().plan(given)

    def candidates(self, stage: StageSpec, artifacts: Mapping[str, str], number: int) -> tuple[str, ...]:
        """Held-out prompts have no loss to choose by: the mean, or what the job says."""
        outer = stage.params["outer"]
        return ("mean",) if outer == "auto" or stage.plan.shards_per_round == 1 else (outer,)

    def sampled(self) -> dict[str, Any]:
        return {"sample_prompts": ()}

    def asked(self, given: PlanInput) -> dict[str, str]:
        """Held-out prompts where there are any: what the policy writes is seen beside what its base wrote."""
        name = "eval" if "eval" in given.artifacts else "train"
        return {name: given.artifacts[name]}

    def prepared(self, params: Mapping[str, Any]) -> dict[str, Any]:
        needed = Rewards.read(params["rewards"].items(), params["reward_settings"]).needs()
        return {"rows_are": "prompts", "row_keys": needed}

    # ---- rollouts -----------------------------------------------------------------------------------------------

    def _orders(self, given: PlanInput) -> dict[int, GenerateOrder]:
        """Rollouts of this round by number: the shards' own, and last the trial of held-out prompts. A round that
        publishes only measures: the trial, or where nothing is held out the prompts of the first round."""
        stage, params = given.stage, given.stage.params
        shards, per_shard = stage.plan.shards_per_round, params["prompts_per_shard"]
        measures = given.round_number > stage.plan.rounds or given.round_number > given.numbers.get(
            "last_round", math.inf
        )
        trial = "eval" in given.artifacts
        round_number = 1 if measures else given.round_number
        orders: dict[int, GenerateOrder] = {}
        if not (measures and trial):
            for index in range(shards):
                first = ((round_number - 1) * shards + index) * per_shard
                orders[index] = self._rollout(given, first, per_shard, params["answers"])
        if trial:
            held_out = max(1, min(int(given.numbers.get("eval_rows", MOST_TRIALS)), MOST_TRIALS))
            orders[shards] = self._rollout(given, 0, held_out, max(1, LEAST_ANSWERS // held_out))
        return orders

    def _rollout(self, given: PlanInput, first: int, prompts: int, answers: int) -> GenerateOrder:
        params = given.stage.params
        return GenerateOrder(
            tuning=self._tuning(given),
            first_prompt=first,
            prompts=prompts,
            answers=answers,
            sampling=sampling_of(params),
            max_length=params["max_length"],
            batch_size=params["rollout_batch_size"],
            precision=Precision(params["precision"]),
        )

    def _prompts(self, given: PlanInput, number: int) -> str:
        """The artifact whose prompts rollout `number` answers."""
        return given.artifacts["eval" if number == given.stage.plan.shards_per_round else "train"]

    def _plan_rollout(self, given: PlanInput) -> list[ShardPlan]:
        names = ("base", "checkpoint", "parent_checkpoint", "step", "moments")
        inputs = {name: given.artifacts[name] for name in names if name in given.artifacts}
        return [
            self._rows_shard(
                given, number, order, order.canonical_json(), {**inputs, "prompts": self._prompts(given, number)}
            )
            for number, order in self._orders(given).items()
        ]

    def _plan_score(self, given: PlanInput) -> list[ShardPlan]:
        shards: list[ShardPlan] = []
        for number, of in self._orders(given).items():
            order = ScoreOrder(
                of=of,
                max_length=of.max_length + of.sampling.max_new_tokens,
                batch_size=of.batch_size,
                precision=of.precision,
            )
            inputs = {
                "base": given.artifacts[model_input(REWARD)],
                "prompts": self._prompts(given, number),
                "answers": given.artifacts[f"answers-{number}"],
            }
            shards.append(self._rows_shard(given, number, of, order.canonical_json(), inputs))
        return shards

    def _rows_shard(
        self, given: PlanInput, number: int, of: GenerateOrder, order_json: str, inputs: Mapping[str, str]
    ) -> ShardPlan:
        tokens = of.rows * (of.max_length + of.sampling.max_new_tokens)
        return ShardPlan(
            index=number,
            order_json=order_json,
            inputs=inputs,
            work_units=tokens * given.facts.run_params,
            memory_bytes=given.facts.run_params * 8,
            tokens=tokens,
        )

    def _plan_grade(self, given: PlanInput) -> list[ShardPlan]:
        orders, params = self._orders(given), given.stage.params
        shards = given.stage.plan.shards_per_round
        order = GradeOrder(
            rewards=tuple(sorted(params["rewards"].items())),
            of=tuple(orders.values()),
            numbers=tuple(orders),
            trial=shards if shards in orders else None,
            settings=params["reward_settings"],
        )
        inputs = {"base": given.artifacts["base"], "prompts": given.artifacts["train"]}
        if shards in orders:
            inputs["eval"] = given.artifacts["eval"]
        inputs |= {f"answers-{number}": given.artifacts[f"answers-{number}"] for number in orders}
        return [ShardPlan(index=0, order_json=order.canonical_json(), inputs=inputs, work_units=0)]

    # ---- learning -----------------------------------------------------------------------------------------------

    def _plan_learn(self, given: PlanInput) -> Sequence[ShardPlan]:
        """As every learning shard, from its own rollouts instead of rows; the reference and the old policy are run over
        them once before the first step."""
        params, facts = given.stage.params, given.facts
        length = params["max_length"] + params["max_new_tokens"]
        seen = params["prompts_per_shard"] * params["answers"] * length
        learned = given.stage.plan.inner_steps * params["batch_size"] * length
        names = ("base", "checkpoint", "parent_checkpoint", "step", "moments")
        shared = {name: given.artifacts[name] for name in names if name in given.artifacts}
        shards: list[ShardPlan] = []
        for plan in super()._plan_learn(given):
            order = LearnOrder.model_validate_json(plan.order_json)
            order = order.model_copy(update={"max_length": length, "first_row": 0})
            inputs = {
                **shared,
                "prompts": given.artifacts["train"],
                "answers": given.artifacts[f"answers-{plan.index}"],
                "scores": given.artifacts[f"scores-{plan.index}"],
            }
            shards.append(
                replace(
                    plan,
                    order_json=order.canonical_json(),
                    inputs=inputs,
                    work_units=2 * seen * facts.run_params + learned * (2 * facts.run_params + facts.trained_params),
                    tokens=learned,
                )
            )
        return shards

    def objective(self, params: Mapping[str, Any], given: PlanInput, index: int = 0) -> LearnObjective:
        stage = given.stage
        first = ((given.round_number - 1) * stage.plan.shards_per_round + index) * params["prompts_per_shard"]
        return PolicyObjective(
            advantage=self.advantage(params),
            group=params["answers"],
            first_prompt=first,
            clip_low=params["clip_low"],
            clip_high=params["clip_high"],
            kl_coefficient=given.numbers.get("kl_coefficient", params["kl_coefficient"]),
            temperature=params["temperature"] or 1.0,
            entropy_coefficient=params["entropy_coefficient"],
            max_new_tokens=params["max_new_tokens"],
            reward_clip=params["reward_clip"],
            unended_penalty=params["unended_penalty"],
            drift=DRIFT[Precision(params["precision"])],
            **self.own(params),
        )

    def advantage(self, params: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def own(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Constants that only this kind has."""
        return {}

    # ---- after results ------------------------------------------------------------------------------------------

    def check(self, phase: str, order_json: str, reported: Reported) -> Finding:
        match phase:
            case "rollout":
                return check_claimed(GenerateOrder.model_validate_json(order_json), reported, "answers", DRAWN)
            case "score":
                return check_claimed(ScoreOrder.model_validate_json(order_json), reported, "scores", frozenset())
            case "audit":
                return check_audit(AuditOrder.model_validate_json(order_json), reported)
            case _:
                return super().check(phase, order_json, reported)

    def compute(self, phase: str, order_json: str, context: Context) -> Computed:
        match phase:
            case "rollout":
                return context.trainer.generate(GenerateOrder.model_validate_json(order_json), context)
            case "score":
                return context.trainer.score(ScoreOrder.model_validate_json(order_json), context)
            case "audit":
                return context.trainer.audit(AuditOrder.model_validate_json(order_json), context)
            case "grade":
                from .phases.grading import grade

                return grade(GradeOrder.model_validate_json(order_json), context)
            case _:
                return super().compute(phase, order_json, context)

    def observe(self, seen: Observed) -> Observation:
        match seen.phase:
            case "rollout":
                return observe_drawn(seen)
            case "score" | "grade":
                return observe_reward(seen)
            case "learn":
                return observe_learn(seen)
            case "publish":
                return observe_safety(seen)
            case _:
                return Observation()

    def audit(self, phase: str, done: ShardPlan, seed: bytes, draw: bytes) -> ShardPlan | None:
        match phase:
            case "rollout":
                return plan_audit(GenerateOrder.model_validate_json(done.order_json), done, seed, draw)
            case "score":
                return plan_audit(ScoreOrder.model_validate_json(done.order_json), done, seed, draw)
            case _:
                return None

    def alike(self, phase: str, order_json: str, first: Mapping[str, float], late: Mapping[str, float]) -> bool:
        match phase:
            case "rollout":
                return alike(GenerateOrder.model_validate_json(order_json), first, late)
            case "score":
                return alike(ScoreOrder.model_validate_json(order_json), first, late)
            case _:
                return True

    def audited(self, order_json: str, claimed: Mapping[str, float], found: Mapping[str, float]) -> Finding:
        return judge_audit(AuditOrder.model_validate_json(order_json), claimed, found)
