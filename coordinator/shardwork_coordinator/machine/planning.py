"""Planning: a phase opens. The recipe's plan becomes shards with their prices, replicas and reserve, or an effect.

Planning is the recipe's (pure); pricing is the job's frozen rate card. The executor's phases become outbox effects,
every other phase becomes shards with replicas, and a reserve to pay them from. Pure; called by `phases`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from shardwork.ids import derive_seed, shard_id
from shardwork.jobs.spec import JobSpec, StageSpec
from shardwork.recipes import recipe
from shardwork.recipes.base import (
    AGREED_PHASES,
    ASK_PHASE,
    EXECUTOR_PHASES,
    GOLD_PHASE,
    PEOPLE_PHASES,
    PRACTICE_PHASE,
    PlanInput,
    ShardPlan,
    StageFacts,
)
from shardwork.recipes.continuing import told

from ..events import (
    Change,
    Effect,
    EffectKind,
    Note,
    Slice,
    World,
)
from ..money.movements import Move, escrow_account, round_account
from ..money.pricing import WITNESSES, RateCard, audits_of, beside_msat
from ..records import Purpose, Replica, ReplicaState, Round, RoundState, Shard, ShardState
from .moves import move, name

#: how often a shard may be tried before the job pauses and asks
ATTEMPTS = 4

_ROUND_STATE_OF_PHASE = {
    "merge": RoundState.MERGING,
    "join": RoundState.MERGING,
    "evaluate": RoundState.EVALUATING,
    "apply": RoundState.EVALUATING,
}


def round_state_of(phase: str) -> RoundState:
    """What a round is while this phase runs."""
    return _ROUND_STATE_OF_PHASE.get(phase, RoundState.OPEN)


def open_phase(state: Slice, phase: str, world: World, change: Change) -> Change:
    target = round_state_of(phase)
    round_ = replace(state.round, phase=phase)
    if round_.state is not target:
        round_ = move(round_, target)
    state = replace(state, round=round_)
    plans = recipe(state.stage.recipe).plan(_plan_input(state, phase, world))
    if phase in EXECUTOR_PHASES:
        change.rows.append(round_)
        change.effects.append(_execute(state, phase, plans[0]))
        return change
    return _lease_out(state, phase, list(plans), world, change)


def _lease_out(state: Slice, phase: str, plans: list[ShardPlan], world: World, change: Change) -> Change:
    """Shards and replicas of a leased phase, and the reserve they are paid from."""
    rates = RateCard.from_json(state.job.rates_json)
    quorum, reference_only = 1, False
    if phase in AGREED_PHASES:
        reference_only = world.references > 0
        # a job that went on alone once does not wait at every phase for a second key that is still not there
        alone = state.job.self_evaluated and world.workers < 2
        quorum = 1 if reference_only or alone else 2
    prices = [rates.price_of(plan) for plan in plans]
    checks = [rates.price_of(audit) for audit in audits_of(recipe(state.stage.recipe), phase, plans)]
    copies = max([quorum, *(plan.copies for plan in plans)])
    reserve = rates.reserve(prices, copies) + rates.reserve(checks, WITNESSES)
    reserve += beside_msat(rates, phase, spec_of(state), prices, copies)
    round_ = replace(state.round, reserved_msat=state.round.reserved_msat + reserve, shards_left=len(plans))
    change.rows.append(round_)
    if reserve:
        change.movements.append(
            Move(
                id=f"reserve/{name(round_)}/{phase}",
                debit=escrow_account(state.job.id),
                credit=round_account(state.job.id, state.stage.name, round_.number),
                msat=reserve,
                reason="reserve",
                reference=state.job.id,
            )
        )
    for plan, price in zip(plans, prices, strict=True):
        shard = _shard(state, phase, plan, world)
        shard = replace(
            shard,
            price_msat=price,
            fee_msat=rates.fee(price),
            quorum=max(quorum, plan.copies),
            reference_only=reference_only,
        )
        change.rows.append(shard)
        # people's places are counted: a replica is made when somebody takes one
        for number in range(0 if phase in PEOPLE_PHASES else shard.quorum):
            change.rows.append(_replica(shard, number, world))
    if phase == ASK_PHASE:
        _lay_out_tests(state, world, change)
    change.notes.append(
        Note(
            kind="round.phase",
            subject=name(round_),
            sentence=f"Stage {state.stage.name}, round {round_.number}: {phase} is open with {len(plans)} "
            f"{'shard' if len(plans) == 1 else 'shards'}.",
            evidence={"reserve_msat": str(reserve), "copies": str(quorum)},
        )
    )
    return change


def _lay_out_tests(state: Slice, world: World, change: Change) -> None:
    """Items whose answer is known, beside those that are asked: nobody waits for them."""
    rates = RateCard.from_json(state.job.rates_json)
    for phase in (PRACTICE_PHASE, GOLD_PHASE):
        for plan in recipe(state.stage.recipe).plan(_plan_input(state, phase, world)):
            price = rates.price_of(plan)
            shard = replace(_shard(state, phase, plan, world), price_msat=price, fee_msat=rates.fee(price))
            change.rows.append(shard)


def _plan_input(state: Slice, phase: str, world: World) -> PlanInput:
    artifacts = {**json.loads(state.stage.artifacts_json), **json.loads(state.round.results_json)}
    if phase == "apply":
        artifacts["new_moments"] = artifacts["moments"]
    if phase in ("learn", "evaluate", "rollout") and "parent_checkpoint" not in artifacts:
        for stale in ("step", "moments"):
            artifacts.pop(stale, None)
    return PlanInput(
        job_id=state.job.id,
        job_name=state.job.name,
        stage=spec_of(state),
        round_number=state.round.number,
        phase=phase,
        facts=facts_of(state),
        artifacts=artifacts,
        numbers=json.loads(state.stage.numbers_json),
        card=_card(state, world),
        aggregate=JobSpec.model_validate_json(state.job.spec_json).trust.aggregate,
    )


def _card(state: Slice, world: World) -> tuple[tuple[str, str], ...]:
    """Facts for the model card, in the order they are shown."""
    spec, numbers = spec_of(state), json.loads(state.stage.numbers_json)
    continued = told(spec, numbers)
    facts = [
        *([("continues from", continued)] if continued else []),
        ("recipe", spec.recipe),
        ("method", str(spec.params.get("method", "full"))),
        ("rounds", str(spec.plan.rounds)),
        ("shards a round", str(spec.plan.shards_per_round)),
        ("inner steps", str(spec.plan.inner_steps)),
        ("learning rate", str(spec.params.get("learning_rate", ""))),
        ("training rows", f"{int(numbers.get('rows', 0)):,}"),
        ("training tokens", f"{int(numbers.get('tokens', 0)):,}"),
    ]
    if "best_loss" in numbers:
        facts.append(("held-out loss before", f"{numbers['eval_loss_start']:.4f}"))
        facts.append(("held-out loss after", f"{numbers['best_loss']:.4f}"))
    if "best_round" in numbers:
        facts.append(("published round", f"{int(numbers['best_round'])} of {spec.plan.rounds}"))
    return (*facts, *world.card, ("self-evaluated", "yes" if state.job.self_evaluated else "no"))


def effect_id(round_: Round, phase: str) -> str:
    """Of the effect that carries out a phase of the executor's."""
    return f"execute/{name(round_)}/{phase}"


