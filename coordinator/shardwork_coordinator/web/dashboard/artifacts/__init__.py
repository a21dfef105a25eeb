"""The pages of artifacts: what lies in the store, and of each what it is, why it is kept and where it comes from.

    listing  every artifact, by kind, owner, job, size or age
    content  one artifact: owners, and the needs that keep it
    lineage  what made it from what, and what was made from it

No content is shown, and nothing is deleted by hand: `artifacts.expiry` knows what nobody needs.
"""

from __future__ import annotations

from fastapi import APIRouter

from ..shell import Shell
from . import content, listing

__all__ = ["router"]


def router(shell: Shell) -> APIRouter:
    routes = APIRouter()
    for page in (listing, content):
        routes.include_router(page.router(shell))
    return routes
