"""The OpenAI-compatible face under /v1, for the published clients as they are.

files      what is sent and what a job made (results)
asked      a client's wishes, read strictly; tuning: as a plan; creating: as a job that is measured, priced and paid
jobs       jobs, events and checkpoints in a client's words; kept: what is remembered of those words
models     base models that are offered, and one's own
"""

from __future__ import annotations

from fastapi import APIRouter

from .. import routes
from ..desk import ApiDesk
from . import files, jobs, models

PREFIX = "/v1"


def add(router: APIRouter, desk: ApiDesk) -> None:
    routes.add(router, desk, PREFIX, (*files.TABLE, *jobs.TABLE, *models.TABLE), openai=True)
