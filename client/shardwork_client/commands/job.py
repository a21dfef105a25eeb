"""`shardwork job …`: the noun and its verbs, thin. Planning is `plan`, paying `submit`, following `watch`.

A command here reads its arguments, does one call or one flow, and prints it as JSON or pretty; nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..outcome import emit, guard, say
from .options import ALL_SATS, JobFileArgument, JobIdArgument, JsonLinesOption, JsonOption, YesOption

if TYPE_CHECKING:
    from shardwork.session import Session
    from shardwork.v1 import jobs_pb2

app = typer.Typer(help="Plan, submit, follow and collect jobs.", no_args_is_help=True)

BEFORE = "Before it costs anything"
FOLLOW = "Follow"
STEER = "Steer"
COLLECT = "Collect"


@app.command(rich_help_panel=BEFORE)
def validate(file: JobFileArgument, json_output: JsonOption = False) -> None:
    """Check a job file: keys, values, files, parameters. Needs no coordinator."""
    with guard(json_output):
        from shardwork.client.validation import validate as validated

        from .. import measured_views

        loaded = validated(file)
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
        from shardwork.client import plan

        from .. import access, measured_views, plan_page, progress, render

        where = access.access(context)
        with progress.shown() as on_progress:
            measured = plan.measure(file, on_progress=on_progress)
        priced = access.run(where, lambda session: plan.price(session, measured))
        if json_output:
            emit(measured_views.plan_json(priced))
        else:
            render.show(plan_page.page(priced))
        plan.refuse_unaffordable(priced)
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
    json_output: JsonOption = False,
) -> None:
    """Plan, ask, upload the inputs and start the job.

    Safe to repeat: the same file resumes the upload and never pays twice.

    Example:  shardwork job submit job.yaml --max-sats 500 --watch
    """
    with guard(json_output, interrupted="The same command goes on where this one stopped, and never pays twice."):
        from .. import access, submit
        from ..watch import follow_job

        where = access.access(context)

        def announce(job_id: str) -> None:
            emit({"id": job_id}) if json_output else typer.echo(job_id)

        job_id = submit.submit_file(where, file, max_sats=max_sats, yes=yes, json_output=json_output, announce=announce)
        if watch:
            follow_job(where, job_id, json_output=json_output)
        elif not json_output:
            say(f"→ shardwork job watch {job_id}")
            say(f"  shardwork job why {job_id}")


@app.command("list", rich_help_panel=FOLLOW)
def list_jobs(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="Newest jobs to show.")] = 20,
    json_output: JsonOption = False,
) -> None:
    """Your jobs, newest first."""
    with guard(json_output):
        from shardwork.client import calls

        from .. import access, render, views

        jobs = access.run(access.access(context), lambda session: calls.jobs(session, limit=limit))
        if json_output:
            emit({"jobs": [views.job_json(each) for each in jobs]})
        elif jobs:
            render.show(render.JobList(jobs))
        else:
            say("No jobs yet.\n→ shardwork job plan FILE")


@app.command(rich_help_panel=FOLLOW)
def show(context: typer.Context, job_id: JobIdArgument, json_output: JsonOption = False) -> None:
    """Stages, rounds, shards and money of one job."""
    with guard(json_output):
        from shardwork.client import calls

        from .. import access, render, views

        job = access.run(access.access(context), lambda session: calls.job(session, job_id))
        if json_output:
            emit(views.job_json(job))
        else:
            render.show(render.job_page(job))


@app.command(rich_help_panel=FOLLOW)
def watch(context: typer.Context, job_id: JobIdArgument, json_output: JsonLinesOption = False) -> None:
    """Follow a job until it ends: exit 0 when it succeeded, 8 when not. Ctrl-C only detaches."""
    with guard(json_output):
        from .. import access
        from ..watch import follow_job

        follow_job(access.access(context), job_id, json_output=json_output)


@app.command(rich_help_panel=FOLLOW)
def events(
    context: typer.Context,
    job_id: JobIdArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events until the job ends.")] = False,
    after: Annotated[
        int, typer.Option("--after", min=0, max=2**63, help="Only events after this sequence number.")
    ] = 0,
    json_output: JsonOption = False,
) -> None:
    """What happened to a job, oldest first. With --follow --json: JSON Lines."""
    with guard(json_output, interrupted="The job goes on."):
        from .. import access, render, views
        from ..watch import follow_events

        where = access.access(context)
        if follow:

            async def go_on(session: Session) -> None:
                await follow_events(session, job_id, after_sequence=after, json_output=json_output)

            access.run(where, go_on)
            return
        found = access.run(where, lambda session: _events(session, job_id, after))
        if json_output:
            emit({"events": [views.event_json(each) for each in found]})
            return
        out = render.console()
        for each in found:
            out.print(render.event_line(each), soft_wrap=True)


async def _events(session: Session, job_id: str, after: int) -> list[jobs_pb2.JobEvent]:
    from shardwork.client import calls

    return [event async for event in calls.events(session, job_id, after_sequence=after)]


@app.command(rich_help_panel=FOLLOW)
def why(context: typer.Context, job_id: JobIdArgument, json_output: JsonOption = False) -> None:
    """Why a job waits, is paused or failed: a code, a sentence, evidence and a next step."""
    with guard(json_output):
        from shardwork.client import calls

        from .. import access, render, views

        job = access.run(access.access(context), lambda session: calls.job(session, job_id))
        if json_output:
            emit({"id": job.id, "state": job.state, **views.why_json(job.why)})
        else:
            render.show(render.why_page(job))


@app.command(rich_help_panel=STEER)
def pause(context: typer.Context, job_id: JobIdArgument, json_output: JsonOption = False) -> None:
    """Hand out no more shards. Running ones finish and are paid."""
    from shardwork.client import calls

    _steer(context, job_id, calls.pause, json_output)


@app.command(rich_help_panel=STEER)
def resume(context: typer.Context, job_id: JobIdArgument, json_output: JsonOption = False) -> None:
    """Go on with a paused job."""
    from shardwork.client import calls

    _steer(context, job_id, calls.resume, json_output)


@app.command(rich_help_panel=STEER)
def cancel(context: typer.Context, job_id: JobIdArgument, json_output: JsonOption = False) -> None:
    """Stop a job for good. Valid work is paid, the rest of the budget comes back."""
    from shardwork.client import calls

    _steer(context, job_id, calls.cancel, json_output)


def _steer(
    context: typer.Context,
    job_id: str,
    action: Callable[[Session, str], Awaitable[jobs_pb2.JobView]],
    json_output: bool,
) -> None:
    """One state change, then the state and the money as they are now."""
    with guard(json_output, interrupted=f"See whether it took effect with:  shardwork job show {job_id}"):
        from .. import access, render, views

        job = access.run(access.access(context), lambda session: action(session, job_id))
        if json_output:
            emit(views.job_json(job))
        else:
            render.show(render.job_brief(job))


@app.command(rich_help_panel=COLLECT)
def report(context: typer.Context, job_id: JobIdArgument, json_output: JsonOption = False) -> None:
    """Rounds, workers, payments, outputs and money."""
    with guard(json_output):
        from shardwork.client import calls

        from .. import access, render, views

        found = access.run(access.access(context), lambda session: calls.report(session, job_id))
        if json_output:
            emit(views.report_json(found))
        else:
            render.show(render.report_page(found))


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
        from shardwork.client.download import download_outputs

        from .. import access, download, progress

        with progress.shown() as on_progress:
            fetched = access.run(
                access.access(context),
                lambda session: download_outputs(session, job_id, folder, only=output, on_progress=on_progress),
            )
        if json_output:
            emit({"id": job_id, "outputs": [download.fetched_json(each) for each in fetched]})
        else:
            download.show_fetched(fetched)
