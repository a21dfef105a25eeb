"""`shardwork job init | validate | plan | submit`: everything up to the moment that sats are reserved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..outcome import emit, guard, is_terminal, say, usage
from .jobs import BEFORE, app
from .options import ALL_SATS, JobFileArgument, JsonOption, TrackersOption, YesOption

if TYPE_CHECKING:
    from shardwork.client.asynchronous import AsyncClient
    from shardwork.client.plan import Plan


def _kinds(incomplete: str) -> list[tuple[str, str]]:
    from ..completion import template_kinds

    return template_kinds(incomplete)


@app.command(rich_help_panel=BEFORE)
def init(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help="Left out: shows the kinds there are.", autocompletion=_kinds)
    ] = None,
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="The file to write; - for stdout.")] = Path("job.yaml"),
    json_output: JsonOption = False,
) -> None:
    """Write a commented job file to begin from. Overwrites nothing.

    Example:  shardwork job init sft tutor.yaml
    """
    with guard(json_output, interrupted="See whether the file is whole with:  shardwork job validate FILE"):
        from shardwork.jobs.templates import job_template, template_kinds, write_template

        from .. import render

        if kind is None:
            kinds = template_kinds()
            if json_output:
                emit({"kinds": [{"kind": each, "purpose": purpose} for each, purpose in kinds.items()]})
                return
            render.show(render.pairs([(each, purpose) for each, purpose in kinds.items()]))
            say("→ shardwork job init KIND")
        elif str(path) == "-":
            typer.echo(job_template(kind), nl=False)
        else:
            write_template(kind, path)
            emit({"kind": kind, "path": str(path)}) if json_output else say(f"✓ Wrote {path}")
            say(f"→ Change what is marked with <-, then:  shardwork job validate {path}")


@app.command(rich_help_panel=BEFORE)
def validate(file: JobFileArgument, json_output: JsonOption = False) -> None:
    """Check a job file: keys, values, files, parameters. Needs no coordinator."""
    with guard(json_output):
        from shardwork.client.plan import read

        from .. import measured_views

        loaded = read(file)
        if json_output:
            emit(measured_views.validation_json(loaded))
        else:
            say(f"✓ {file} is valid: {measured_views.summary(loaded.spec)}.")
            say(f"→ shardwork job plan {file}")


@app.command(rich_help_panel=BEFORE)
def plan(context: typer.Context, file: JobFileArgument, json_output: JsonOption = False) -> None:
    """Measure the data and show shards, price and time. Spends nothing.

    Example:  shardwork job plan job.yaml

    Exit 3 when the budget is below the plan, 6 when the wallet is below it.
    """
    with guard(json_output):
        from .. import access, measured_views, plan_page, progress, render

        with progress.shown() as on_progress:
            made = access.run(context, lambda client: client.plan(file), on_progress=on_progress)
        if json_output:
            emit(measured_views.plan_json(made))
        else:
            render.show(plan_page.page(made))
        made.check_affordable()
        if not json_output:
            say(f"\n→ shardwork job submit {file}")


@app.command(rich_help_panel=BEFORE)
def submit(
    context: typer.Context,
    file: JobFileArgument,
    max_sats: Annotated[
        int | None,
        typer.Option(
            "--max-sats", metavar="SATS", min=1, max=ALL_SATS, help="Hard cap for this job; default: the file's budget."
        ),
    ] = None,
    yes: YesOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job afterwards.")] = False,
    report_to: TrackersOption = None,
    json_output: JsonOption = False,
) -> None:
    """Plan, ask, upload the inputs and start the job.

    Safe to repeat until the job's id is printed: the upload is resumed, and nothing is paid twice. After that the same
    file is another job; one of its name that has not ended is told.

    Example:  shardwork job submit job.yaml --max-sats 500 --watch
    """
    with guard(json_output, interrupted="The same command goes on where this one stopped, and never pays twice."):
        from shardwork.client.tracking import trackers

        from .. import access, consent, plan_page, progress, render
        from ..watch import follow_job

        if report_to and not watch:
            usage("Rounds are told to a tracker while the job is watched.", "Add --watch.", json_output)
        trackers.chosen(report_to or ())
        if not yes and not is_terminal():
            sentence = "Submitting spends sats and there is no terminal to ask on."
            usage(sentence, f"Agree beforehand:  shardwork job submit {file} --yes", json_output)

        async def planned(client: AsyncClient) -> tuple[Plan, list[str]]:
            made = await client.plan(file, max_sats=max_sats)
            every = [job.last for job in await client.jobs()]
            return made, [job.id for job in every if job.name == made.spec.name and not job.is_final]

        with progress.shown() as on_progress:
            made, twins = access.run(context, planned, on_progress=on_progress)
        if not json_output:
            render.show(plan_page.page(made), stderr=True)
        made.check_affordable()
        if twins and not json_output:
            consent.tell_of_twin(twins[0], made.spec.name)
        if not yes:
            consent.ask(made)

        with progress.shown() as on_progress:

            def announce(job_id: str) -> None:
                on_progress.close()  # or the id would stand behind the bar
                emit({"id": job_id}) if json_output else typer.echo(job_id)

            job = access.run(context, lambda client: client.submit(made, on_accepted=announce), on_progress=on_progress)
        if watch:
            follow_job(context, job.id, report_to=report_to, json_output=json_output)
        elif not json_output:
            say(f"→ shardwork job watch {job.id}")
            say(f"  shardwork job why {job.id}")
