"""`shardwork job list | show | watch | events | logs | why`: what a job does, now and as it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..outcome import emit, guard, say
from .jobs import FOLLOW, app
from .options import JobIdArgument, JsonLinesOption, JsonOption, TrackersOption

if TYPE_CHECKING:
    from shardwork.client.asynchronous import AsyncClient
    from shardwork.client.results import Event, JobStatus
    from shardwork.why import Why


@app.command("list", rich_help_panel=FOLLOW)
def list_jobs(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="Newest jobs to show.")] = 20,
    skip: Annotated[int, typer.Option("--skip", min=0, max=1_000_000, help="Leave out so many newer ones.")] = 0,
    states: Annotated[
        list[str] | None,
        typer.Option("--state", "-s", metavar="STATE", help="Only jobs in this state: running, paused …; repeatable."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Your jobs, newest first.

    Example:  shardwork job list --state running --state paused
    """
    with guard(json_output):
        from .. import access, render, views

        found = access.run(context, lambda client: client.jobs(limit=skip + limit + 1, states=states or ()))
        jobs, has_more = [job.last for job in found[skip : skip + limit]], len(found) > skip + limit
        if json_output:
            emit({"jobs": [views.job_json(each) for each in jobs], "more": has_more})
        elif jobs:
            render.show(render.JobList(jobs))
            if has_more:
                say(f"→ older ones:  shardwork job list --skip {skip + limit}")
        elif skip or states:
            say("There is no such job.\n→ shardwork job list")
        else:
            say("No jobs yet.\n→ shardwork job plan FILE")


@app.command(rich_help_panel=FOLLOW)
def show(context: typer.Context, job_id: JobIdArgument, json_output: JsonOption = False) -> None:
    """Stages, rounds, shards and money of one job."""
    with guard(json_output):
        from .. import access, render, views

        job = access.run(context, lambda client: client.job(job_id)).last
        if json_output:
            emit(views.job_json(job))
        else:
            render.show(render.job_page(job))


@app.command(rich_help_panel=FOLLOW)
def watch(
    context: typer.Context,
    job_id: JobIdArgument,
    report_to: TrackersOption = None,
    json_output: JsonLinesOption = False,
) -> None:
    """Follow a job until it ends: exit 0 when it succeeded, 8 when not. Ctrl-C only detaches.

    Example:  shardwork job watch 6b61 --report-to tensorboard
    """
    with guard(json_output):
        from ..watch import follow_job

        follow_job(context, job_id, report_to=report_to, json_output=json_output)


@app.command(rich_help_panel=FOLLOW)
def events(
    context: typer.Context,
    job_id: JobIdArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events until the job ends.")] = False,
    after: Annotated[
        int, typer.Option("--after", min=0, max=2**63, help="Only events after this sequence number.")
    ] = 0,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=0, max=10_000, help="Only so many of the newest.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """What happened to a job, oldest first. With --follow --json: JSON Lines.

    Example:  shardwork job events 6b61 -n 20 -f
    """
    with guard(json_output, interrupted="The job goes on."):
        from .. import access, render, views
        from ..watch import follow_lines

        async def followed(client: AsyncClient) -> JobStatus:
            job, begin = await client.job(job_id), after
            if lines is not None:
                newest = [event async for event in job.events(after_sequence=after, last=max(lines, 1))]
                begin = newest[0].sequence - (lines > 0) if newest else after
            return await follow_lines(job, ["none"], after_sequence=begin, json_output=json_output)

        async def listed(client: AsyncClient) -> list[Event]:
            job = await client.job(job_id)
            return [event async for event in job.events(after_sequence=after, last=lines)]

        if follow:
            access.run(context, followed)
            return
        found = access.run(context, listed)
        if json_output:
            emit({"events": [views.event_json(each) for each in found]})
            return
        out = render.console()
        for each in found:
            out.print(render.event_line(each), soft_wrap=True)


@app.command(rich_help_panel=FOLLOW)
def logs(
    context: typer.Context,
    job_id: JobIdArgument,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=10_000, help="How many of the newest lines to begin with.")
    ] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until the job ends.")] = False,
    json_output: JsonLinesOption = False,
) -> None:
    """What happened to each shard, oldest first: who had it, how far it came, what was thought of it, and why."""
    with guard(json_output, interrupted="The job goes on."):
        from .. import access
        from ..watch import follow_log

        async def read(client: AsyncClient) -> None:
            await follow_log(await client.job(job_id), last=lines, follow=follow, json_output=json_output)

        access.run(context, read)


@app.command(rich_help_panel=FOLLOW)
def why(context: typer.Context, job_id: JobIdArgument, json_output: JsonOption = False) -> None:
    """Why a job waits, is paused or failed: a code, a sentence, evidence and a next step."""
    with guard(json_output):
        from .. import access, render, views

        async def asked(client: AsyncClient) -> tuple[JobStatus, list[Why]]:
            found = await client.job(job_id)
            return found.last, await found.reasons()

        job, reasons = access.run(context, asked)
        if json_output:
            told = [views.why_json(each) for each in reasons]
            emit({"id": job.id, "state": job.state, **views.why_json(job.why), "reasons": told})
        else:
            render.show(render.why_page(job, reasons))
