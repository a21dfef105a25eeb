"""A proposed job: what a requester sends before a job exists, parsed and checked. Called by `jobs`.

Nothing that arrives is believed: the executor counts parameters again, and inputs must be the sender's own.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from shardwork.errors import InvalidInput
from shardwork.jobs.selfjudging import as_uploaded, refuse_self_judging
from shardwork.jobs.spec import STAGE_OUTPUT, JobSpec
from shardwork.jobs.upstream import refuse_too_little
from shardwork.models.hub import OFFERED, check_pinned
from shardwork.money import show
from shardwork.recipes import recipe
from shardwork.recipes.alignment.policy_params import REWARD
from shardwork.recipes.base import Content, StageFacts, StageType
from shardwork.v1 import jobs_pb2

from ..artifacts.retention import HOUSE, HUB
from ..hub import offered
from ..money.pricing import JobQuote
from ..records import Artifact, ArtifactState
from ..store.base import Transaction
from .auth import Caller
from .continuing import parents

#: no fact about a file is larger: 10 trillion parameters, or bytes, or tokens
MOST_MEASURED = 10**13
MOST_STAGE_FACTS = 32
#: what a stage's further models must be, by their role; the others answer prompts
MODELS = frozenset({Content.MODEL})
WHOLE = " A whole model comes of pretrain, of a stage with method: full, or of one with publish: merged."
ROLES = {REWARD: frozenset({Content.REWARD_MODEL})}


def parse_spec(text: str) -> JobSpec:
    """The job as sent. Raises InvalidInput "job.bad_spec" or the recipe's own complaint."""
    if len(text) > 1 << 20:
        raise InvalidInput(
            "job.spec_too_large",
            "A job's description may have at most 1 MiB.",
            next_step="Name data by folders or globs, or make several jobs of it.",
            bytes=len(text),
        )
    try:
        spec = JobSpec.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidInput("job.bad_spec", f"The job is wrong at {key!r}: {first['msg']}.", key=key) from error
    if not spec.name.isprintable():
        raise InvalidInput("job.bad_spec", "The job's name has letters that can't be shown.", key="name")
    _check_references(spec)
    return spec


def parse_facts(sent: list[jobs_pb2.StageFacts]) -> dict[str, StageFacts]:
    if len(sent) > MOST_STAGE_FACTS:
        raise InvalidInput("job.too_many_facts", "More facts than a job has stages.")
    for one in sent:
        if max(one.rows, one.tokens, one.run_params, one.trained_params, one.input_bytes) > MOST_MEASURED:
            raise InvalidInput("facts.too_large", "No file measures that much.", stage=one.stage[:40])
    return {
        one.stage: StageFacts(
            rows=one.rows,
            tokens=one.tokens,
            run_params=one.run_params,
            trained_params=one.trained_params,
            input_bytes=one.input_bytes,
        )
        for one in sent
    }


def check_facts(spec: JobSpec, facts: Mapping[str, StageFacts]) -> None:
    """A stage that trains was measured: its price comes from what `prepare` will measure again."""
    for stage in spec.stages:
        measured = facts.get(stage.name, StageFacts())
        trains = recipe(stage.recipe).stage_type is StageType.ROUNDS
        if trains and not (measured.run_params and measured.trained_params):
            raise InvalidInput(
                "facts.missing",
                f"Stage {stage.name!r} trains a model whose parameters were not counted.",
                next_step="Submit with `shardwork job submit`, which measures the files.",
                stage=stage.name,
            )


def _check_references(spec: JobSpec) -> None:
    """A stage reads only what an earlier one makes, and what it can read: an adapter is no base model."""
    made: dict[str, Mapping[str, Content]] = {}
    for stage in spec.stages:
        kind = recipe(stage.recipe)
        data = [*stage.data_paths, *stage.eval_paths]
        for key, value, wanted in (
            ("base_model", stage.base_model or "", frozenset({Content.MODEL})),
            ("continue_from", stage.continue_from or "", frozenset({Content.CHECKPOINT})),
            *(("data", value, kind.reads(stage)) for value in data),
            *((f"models.{role}", named, ROLES.get(role, MODELS)) for role, named in stage.models.items()),
        ):
            if not STAGE_OUTPUT.match(value):
                continue
            source, _, output = value.partition(".")
            holds = made[source].get(output)
            if holds not in wanted:
                raise InvalidInput(
                    "job.unusable_reference",
                    f"Stage {stage.name!r} can't use {value!r} as its {key}.",
                    next_step=f"Name an output that holds what it reads: {' or '.join(sorted(wanted))}."
                    f"{WHOLE if Content.MODEL in wanted else ''}",
                    stage=stage.name,
                    key=key,
                    holds=holds or "nothing",
                    reads=" or ".join(sorted(wanted)),
                )
        if sum(1 for value in data if STAGE_OUTPUT.match(value)) not in (0, len(data)):
            raise InvalidInput(
                "job.mixed_data",
                f"Stage {stage.name!r} reads rows of an earlier stage and files as well.",
                next_step="Read one or the other: stages that read several sources read several stages' outputs.",
                stage=stage.name,
                key="data",
            )
        made |= dict.fromkeys(spec.names_of(stage.name), kind.makes(stage))
    refuse_self_judging(spec)
    refuse_too_little(spec)


