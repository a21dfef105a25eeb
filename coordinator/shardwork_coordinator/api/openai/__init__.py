"""The OpenAI-compatible face under /v1."""

from __future__ import annotations

from fastapi import APIRouter

from ..desk import ApiDesk


def add(router: APIRouter, desk: ApiDesk) -> None:
    return None
