"""The stand of the API's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from .stand import ANNA, BERT, Stand, standing


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as made:
        yield made


@pytest.fixture
async def anna(stand: Stand) -> httpx.AsyncClient:
    return await stand.party(ANNA)


@pytest.fixture
async def bert(stand: Stand) -> httpx.AsyncClient:
    return await stand.party(BERT)
