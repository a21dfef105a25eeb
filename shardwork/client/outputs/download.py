"""Fetching a job's outputs into folders.

Each output lands in DIR/<output name>, checked leaf by leaf by `shardwork.transfer`, whole or not at all; a repeat
resumes what is there.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from ... import transfer
from ...errors import Conflict, Corrupt, InvalidInput, NotFound
from ...session import Session
from .. import calls, received
from ..progress import OnProgress, told
from ..results import Download, JobStatus, Output


async def download_outputs(
    session: Session, job_id: str, folder: Path, *, only: str | None = None, on_progress: OnProgress | None = None
) -> list[Download]:
    """All outputs of a job, or the one named `only`.

    Raises NotFound "job.no_such_output" or "job.output_deleted", Conflict "job.no_outputs", and what
    `transfer.download` raises.
    """
    outputs = choose(received.job_status(await calls.job(session, job_id)), only)
    return [await _fetch_one(session, output, folder, on_progress) for output in outputs]


def choose(job: JobStatus, only: str | None) -> Sequence[Output]:
    """The outputs asked for, without those that are deleted; `only` may leave out the stage where that is unambiguous
    ("model" for "sft.model")."""
    if not job.outputs:
        raise Conflict(
            "job.no_outputs",
            "The job has made nothing to download yet.",
            next_step=f"Follow it with:  shardwork job watch {job.id}",
            job=job.id,
            state=job.state,
        )
    if only is None:
        return [output for output in job.outputs if not output.deleted] or [kept(job.outputs[0])]
    found = [output for output in job.outputs if only in (output.name, output.name.partition(".")[2])]
    if len(found) == 1:
        return [kept(found[0])]
    names = [output.name for output in job.outputs]
    near = difflib.get_close_matches(only, names, 1)
    hint = f"Did you mean {near[0]}?" if near else f"It has: {', '.join(names)}."
    raise NotFound("job.no_such_output", f"The job has no output {only!r}.", next_step=hint, job=job.id)


def kept(output: Output) -> Output:
    """Itself. Raises NotFound "job.output_deleted"."""
    if output.deleted:
        raise NotFound(
            "job.output_deleted",
            f"{output.name} was made and is deleted: it was given up, or older than outputs are kept.",
            next_step="Run the job again; what is still kept is in: shardwork artifact list",
            output=output.name,
        )
    return output


async def _fetch_one(session: Session, output: Output, folder: Path, on_progress: OnProgress | None) -> Download:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            "download.bad_folder",
            f"Outputs cannot be put there: {error.strerror or type(error).__name__}.",
            next_step="Name a folder that can be made or written to.",
            folder=folder,
        ) from error
    into = folder / safe_name(output.name)
    was_there = into.exists()
    try:
        await transfer.download(session, output.artifact_id, into, progress=told(on_progress, f"{output.name} ↓"))
    except Corrupt as error:
        if not was_there:
            raise
        raise Conflict(
            "download.folder_differs",
            f"{into} is there already, and holds something else than this output.",
            next_step=f"Move it away, or name another DIR:  shardwork job download ID DIR --output {output.name}",
            folder=into,
            **{key: value for key, value in error.why.evidence.items() if key == "file"},
        ) from None
    return Download(output=output, folder=into)


def safe_name(name: str) -> str:
    """The output's name as one folder name; it comes over the wire and must not leave DIR."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or not name.isprintable():
        raise NotFound("job.bad_output_name", "The coordinator names an output that cannot be a folder.", name=name)
    return name