def _execute(state: Slice, phase: str, plan: ShardPlan) -> Effect:
    return Effect(
        id=effect_id(state.round, phase),
        kind=EffectKind.EXECUTE,
        payload={
            "job_id": state.job.id,
            "stage": state.stage.name,
            "round": state.round.number,
            "phase": phase,
            "recipe": state.stage.recipe,
            "order_json": plan.order_json,
            "inputs": dict(plan.inputs),
            "seed": derive_seed(state.job.id, state.stage.name, state.round.number, phase, 0).hex(),
        },
    )


def _shard(state: Slice, phase: str, plan: ShardPlan, world: World) -> Shard:
    return Shard(
        id=shard_id(state.job.id, state.stage.name, state.round.number, phase, plan.index),
        job_id=state.job.id,
        stage=state.stage.name,
        round=state.round.number,
        phase=phase,
        position=plan.index,
        recipe=state.stage.recipe,
        state=ShardState.READY,
        order_json=plan.order_json,
        inputs_json=dump(plan.inputs),
        seed=derive_seed(state.job.id, state.stage.name, state.round.number, phase, plan.index),
        work_units=plan.work_units,
        tokens=plan.tokens,
        memory_bytes=plan.memory_bytes,
        price_msat=0,
        fee_msat=0,
        attempts_left=ATTEMPTS,
        created_ms=world.now_ms,
    )


def _replica(shard: Shard, number: int, world: World) -> Replica:
    return Replica(
        shard_id=shard.id,
        number=number,
        job_id=shard.job_id,
        stage=shard.stage,
        round=shard.round,
        phase=shard.phase,
        purpose=Purpose.PRIMARY if number == 0 else Purpose.AGREEMENT,
        state=ReplicaState.READY,
        created_ms=world.now_ms,
    )


def facts_of(state: Slice) -> StageFacts:
    return StageFacts(**json.loads(state.job.facts_json).get(state.stage.name, {}))


def spec_of(state: Slice) -> StageSpec:
    return StageSpec.model_validate_json(state.stage.spec_json)


def dump(values: Mapping[str, str]) -> str:
    return json.dumps(dict(values), sort_keys=True)
