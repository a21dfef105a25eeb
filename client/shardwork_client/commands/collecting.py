"""`shardwork job report | download`: what a job cost and made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..outcome import emit, guard, say
from .jobs import COLLECT, app
from .options import JobIdArgument, JsonOption

if TYPE_CHECKING:
    from shardwork.client.asynchronous import AsyncClient
    from shardwork.client.results import Download, Report


@app.command(rich_help_panel=COLLECT)
def report(
    context: typer.Context,
    job_id: JobIdArgument,
    document: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", dir_okay=False, help="Write it as one self-contained HTML file."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Rounds, samples, workers, payments, outputs and money.

    With --html it is one file that needs no network: curves, samples of base and tuned model side by side, money.

    Example:  shardwork job report 6b61 --html report.html
    """
    with guard(json_output):
        from .. import access, render, report_page, views

        async def reported(client: AsyncClient) -> Report:
            return await (await client.job(job_id)).report()

        found = access.run(context, reported)
        if document is not None:
            _write(document, found.html())
        if json_output:
            emit(views.report_json(found))
        elif document is None:
            render.show(report_page.report_page(found))
        if document is not None:
            say(f"✓ Wrote {document}")


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a report that is there stays when the disk is full."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@app.command(rich_help_panel=COLLECT)
def download(
    context: typer.Context,
    job_id: JobIdArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Each output lands in DIR/<output>.", file_okay=False)],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="NAME", help="Only this output, e.g. tune.model.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Fetch what a job made, checked piece by piece; a repeat resumes.

    Prints how to load each output.

    Example:  shardwork job download 6b61 out --output model
    """
    with guard(json_output, interrupted="What arrived is kept, and the same command goes on from there."):
        from .. import access, download, progress

        async def downloaded(client: AsyncClient) -> list[Download]:
            return await (await client.job(job_id)).download(folder, output=output)

        with progress.shown() as on_progress:
            fetched = access.run(context, downloaded, on_progress=on_progress)
        if json_output:
            emit({"id": job_id, "outputs": [download.fetched_json(each) for each in fetched]})
        else:
            download.show_fetched(fetched)
