"""One coordinator for the tests of a module; each test begins and ends with nobody attached and the books balanced."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from .market import Market, market


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    async with market(tmp_path_factory.mktemp("market")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def place(shared: Market) -> AsyncIterator[Market]:
    yield shared
    await shared.settle()
    await shared.check_books()
