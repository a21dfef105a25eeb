"""`shardwork job pause | resume | cancel`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import typer

from ..outcome import emit, guard
from .jobs import STEER, app
from .options import JobIdArgument, JsonOption

if TYPE_CHECKING:
    from shardwork.client.asynchronous import AsyncClient
    from shardwork.client.job import AsyncJob
    from shardwork.client.results import JobStatus


@app.command(rich_help_panel=STEER)
def pause(context: typer.Context, job_id: JobIdArgument, json_output: JsonOption = False) -> None:
    """Hand out no more shards. Running ones finish and are paid."""
    _steer(context, job_id, lambda job: job.pause(), json_output)


@app.command(rich_help_panel=STEER)
def resume(context: typer.Context, job_id: JobIdArgument, json_output: JsonOption = False) -> None:
    """Go on with a paused job."""
    _steer(context, job_id, lambda job: job.resume(), json_output)


@app.command(rich_help_panel=STEER)
def cancel(context: typer.Context, job_id: JobIdArgument, json_output: JsonOption = False) -> None:
    """Stop a job for good. Valid work is paid, the rest of the budget comes back."""
    _steer(context, job_id, lambda job: job.cancel(), json_output)


def _steer(
    context: typer.Context, job_id: str, action: Callable[[AsyncJob], Awaitable[JobStatus]], json_output: bool
) -> None:
    """One state change, then the state and the money as they are now."""
    with guard(json_output, interrupted=f"See whether it took effect with:  shardwork job show {job_id}"):
        from .. import access, render, views

        async def steered(client: AsyncClient) -> JobStatus:
            return await action(await client.job(job_id))

        job = access.run(context, steered)
        if json_output:
            emit(views.job_json(job))
        else:
            render.show(render.job_brief(job))
