"""Following a job until it ends: a live picture on a terminal, one line per change elsewhere, JSON Lines with --json.

Reconnects by itself when the coordinator restarts (`calls.watch`). Ctrl-C only detaches: the job goes on, and one
is told how to come back. Ends with JobFailed (exit 8) when the job did not succeed. The picture itself is `live`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import typer
from rich.live import Live

from shardwork.client import calls
from shardwork.client.ending import judge
from shardwork.client.settings import Access
from shardwork.clock import SystemClock
from shardwork.errors import ShardworkError
from shardwork.session import Session
from shardwork.v1 import jobs_pb2

from .access import run
from .live import Frame, WatchState
from .outcome import INTERRUPTED, emit, say
from .render import console, event_line, job_page
from .views import event_json, job_json

REDRAW_S = 0.125


def follow_job(access: Access, job_id: str, *, json_output: bool) -> None:
    """Blocks until the job is final. Raises JobFailed unless it succeeded; typer.Exit(130) on Ctrl-C."""
    follow = _follow_json if json_output else _follow_live if _can_draw() else _follow_lines
    try:
        job = run(access, lambda session: follow(session, job_id))
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


async def follow_events(session: Session, job_id: str, *, after_sequence: int, json_output: bool) -> jobs_pb2.JobView:
    """Prints every event from `after_sequence` on until the job is final; used by watch and `events --follow`."""
    out, last = console(), jobs_pb2.JobView()
    async with aclosing(calls.watch(session, job_id, after_sequence=after_sequence, on_lost=_note_loss)) as answers:
        async for answer in answers:
            last = answer.job if answer.HasField("job") else last
            for event in answer.events:
                if json_output:
                    emit(event_json(event))
                else:
                    out.print(event_line(event), soft_wrap=True)
            out.file.flush()
    return last


async def _follow_json(session: Session, job_id: str) -> jobs_pb2.JobView:
    """JSON Lines: every event, and at the end {"kind": "job.final", "job": {…}}."""
    job = await follow_events(session, job_id, after_sequence=0, json_output=True)
    emit({"kind": "job.final", "job": job_json(job)})
    return job


async def _follow_lines(session: Session, job_id: str) -> jobs_pb2.JobView:
    """One line per event, for logs and pipes."""
    return await follow_events(session, job_id, after_sequence=0, json_output=False)


async def _follow_live(session: Session, job_id: str) -> jobs_pb2.JobView:
    """The live picture on the alternate screen, so that a resize leaves nothing behind; then the job page."""
    state, out = WatchState(), console()

    def on_lost(error: ShardworkError, _attempt: int) -> None:
        state.lost = error.why.sentence

    def picture() -> Frame:
        return Frame(state, SystemClock().now_ms())

    with Live(get_renderable=picture, console=out, screen=True, auto_refresh=False) as live:
        async with _redrawn(live), aclosing(calls.watch(session, job_id, on_lost=on_lost)) as answers:
            async for answer in answers:
                state.hear(answer)
    job = state.job or await calls.job(session, job_id)
    out.print(job_page(job))
    return job


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
