"""`shardwork data …`: what is in the files, before anything is spent on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..outcome import emit, guard, usage
from .options import JsonOption

app = typer.Typer(help="Look at data before spending on it.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Look at data before spending on it."""


@app.command()
def check(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="JSONL, JSON, CSV, TSV, Parquet or text files, or folders of them."),
    ],
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="What reads the rows: sft, dpo, grpo, judge, … Left out: anything.")
    ] = None,
    base_model: Annotated[
        Path | None, typer.Option("--base-model", metavar="DIR", help="Count tokens and mask as this model does.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", metavar="TOKENS", min=8, help="Tokens a row may have; default: 256.")
    ] = None,
    eval_data: Annotated[
        list[Path] | None, typer.Option("--eval-data", metavar="FILE", help="Held-out rows, to be compared with these.")
    ] = None,
    eval_fraction: Annotated[
        float | None, typer.Option("--eval-fraction", min=0.0001, max=0.4999, help="Share of rows to hold out.")
    ] = None,
    mapping: Annotated[
        list[str] | None, typer.Option("--map", metavar="OURS=THEIRS", help="Read a key under another name.")
    ] = None,
    row_format: Annotated[
        str | None, typer.Option("--format", help="Read rows as this format and no other, e.g. alpaca.")
    ] = None,
    overlong: Annotated[
        str, typer.Option("--overlong", help="Longer rows: auto, split, truncate, drop or refuse.")
    ] = "auto",
    chat_template: Annotated[
        str, typer.Option("--chat-template", help="model: the base model's own; chatml: for a base that has none.")
    ] = "model",
    json_output: JsonOption = False,
) -> None:
    """Format, bad lines, token counts, whether it is enough, and the first rows with what the model learns from them.

    Example:  shardwork data check data/train.jsonl --base-model models/tiny

    Exit 3 when a row cannot be used.
    """
    with guard(json_output):
        from shardwork.client.facts import CheckRequest

        from .. import access, data_page, progress, render

        asked = CheckRequest(
            files=files,
            recipe=recipe,
            base_model=base_model,
            max_length=max_length,
            eval_files=eval_data or (),
            eval_fraction=eval_fraction,
            mapping=_mapping(mapping or [], json_output),
            format=row_format,
            overlong=overlong,
            chat_template=chat_template,
        )
        with progress.shown() as on_progress:
            report = access.run(context, lambda client: client.check_data(asked), on_progress=on_progress)
        if json_output:
            emit(report.to_json())
        else:
            render.show(data_page.page(report))
        if report.num_errors:
            raise typer.Exit(3)


def _mapping(given: list[str], json_output: bool) -> dict[str, str]:
    """ "prompt=question" -> {"prompt": "question"}. Exit 2 for anything else."""
    pairs = [item.partition("=") for item in given]
    wrong = next((item for item, (ours, _, theirs) in zip(given, pairs, strict=True) if not (ours and theirs)), None)
    if wrong is not None:
        usage(
            f"--map takes OURS=THEIRS, and not {wrong!r}.",
            "Write it like:  --map prompt=question --map completion=answer",
            json_output,
        )
    named = [ours for ours, _, _ in pairs]
    if twice := next((ours for ours in named if named.count(ours) > 1), None):
        usage(f"--map names {twice!r} twice.", "Read each of our keys under one name.", json_output)
    return {ours: theirs for ours, _, theirs in pairs}
