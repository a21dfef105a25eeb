"""`shardwork job serve-check`: whether what a job made loads, answers and can be served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..outcome import emit, guard, say
from .jobs import COLLECT, app
from .options import JsonOption


@app.command("serve-check", rich_help_panel=COLLECT)
def serve_check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A downloaded model or adapter.")],
    base: Annotated[
        Path | None,
        typer.Option(
            "--base", metavar="DIR", help="Folder of an adapter's base; default: where adapter_config.json says."
        ),
    ] = None,
    merge: Annotated[
        Path | None,
        typer.Option("--merge", metavar="OUT", help="Also write adapter and base as one model into this new folder."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Load an output in plain transformers, ask it, and judge it for vLLM, llama.cpp and Ollama.

    Needs no coordinator, but torch and what else the extra 'worker' installs. Runs on the CPU, offline; code of a
    model is never run.
    The servers are judged by names, config and files: likely, unknown or no, each with its reason.

    Example:  shardwork job serve-check out/model --base models/tiny --merge out/whole

    Exit 0 when it loads and answers, 3 when the folder is wrong, 1 when it does not load.
    """
    with guard(json_output, interrupted="Nothing was written."):
        from shardwork.serving.check import serve_check as check

        from .. import render, serving_page

        if not json_output:
            say(f"Loading {folder} …")
        found = check(folder, base=base, merge=merge)
        if json_output:
            emit(serving_page.check_json(found))
        else:
            render.show(serving_page.page(found))
