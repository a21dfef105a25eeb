"""Prospects: what a planned job would wait for if it were submitted now, held against the workers that are attached.

One warning for each reason, with the stages and phases that it stops, from each phase's most demanding shard. It owns
no rule: who may take what, and the words for it, are `scheduler`'s. Called by `jobs` when it quotes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shardwork.jobs.spec import JobSpec
from shardwork.recipes.abilities import needed
from shardwork.recipes.base import PEOPLE_PHASES
from shardwork.why import Why

from ..granting import RECIPES_WITHOUT_TORCH
from ..money.pricing import LargestShard
from ..scheduler import ReadyReplica, Worker, why_waiting

#: somebody could take it, now or when they are done with what they have
TAKEN = "shard.workers_busy"


def warnings(spec: JobSpec, largest: Sequence[LargestShard], workers: Sequence[Worker]) -> list[Why]:
    """Why parts of the job would wait; empty when there is somebody for each of them."""
    asked = [each for each in largest if each.phase not in PEOPLE_PHASES]
    if not asked:
        return []
    if not workers:
        next_step = "The job will wait."
        return [Why(code="plan.no_workers", sentence="No worker is attached right now.", next_step=next_step)]
    found: dict[tuple[str, str], Why] = {}
    stopped: dict[tuple[str, str], list[str]] = {}
    # of phases that want for the same thing, the one that wants most says how much
    for each in sorted(asked, key=lambda one: -one.memory_bytes):
        why = why_waiting(_replica(each, spec), workers)
        if why.code == TAKEN:
            continue
        found.setdefault((why.code, why.sentence), why)
        stopped.setdefault((why.code, why.sentence), []).append(f"{each.stage} ({each.phase})")
    return [replace(why, evidence={"phases": ", ".join(stopped[key]), **why.evidence}) for key, why in found.items()]


def _replica(largest: LargestShard, spec: JobSpec) -> ReadyReplica:
    return ReadyReplica(
        shard_id="",
        number=0,
        recipe=largest.recipe,
        rank=(0, 0, 0),
        memory_bytes=largest.memory_bytes,
        price_msat=largest.price_msat,
        reference_only=False,
        needs_training=largest.recipe not in RECIPES_WITHOUT_TORCH,
        work_units=largest.work_units,
        device=spec.schedule.device,
        needs=needed(largest.phase, largest.order_json),
    )
