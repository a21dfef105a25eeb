"""What the shell completes beyond commands and flags: ids of jobs and kinds of templates.

The shell waits for the answer at every Tab and shows whatever is printed, so this gives up soon and never complains.
"""

from __future__ import annotations

import asyncio
import os

import typer

from shardwork.errors import ShardworkError

PATIENCE_S = 2.0
MOST = 50


def job_ids(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """(id, name and state) of the newest jobs whose id begins with `incomplete`; nothing where nobody answers."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        return asyncio.run(_asked(context, incomplete))
    except (ShardworkError, OSError, TimeoutError):
        return []


async def _asked(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    from shardwork.client.asynchronous import AsyncClient

    from .access import joined
    from .render import clean

    async with asyncio.timeout(PATIENCE_S), AsyncClient(joined(context)) as client:
        jobs = [job.last for job in await client.jobs(limit=MOST)]
    return [(job.id, f"{clean(job.name)}, {job.state}") for job in jobs if job.id.startswith(incomplete)]


def template_kinds(incomplete: str) -> list[tuple[str, str]]:
    """(kind, what it is for) of the templates whose kind begins with `incomplete`."""
    from shardwork.jobs.templates import template_kinds as kinds

    return [(kind, purpose) for kind, purpose in kinds().items() if kind.startswith(incomplete)]
