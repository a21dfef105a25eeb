"""The HTTP API: what a requester's gRPC gives, as JSON under /api/v1, and an OpenAI-compatible face under /v1.

desk       what every route works with
keys       who calls: bearer keys, never cookies; limits: how often
failures   typed errors as statuses and bodies, in the form of either face
bodies     reading what is sent, bounded in size and time; uploads: files of a form, streamed to disk
mapping    messages of the protos as JSON and as schemas
routes     a table of routes, checked and served alike; openapi makes the document from it
native     the table of /api/v1; streams its events as SSE; contents its bytes
measuring  what a requester's own machine would measure in his files, in processes of their own (lanes)
openai/    files, fine-tuning jobs and models in the words of the published clients

Handlers are those of the gRPC services. Included by `web.server`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # the processes that measure import this package, and need neither a web server nor an engine
    from fastapi import APIRouter

    from .desk import ApiDesk


def router(desk: ApiDesk) -> APIRouter:
    """Both faces."""
    from fastapi import APIRouter

    from . import native, openai

    found = APIRouter()
    native.add(found, desk)
    openai.add(found, desk)
    return found
