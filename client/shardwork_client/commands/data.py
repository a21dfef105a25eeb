"""`shardwork data …`: what is in the files, before anything is spent on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..outcome import emit, guard
from .options import JsonOption

app = typer.Typer(help="Look at data before spending on it.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Look at data before spending on it."""


@app.command()
def check(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="JSONL or text files, or folders of them.")],
    recipe: Annotated[str, typer.Option("--recipe", help="What the rows are for: sft or pretrain.")] = "sft",
    base_model: Annotated[
        Path | None, typer.Option("--base-model", metavar="DIR", help="Count tokens and mask as this model does.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", metavar="TOKENS", min=8, help="Tokens a row may have; default: 256.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Format, bad lines, token counts, and the first rows with what the model learns from them.

    Example:  shardwork data check data/train.jsonl --base-model models/tiny

    Exit 3 when a row cannot be used.
    """
    with guard(json_output):
        from .. import access, data_page, progress, render

        with progress.shown() as on_progress:
            report = access.run(
                context,
                lambda client: client.check_data(files, recipe=recipe, base_model=base_model, max_length=max_length),
                on_progress=on_progress,
            )
        if json_output:
            emit(report.to_json())
        else:
            render.show(data_page.page(report))
        if report.num_errors:
            raise typer.Exit(3)
