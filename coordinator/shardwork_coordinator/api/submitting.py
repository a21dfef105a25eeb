"""A job on its way in over HTTP: its inputs checked, and measured where nobody measured them, then quoted or submitted
by the handlers of gRPC. Used by both faces."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from shardwork import wire
from shardwork.errors import InvalidInput
from shardwork.jobs.spec import STAGE_OUTPUT, JobSpec
from shardwork.models.hub import OFFERED, is_remote
from shardwork.recipes.base import StageFacts
from shardwork.v1 import jobs_pb2, types_pb2
from shardwork.why import Why

from ..artifacts.store import not_found
from ..hub import offered
from ..records import Artifact, ArtifactState
from ..rpc.auth import Caller
from ..rpc.jobs import quote_job, submit_job
from ..rpc.proposal import parse_spec
from ..store.base import Transaction
from .desk import ApiDesk
from .mapping import bad_field
from .measuring import Measured


async def quote(
    request: jobs_pb2.QuoteJobRequest, inputs: Mapping[str, str], caller: Caller, desk: ApiDesk
) -> jobs_pb2.QuoteJobResponse:
    """The quote of a job as sent, measured here when it says no facts."""
    if request.facts:
        return await quote_job(request, caller, desk.jobs)
    measured = await measure(parse_spec(request.spec_json), inputs, caller, desk)
    request = jobs_pb2.QuoteJobRequest(spec_json=measured.spec_json, facts=wire_facts(measured))
    answer = await quote_job(request, caller, desk.jobs)
    answer.quote.warnings.extend(wire.why_to_proto(why) for why in measured.warnings)
    return answer


async def submit(request: jobs_pb2.SubmitJobRequest, caller: Caller, desk: ApiDesk) -> jobs_pb2.SubmitJobResponse:
    """As `rpc.jobs.submit_job`; measured here when it says no facts, and a fresh submission id when it says none."""
    sent = jobs_pb2.SubmitJobRequest()
    sent.CopyFrom(request)
    spec = parse_spec(sent.spec_json)
    inputs = {item.name: item.artifact_id for item in sent.inputs}
    for name, artifact_id in (await granted_models(spec, inputs, caller, desk)).items():
        if name not in inputs:
            sent.inputs.append(types_pb2.NamedArtifact(name=name, artifact_id=artifact_id))
            inputs[name] = artifact_id
    warnings: tuple[Why, ...] = ()
    if not sent.facts:
        measured = await measure(spec, inputs, caller, desk)
        sent.spec_json, warnings = measured.spec_json, measured.warnings
        sent.facts.extend(wire_facts(measured))
    sent.submission_id = sent.submission_id or secrets.token_hex(16)
    answer = await submit_job(sent, caller, desk.jobs)
    answer.quote.warnings.extend(wire.why_to_proto(why) for why in warnings)
    return answer


async def measure(spec: JobSpec, inputs: Mapping[str, str], caller: Caller, desk: ApiDesk) -> Measured:
    """Only of what the caller owns: what is measured tells something of what it holds."""
    inputs = {**inputs, **await granted_models(spec, inputs, caller, desk)}

    def look(tx: Transaction) -> None:
        for name, artifact_id in inputs.items():
            row = tx.get(Artifact, artifact_id, caller.party_id)
            if row is None or row.state is not ArtifactState.STORED:
                raise not_found(artifact_id)
            if name.partition(".")[0] not in {stage.name for stage in spec.stages}:
                raise bad_field("inputs", f"No stage reads {name[:60]!r}.")

    await desk.engine.store.read(look)
    for stage in spec.stages:
        if stage.data and f"{stage.name}.data" not in inputs and not _is_made(stage.data_paths):
            raise bad_field("inputs", f"Stage {stage.name!r} reads data: name its artifact as '{stage.name}.data'.")
    return await desk.measurer.measure(spec, inputs, caller.party_id)


async def granted_models(spec: JobSpec, inputs: Mapping[str, str], caller: Caller, desk: ApiDesk) -> dict[str, str]:
    """ "<stage>.base_model" -> artifact, of every offered model that the job names."""
    found: dict[str, str] = {}
    for stage in spec.stages:
        named = stage.base_model or ""
        if named.startswith(OFFERED):
            row = await desk.commit(offered.granted(named, caller.party_id, desk.now_ms))
            found[f"{stage.name}.base_model"] = row.artifact_id
        elif is_remote(named) and f"{stage.name}.base_model" not in inputs:
            raise InvalidInput(
                "api.hub_model",
                "Models of a hub are not copied over HTTP.",
                next_step="Submit with `shardwork job submit`, or ask the operator to offer the model.",
                key="base_model",
            )
    return found


def wire_facts(measured: Measured) -> list[jobs_pb2.StageFacts]:
    return [jobs_pb2.StageFacts(stage=name, **_numbers(facts)) for name, facts in measured.facts.items()]


def _numbers(facts: StageFacts) -> dict[str, int]:
    return {name: int(value) for name, value in asdict(facts).items()}


def _is_made(paths: list[str]) -> bool:
    return all(STAGE_OUTPUT.match(path) for path in paths)


def spec_text(values: Mapping[str, Any], spec_json: str) -> str:
    """The job's description, sent as an object (`spec`) or as text (`spec_json`)."""
    if "spec" not in values:
        return spec_json
    if spec_json or not isinstance(values["spec"], dict):
        raise bad_field("spec", "Send the job as an object in `spec`, or as text in `spec_json`.")
    return json.dumps(values["spec"])
