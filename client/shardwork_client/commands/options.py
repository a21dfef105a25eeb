"""Arguments and options that several commands share, so that they read and mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shardwork.money import ALL_SATS as ALL_SATS

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; errors as JSON on stderr.")]
JsonLinesOption = Annotated[bool, typer.Option("--json", help="JSON Lines on stdout; errors as JSON on stderr.")]


def _job_ids(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """For the shell's completion: (id, name and state) of jobs that begin so."""
    from ..completion import job_ids

    return job_ids(context, incomplete)


JobIdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="Job id, or the beginning of one.", autocompletion=_job_ids)
]
JobFileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="Job file: YAML, JSON or TOML.")]
TrackersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--report-to",
        metavar="TRACKER",
        help="Tell trackio, tensorboard, mlflow or wandb each round's numbers; repeatable. Default: the job file's.",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
