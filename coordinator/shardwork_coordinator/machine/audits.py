"""Audits: a sample of a result is checked by another worker before the result is paid.

Owns when an audit is opened, what it is told, and what its numbers say; what follows from that is `judging`'s. An
audit is a shard of its own, so that leases, expiry, retries and pay are the same as for any work; it names the replica
that it is about. Its rows are drawn after the result was committed to, with chance that no worker could know. Pure.
"""

from __future__ import annotations

import hashlib
import json

from shardwork.ids import shard_id
from shardwork.recipes import recipe
from shardwork.recipes.base import AUDIT_PHASE, ShardPlan
from shardwork.why import Why

from ..events import Change, Note, Slice, World
from ..money.pricing import WITNESSES, RateCard
from ..records import Job, Purpose, Replica, ReplicaState, Shard, ShardState
from .attempts import called, lease_id

#: how often an audit may be tried before its result counts as one that cannot be checked
ATTEMPTS = 3
#: replicas of a shard and epochs of a replica that have places of their own among a round's audits
_PLACES = 100


def opened(state: Slice, shard: Shard, replica: Replica, world: World, change: Change) -> bool:
    """Opens the audit of a submitted replica; False where its recipe wants none or nobody could make it."""
    if state.job.self_evaluated and world.workers < WITNESSES:
        return False
    draw = hashlib.sha256(world.draw + replica.output_root.encode()).digest()
    done = ShardPlan(
        index=shard.position,
        order_json=shard.order_json,
        inputs={**json.loads(shard.inputs_json), **json.loads(replica.outputs_json)},
        work_units=shard.work_units,
        memory_bytes=shard.memory_bytes,
        tokens=shard.tokens,
    )
    plan = recipe(shard.recipe).audit(shard.phase, done, shard.seed, draw)
    if plan is None:
        return False
    rates = RateCard.from_json(state.job.rates_json)
    price = rates.price(plan.work_units)
    position = (shard.position * _PLACES + replica.number) * _PLACES + replica.epoch % _PLACES
    audit = Shard(
        # several phases of a round may be audited
        id=shard_id(shard.job_id, shard.stage, shard.round, f"{AUDIT_PHASE}-{shard.phase}", position),
        job_id=shard.job_id,
        stage=shard.stage,
        round=shard.round,
        phase=AUDIT_PHASE,
        position=position,
        recipe=shard.recipe,
        state=ShardState.READY,
        order_json=plan.order_json,
        inputs_json=json.dumps(dict(plan.inputs), sort_keys=True),
        seed=shard.seed,
        work_units=plan.work_units,
        tokens=plan.tokens,
        memory_bytes=plan.memory_bytes,
        price_msat=price,
        fee_msat=rates.fee(price),
        attempts_left=ATTEMPTS,
        created_ms=world.now_ms,
        audits=about(replica),
    )
    place = Replica(
        shard_id=audit.id,
        number=0,
        job_id=audit.job_id,
        stage=audit.stage,
        round=audit.round,
        phase=AUDIT_PHASE,
        purpose=Purpose.PRIMARY,
        state=ReplicaState.READY,
        created_ms=world.now_ms,
    )
    change.rows += [audit, place]
    change.notes.append(
        Note(
            kind="shard.audited",
            subject=shard.id,
            sentence=f"A sample of {called(shard)} waits for another worker to check it.",
            evidence={"lease": lease_id(replica), "audit": audit.id},
            detail=True,
        )
    )
    return True


def about(replica: Replica) -> str:
    """How an audit names the replica whose result it checks."""
    return f"{replica.shard_id}#{replica.number}"


def others(state: Slice, shard: Shard, replica: Replica) -> list[Shard]:
    """Open audits of the shard's other replicas."""
    names = {about(one) for one in state.replicas_of(shard.id) if one.number != replica.number}
    return [one for one in state.shards if one.audits in names and one.state is not ShardState.DONE]


def target(audit: Shard) -> tuple[str, int]:
    """(shard, replica number) that an audit is about."""
    shard, _, number = audit.audits.rpartition("#")
    return shard, int(number)


def audited(state: Slice, audit: Shard) -> tuple[Shard, Replica]:
    """The shard and the replica that an audit of this slice is about."""
    shard, number = target(audit)
    return state.shard(shard), state.replica(shard, number)


def fault(audit: Shard, result: Replica, opinion: Replica) -> Why | None:
    """What this auditor's numbers say against the result; None where they bear it out."""
    claimed, found = json.loads(result.metrics_json), json.loads(opinion.metrics_json)
    return recipe(audit.recipe).audited(audit.order_json, claimed, found).why


def unchecked(job: Job, shard: Shard) -> Note:
    return Note(
        kind="job.self_evaluated",
        subject=job.id,
        sentence=f"No second worker is there to check the {shard.phase} phase; the job is marked self-evaluated.",
    )


def uncheckable(why: Why) -> Why:
    return Why(
        code="audit.impossible",
        sentence=f"No other worker could check the result; the last reason was: {why.sentence}",
        evidence=dict(why.evidence),
    )
