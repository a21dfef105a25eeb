"""Following a job until it ends: a live picture on a terminal, one line per change elsewhere, JSON Lines with --json.

Reconnects by itself when the coordinator restarts (`AsyncJob.watch`). Ctrl-C only detaches: the job goes on, and one
is told how to come back. Ends with JobFailed (exit 8) when the job did not succeed. The picture itself is `live`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime

import typer
from rich.live import Live

from shardwork.client.asynchronous import AsyncClient
from shardwork.client.job import AsyncJob
from shardwork.client.results import JobStatus
from shardwork.client.waiting import judge
from shardwork.clock import SystemClock
from shardwork.errors import ShardworkError

from .access import run
from .live import Frame, WatchState
from .log_page import LogPage
from .outcome import INTERRUPTED, emit, say
from .render import console, event_line, job_page
from .views import event_json, job_json, log_json

REDRAW_S = 0.125


def follow_job(context: typer.Context, job_id: str, *, report_to: list[str] | None, json_output: bool) -> None:
    """Blocks until the job is final. Raises JobFailed unless it succeeded; typer.Exit(130) on Ctrl-C."""
    follow = _follow_json if json_output else _follow_live if _can_draw() else follow_lines

    async def followed(client: AsyncClient) -> JobStatus:
        watched = await client.job(job_id)
        try:
            return await follow(watched, report_to)
        finally:
            for line in watched.tracked_in if not json_output else ():
                say(f"→ {line}")

    try:
        job = run(context, followed)
    except KeyboardInterrupt:
        newline = "\n" if sys.stderr.isatty() else ""
        say(f"{newline}Detached; the job goes on. Come back with:  shardwork job watch {job_id}")
        raise typer.Exit(INTERRUPTED) from None
    judge(job)
    if job.outputs and not json_output:
        say(f"→ shardwork job download {job.id} DIR")


def _can_draw() -> bool:
    """Whether stdout is a terminal that can move its cursor."""
    return sys.stdout.isatty() and not console().is_dumb_terminal


async def follow_lines(
    job: AsyncJob, report_to: list[str] | None = None, *, after_sequence: int = 0, json_output: bool = False
) -> JobStatus:
    """Prints every event from `after_sequence` on until the job is final, one line each, for logs and pipes."""
    out = console()
    watched = job.watch(after_sequence=after_sequence, on_lost=_note_loss, report_to=report_to)
    async with aclosing(watched) as changes:
        async for change in changes:
            for event in change.events:
                if json_output:
                    emit(event_json(event))
                else:
                    out.print(event_line(event), soft_wrap=True)
            out.file.flush()
    return job.last


async def follow_log(job: AsyncJob, *, last: int, follow: bool, json_output: bool) -> None:
    """Prints the last lines of the job's log, and with `follow` what comes until the job is final."""
    page = LogPage(datetime.fromtimestamp(SystemClock().now_ms() / 1000).date())
    async with aclosing(job.logs(last=last, follow=follow, on_lost=_note_loss)) as found:
        async for line in found:
            if json_output:
                emit(log_json(line))
            else:
                page.add(line)


async def _follow_json(job: AsyncJob, report_to: list[str] | None) -> JobStatus:
    """JSON Lines: every event, and at the end {"kind": "job.final", "job": {…}}."""
    last = await follow_lines(job, report_to, json_output=True)
    emit({"kind": "job.final", "job": job_json(last)})
    return last


async def _follow_live(job: AsyncJob, report_to: list[str] | None) -> JobStatus:
    """The live picture on the alternate screen, so that a resize leaves nothing behind; then the job page."""
    state, out = WatchState(), console()

    def on_lost(error: ShardworkError, _attempt: int) -> None:
        state.lost = error.why.sentence

    def picture() -> Frame:
        return Frame(state, SystemClock().now_ms())

    with Live(get_renderable=picture, console=out, screen=True, auto_refresh=False) as live:
        async with _redrawn(live), aclosing(job.watch(on_lost=on_lost, report_to=report_to)) as changes:
            async for change in changes:
                state.hear(change)
    out.print(job_page(job.last))
    return job.last


@asynccontextmanager
async def _redrawn(live: Live) -> AsyncGenerator[None, None]:
    """Redraws from the event loop, never from a thread: nothing changes while a frame is being drawn."""

    async def redraw() -> None:
        while True:
            live.refresh()
            await asyncio.sleep(REDRAW_S)

    task = asyncio.create_task(redraw())
    try:
        yield
    finally:
        task.cancel()


def _note_loss(error: ShardworkError, attempt: int) -> None:
    """Says once per outage that the connection is lost, on stderr."""
    if attempt == 1:
        say(f"{error.why.sentence} Trying again …")
