"""The operator's dashboard: pages behind a login, and the actions on them. Rendered on the server, readable without
scripts; a stream says when to look again.

    desk      what every page works with
    visits    who is asking, and with which right
    shell     the frame around each page; errors and what was done, in words
    signing   login, first user, leaving; one's own password and codes
    users     who may sign in
    money     accounts, transfers, payments
    alignment people, loops and answers on the pages of jobs
    artifacts what is stored, why, and where it comes from
    policy    rules of the house
    history   the audit log
    pulse     "something changed", as a stream
    …         a page each

What is shown comes from one consistent read; what is done goes through the same functions as the RPCs, with an entry in
the audit log in the same transaction. Mounted by `server`.
"""

from __future__ import annotations

from fastapi import APIRouter

from . import (
    artifacts,
    history,
    job,
    jobs,
    money,
    overview,
    policy,
    public,
    pulse,
    shard,
    signing,
    steering,
    users,
    worker,
    workers,
)
from .alignment import samples
from .shell import Shell

__all__ = ["router"]

#: pages in a frame of their own, each a module with `router(shell)`
PAGES = (
    public,
    signing,
    overview,
    jobs,
    shard,
    job,
    samples,
    steering,
    workers,
    worker,
    artifacts,
    money,
    policy,
    history,
    users,
)


def router(shell: Shell) -> APIRouter:
    """Every route of the dashboard."""
    routes = APIRouter()
    routes.include_router(pulse.router(shell.desk))
    for page in PAGES:
        routes.include_router(page.router(shell))
    return routes
