"""`shardwork job pause | resume | cancel | topup`: each says what it costs before it happens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from ..outcome import emit, guard, say
from .jobs import STEER, app
from .options import ALL_SATS, JobIdArgument, JsonOption, YesOption

if TYPE_CHECKING:
    from shardwork.client.asynchronous import AsyncClient
    from shardwork.client.job import AsyncJob
    from shardwork.client.results import ControlCost, JobStatus


@app.command(rich_help_panel=STEER)
def pause(context: typer.Context, job_id: JobIdArgument, json_output: JsonOption = False) -> None:
    """Hand out no more shards. Running ones finish and are paid."""
    _steer(context, job_id, "pause", lambda job: job.pause(), json_output)


@app.command(rich_help_panel=STEER)
def resume(context: typer.Context, job_id: JobIdArgument, json_output: JsonOption = False) -> None:
    """Go on with a paused job."""
    _steer(context, job_id, "resume", lambda job: job.resume(), json_output)


@app.command(rich_help_panel=STEER)
def cancel(context: typer.Context, job_id: JobIdArgument, json_output: JsonOption = False) -> None:
    """Stop a job for good. Valid work is paid, the rest of the budget comes back."""
    _steer(context, job_id, "cancel", lambda job: job.cancel(), json_output)


@app.command(rich_help_panel=STEER)
def topup(
    context: typer.Context,
    job_id: JobIdArgument,
    sats: Annotated[int, typer.Argument(metavar="SATS", min=1, max=ALL_SATS, help="Whole sats to add.")],
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    """Add sats from your balance to a job's budget. What it does not use comes back at its end.

    They pay for spare copies and further tries that the plan did not reserve.
    """
    with guard(json_output, interrupted=f"See whether it took effect with:  shardwork job show {job_id}"):
        from .. import access, consent, render, views

        async def asked(client: AsyncClient) -> ControlCost:
            return await (await client.job(job_id)).cost_of("topup", sats=sats)

        async def added(client: AsyncClient) -> JobStatus:
            return await (await client.job(job_id)).top_up(sats)

        cost = access.run(context, asked)
        if not yes and not json_output:
            consent.ask_for(cost, job_id, sats)
        job = access.run(context, added)
        if json_output:
            emit({**views.job_json(job), "cost": views.cost_json(cost)})
        else:
            render.show(render.job_brief(job))


def _steer(
    context: typer.Context,
    job_id: str,
    name: str,
    action: Callable[[AsyncJob], Awaitable[JobStatus]],
    json_output: bool,
) -> None:
    """What it costs, one state change, then the state and the money as they are now."""
    with guard(json_output, interrupted=f"See whether it took effect with:  shardwork job show {job_id}"):
        from .. import access, render, views

        async def steered(client: AsyncClient) -> JobStatus:
            found = await client.job(job_id)
            if not json_output and not found.last.is_final:
                say(f"● {(await found.cost_of(name)).why.sentence}")
            return await action(found)

        job = access.run(context, steered)
        if json_output:
            emit(views.job_json(job))
        else:
            render.show(render.job_brief(job))
