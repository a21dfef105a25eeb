"""Submitting a job: plan, ask, upload the inputs, and one idempotent SubmitJob.

A repeat after Ctrl-C or a lost answer resumes the uploads and gives the same job: its submission id lies on disk before
it is sent (`submission`). Nothing is reserved before the person agreed. Used by `job submit`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from shardwork import transfer
from shardwork.money import show
from shardwork.session import Session
from shardwork.v1 import jobs_pb2, types_pb2

from . import api, plan_page, staging
from .facts import StageMeasure
from .outcome import interrupt, is_terminal, say, usage
from .plan import Measured, Priced, measure, price, refuse_unaffordable
from .progress import transfer_progress
from .render import show as show_page
from .settings import Access
from .submission import pending


def submit_file(
    access: Access,
    file: Path,
    *,
    max_sats: int | None,
    yes: bool,
    json_output: bool,
    announce: Callable[[str], None],
) -> str:
    """The id of the started job, after `announce` told it. Raises InvalidInput, NotEnoughFunds, typer.Exit(2)."""
    if not yes and not is_terminal():
        usage(
            "Submitting spends sats and there is no terminal to ask on.",
            f"Agree beforehand:  shardwork job submit {file} --yes",
            json_output,
        )
    measured = measure(file, max_sats=max_sats)
    priced = api.run(access, lambda session: price(session, measured))
    if not json_output:
        show_page(plan_page.page(priced), stderr=True)
    refuse_unaffordable(priced)
    if not yes:
        _ask(priced)
    return api.run(access, lambda session: _upload_and_submit(session, access, measured, announce))


def _ask(priced: Priced) -> None:
    kind = "SIMULATED " if priced.asset == "simulated" else ""
    amount = show(priced.quote.reserve_msat)
    say("")
    try:
        agreed = typer.confirm(f"Reserve {kind}{amount} and start the job?", err=True)
    except typer.Abort:
        interrupt("Nothing was submitted.")
    if not agreed:
        say("Nothing was submitted.")
        raise typer.Exit(1)


async def _upload_and_submit(
    session: Session, access: Access, measured: Measured, announce: Callable[[str], None]
) -> str:
    request = jobs_pb2.SubmitJobRequest(
        spec_json=measured.loaded.spec.canonical_json(),
        facts=measured.facts(),
        inputs=await upload_inputs(session, measured, access.home.cache_dir),
        max_msat=measured.budget_msat,
    )
    submission = pending(access.home.state_dir, request, coordinator=access.join.ca_sha256)
    request.submission_id = submission.submission_id
    answer = await api.submit(session, request)
    announce(answer.job_id)
    submission.answered()
    return answer.job_id


async def upload_inputs(session: Session, measured: Measured, cache_dir: Path) -> list[types_pb2.NamedArtifact]:
    """Every local input of every stage, as "<stage>.base_model", "<stage>.data" and "<stage>.eval_data"."""
    found: list[types_pb2.NamedArtifact] = []
    for stage in measured.stages:
        with staging.staging_area(cache_dir) as area:
            for name, folder in stage_inputs(stage, area):
                with transfer_progress(f"{name} ↑") as progress:
                    manifest = await transfer.upload_folder(session, folder, purpose="input", progress=progress)
                found.append(types_pb2.NamedArtifact(name=name, artifact_id=manifest.id))
    return found


def stage_inputs(stage: StageMeasure, area: Path) -> list[tuple[str, Path]]:
    """(input name, staged folder) of what this stage reads from this machine; `stage.output` is not among it."""
    name, files = stage.stage.name, stage.files
    found: list[tuple[str, Path]] = []
    if stage.model is not None and files.base_model is not None:
        folder = staging.stage_model(files.base_model, stage.model.files, area / "base_model")
        found.append((f"{name}.base_model", folder))
    for kind, paths in (("data", files.data), ("eval_data", files.eval_data)):
        if paths:
            found.append((f"{name}.{kind}", staging.stage_data(paths, area / kind)))
    return found