def _check_copy(tx: Transaction, row: Artifact, reference: str) -> None:
    """A job that says which hub model it starts from starts from that one, and nothing else."""
    check_pinned(reference)
    copy = tx.get(Artifact, row.id, HOUSE)
    if copy is None or copy.purpose != reference or copy.state is not ArtifactState.STORED:
        raise InvalidInput(
            "hub.not_mirrored",
            f"What was named is not this coordinator's copy of {reference}.",
            next_step="Submit again with `shardwork job submit`, which has it copied first.",
            key="base_model",
        )


def _check_offered(tx: Transaction, row: Artifact, reference: str) -> None:
    """As `_check_copy`, for a model that the operator offers."""
    if offered.find(tx, reference).artifact_id != row.id:
        raise InvalidInput(
            "offered.other_model",
            f"What was named is not this coordinator's {reference}.",
            next_step="Submit again: the coordinator says which one it is.",
            key="base_model",
        )


def check_cap(spec: JobSpec, priced: JobQuote, max_msat: int) -> None:
    cap = min(spec.budget.max_sats * 1000, max_msat or spec.budget.max_sats * 1000)
    if priced.reserve_msat > cap:
        raise InvalidInput(
            "budget.below_plan",
            f"The plan may cost up to {show(priced.reserve_msat)}, and the cap is {show(cap)}.",
            next_step="Raise budget.max_sats, or plan fewer rounds, shards or inner steps.",
            key="budget.max_sats",
            reserve_msat=priced.reserve_msat,
            cap_msat=cap,
        )


def own_inputs(
    tx: Transaction, spec: JobSpec, sent: Mapping[str, str], caller: Caller, facts: Mapping[str, StageFacts]
) -> dict[str, str]:
    """The inputs that the stages read, each uploaded by this requester or kept from an earlier job of theirs. What no
    stage reads is refused: the executor and the workers may read whatever a job names, so a name that nobody checked
    would open others' artifacts."""
    inputs = parents(tx, spec, facts, caller)
    kept = frozenset(inputs)
    for stage in spec.stages:
        wanted = {
            "base_model": [stage.base_model] if stage.base_model else [],
            "continue_from": [stage.continue_from] if stage.continue_from else [],
            "data": stage.data_paths,
            "eval_data": stage.eval_paths,
            **{f"models.{role}": [named] for role, named in stage.models.items()},
        }
        for key, values in wanted.items():
            if not values or all(STAGE_OUTPUT.match(one) for one in values):
                continue
            if f"{stage.name}.{key}" in kept:
                continue
            artifact = sent.get(f"{stage.name}.{key}")
            row = tx.get(Artifact, artifact, caller.party_id) if artifact else None
            if row is not None and values[0].startswith(HUB):
                _check_copy(tx, row, values[0])
            if row is not None and key == "base_model" and values[0].startswith(OFFERED):
                _check_offered(tx, row, values[0])
            if row is None or row.state is not ArtifactState.STORED:
                raise InvalidInput(
                    "job.input_missing",
                    f"Stage {stage.name!r} reads {key}, which was not uploaded.",
                    next_step="Submit again; what is stored already is not sent twice.",
                    stage=stage.name,
                    key=key,
                )
            inputs[f"{stage.name}.{key}"] = row.id
    # two folders may hold the same model
    refuse_self_judging(spec, as_uploaded(inputs))
    unread = sorted(set(sent) - (set(inputs) - kept))
    if unread:
        raise InvalidInput("job.unread_input", "An input is named that no stage reads.", input=unread[0][:100])
    return inputs
