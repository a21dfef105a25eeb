"""Submitting a measured job: upload its inputs, then one idempotent SubmitJob.

A repeat after a break or a lost answer resumes the uploads and gives the same job: its submission id lies on disk
before it is sent (`submission`). Whether to submit at all was decided before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .. import transfer
from ..models.folder import inspect_model
from ..models.hub import is_remote
from ..recipes.alignment.policy_params import REWARD
from ..session import Session
from ..v1 import jobs_pb2, types_pb2
from . import calls, hub, staging
from .facts import StageMeasure, sources_of
from .plan import Measured
from .progress import OnProgress, told
from .settings import Access
from .submission import pending


async def submit(
    session: Session,
    access: Access,
    measured: Measured,
    *,
    announce: Callable[[str], None] | None = None,
    on_progress: OnProgress | None = None,
) -> str:
    """The id of the started job, after `announce` heard it: from then on a repeat is a new job."""
    request = jobs_pb2.SubmitJobRequest(
        spec_json=measured.loaded.spec.canonical_json(),
        facts=measured.facts(),
        inputs=await upload_inputs(session, measured, access.home.cache_dir, on_progress=on_progress),
        max_msat=measured.budget_msat,
    )
    submission = pending(access.home.state_dir, request, coordinator=access.join.ca_sha256)
    request.submission_id = submission.submission_id
    answer = await calls.submit(session, request)
    if announce is not None:
        announce(answer.job_id)
    submission.answered()
    return answer.job_id


async def upload_inputs(
    session: Session, measured: Measured, cache_dir: Path, *, on_progress: OnProgress | None = None
) -> list[types_pb2.NamedArtifact]:
    """Every local input of every stage, as "<stage>.base_model", "<stage>.data" and so on."""
    found: list[types_pb2.NamedArtifact] = []
    for stage in measured.stages:
        named = stage.stage.base_model or ""
        if is_remote(named):
            copy_id = await hub.mirror(session, named, on_progress=on_progress)
            found.append(types_pb2.NamedArtifact(name=f"{stage.stage.name}.base_model", artifact_id=copy_id))
        with staging.staging_area(cache_dir) as area:
            for name, folder in stage_inputs(stage, area):
                progress = told(on_progress, f"{name} ↑")
                manifest = await transfer.upload_folder(session, folder, purpose="input", progress=progress)
                found.append(types_pb2.NamedArtifact(name=name, artifact_id=manifest.id))
    return found


def stage_inputs(stage: StageMeasure, area: Path) -> list[tuple[str, Path]]:
    """(input name, staged folder) of what this stage reads from this machine; `stage.output` is not among it."""
    name, files = stage.stage.name, stage.files
    found: list[tuple[str, Path]] = []
    is_mirrored = is_remote(stage.stage.base_model)
    if stage.model is not None and files.base_model is not None and not is_mirrored:
        folder = staging.stage_model(files.base_model, stage.model.files, area / "base_model")
        found.append((f"{name}.base_model", folder))
    for role, folder in sorted(files.models.items()):
        named = staging.stage_model(folder, inspect_model(folder, reward=role == REWARD).files, area / "models" / role)
        found.append((f"{name}.models.{role}", named))
    if files.continue_from is not None and stage.parent is not None:
        folder = staging.stage_model(files.continue_from, stage.parent.files, area / "continue_from")
        found.append((f"{name}.continue_from", folder))
    for kind, given in (("data", files.sources), ("eval_data", files.eval_sources)):
        if any(source.files for source in given):
            folder = staging.stage_data(sources_of(given), area / kind, stage.stage.recipe)
            found.append((f"{name}.{kind}", folder))
    return found
