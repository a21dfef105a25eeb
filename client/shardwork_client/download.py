"""Fetching a job's outputs into folders, and saying how to load each of them.

Each output lands in DIR/<output name>, checked leaf by leaf by `shardwork.transfer`, whole or not at all; a repeat
resumes what is there. Used by `job download`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from shardwork import transfer
from shardwork.errors import Conflict, Corrupt, NotFound
from shardwork.session import Session
from shardwork.v1 import jobs_pb2

from . import api, figures
from .outcome import say
from .progress import transfer_progress
from .render import console
from .settings import Access
from .views import Json, output_json


@dataclass(frozen=True, slots=True)
class Fetched:
    output: jobs_pb2.OutputView
    folder: Path


def download_outputs(access: Access, job_id: str, folder: Path, *, only: str | None) -> list[Fetched]:
    """All outputs of a job, or the one named `only`.

    Raises NotFound "job.no_such_output", Conflict "job.no_outputs", and what `transfer.download` raises.
    """

    async def fetch(session: Session) -> list[Fetched]:
        outputs = choose(await api.job(session, job_id), only)
        return [await _fetch_one(session, output, folder) for output in outputs]

    return api.run(access, fetch)


def choose(job: jobs_pb2.JobView, only: str | None) -> Sequence[jobs_pb2.OutputView]:
    """The outputs asked for; `only` may leave out the stage where that is unambiguous ("model" for "sft.model")."""
    if not job.outputs:
        raise Conflict(
            "job.no_outputs",
            "The job has made nothing to download yet.",
            next_step=f"Follow it with:  shardwork job watch {job.id}",
            job=job.id,
            state=job.state,
        )
    if only is None:
        return job.outputs
    found = [output for output in job.outputs if only in (output.name, output.name.partition(".")[2])]
    if len(found) == 1:
        return found
    names = [output.name for output in job.outputs]
    near = difflib.get_close_matches(only, names, 1)
    hint = f"Did you mean {near[0]}?" if near else f"It has: {', '.join(names)}."
    raise NotFound("job.no_such_output", f"The job has no output {only!r}.", next_step=hint, job=job.id)


async def _fetch_one(session: Session, output: jobs_pb2.OutputView, folder: Path) -> Fetched:
    folder.mkdir(parents=True, exist_ok=True)
    into = folder / safe_name(output.name)
    was_there = into.exists()
    try:
        with transfer_progress(f"{output.name} ↓") as progress:
            await transfer.download(session, output.artifact_id, into, progress=progress)
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
    return Fetched(output, into)


def safe_name(name: str) -> str:
    """The output's name as one folder name; it comes over the wire and must not leave DIR."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or not name.isprintable():
        raise NotFound("job.bad_output_name", "The coordinator names an output that cannot be a folder.", name=name)
    return name


def fetched_json(fetched: Fetched) -> Json:
    return {**output_json(fetched.output), "path": str(fetched.folder)}


def show_fetched(fetched: Sequence[Fetched]) -> None:
    """One line an output on stdout, and on stderr the lines that load it."""
    for each in fetched:
        console().print(Text(f"✓ {each.output.name}  {figures.size(each.output.bytes)}  {each.folder}"), soft_wrap=True)
        for line in loading(each.output.kind, each.folder):
            say(f"    {line}")


def loading(kind: str, folder: Path) -> list[str]:
    """Python that loads an output of this kind."""
    path = str(folder)
    if kind == "model":
        return [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            f"model = AutoModelForCausalLM.from_pretrained({path!r})",
            f"tokenizer = AutoTokenizer.from_pretrained({path!r})",
        ]
    if kind == "adapter":
        return [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM",
            f"base = AutoModelForCausalLM.from_pretrained({_base_of(folder)!r})  # the folder of the model you tuned",
            f"model = PeftModel.from_pretrained(base, {path!r})",
        ]
    if kind == "rows":
        files = str(folder / "*.jsonl")
        return ["from datasets import load_dataset", f"rows = load_dataset('json', data_files={files!r})"]
    return []


def _base_of(folder: Path) -> str:
    """The base that the adapter names, as its own config says.

    A bare name would be looked up on a hub, where it is somebody else's model; so it is written as the path it was.
    """
    try:
        config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        name = str(config["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError):
        return "the base model's folder"
    return name if Path(name).is_dir() else f"path/to/{Path(name).name}"
