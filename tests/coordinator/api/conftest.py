"""The stand of the API's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from shardwork_coordinator.store import MemoryStore

from .stand import ANNA, BERT, Stand, standing


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as made:
        yield made


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    opened = MemoryStore()
    opened.start()
    yield opened
    opened.close()


@pytest.fixture
async def anna(stand: Stand) -> httpx.AsyncClient:
    return await stand.party(ANNA)


@pytest.fixture
async def bert(stand: Stand) -> httpx.AsyncClient:
    return await stand.party(BERT)
