"""`shardwork job report | samples | download`: what a job cost and made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..outcome import emit, guard, say, usage
from .jobs import COLLECT, app
from .options import JobIdArgument, JsonOption

if TYPE_CHECKING:
    from shardwork.client.asynchronous import AsyncClient
    from shardwork.client.job import AsyncJob
    from shardwork.client.results import Download, Report, SamplesPage


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
def samples(
    context: typer.Context,
    job_id: JobIdArgument,
    output: Annotated[
        str | None, typer.Argument(metavar="OUTPUT", help="An output with rows, e.g. answer.rows; none: list them.")
    ] = None,
    beside: Annotated[
        str | None, typer.Option("--beside", "-b", metavar="OUTPUT", help="With its answers to the same prompts.")
    ] = None,
    search: Annotated[
        str | None, typer.Option("--search", "-s", metavar="TEXT", help="Only prompts with these words.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, max=100, help="Rows to show.")] = 10,
    at: Annotated[
        int, typer.Option("--at", min=0, max=2**53, help="Byte at which to begin, as the page before told.")
    ] = 0,
    json_output: JsonOption = False,
) -> None:
    """Answers and preferences side by side, prompt by prompt.

    Only the part of the file that is shown is fetched. Without OUTPUT: which outputs there are to read.

    Example:  shardwork job samples 6b61 after.rows --beside before.rows
    """
    with guard(json_output):
        from shardwork.client.outputs.rows import with_rows

        from .. import access, samples_page, views

        if output is None and (beside or search or at):
            usage("No output is named.", "Name the one to read; without any option, they are listed.", json_output)

        async def read(client: AsyncClient) -> tuple[AsyncJob, SamplesPage | None]:
            job = await client.job(job_id)
            if output is None:
                return job, None
            return job, await job.samples(output, beside=beside or "", search=search or "", rows=rows, at=at)

        job, page = access.run(context, read)
        if json_output:
            outputs = [views.output_json(each) for each in with_rows(job.last)]
            emit({"id": job.id, "outputs": outputs, "page": views.samples_page_json(page) if page else None})
        elif page is None:
            samples_page.show_outputs(job.last)
        else:
            samples_page.show_page(page, job_id, search or "", rows)


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
