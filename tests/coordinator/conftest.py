"""Every Store, one after the other, for the suites that must hold on each.

One PostgreSQL server serves the whole session; its tables are emptied before each test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import database
import pytest

from shardwork_coordinator.store import SqlStore, Store

from .stores import OPEN


@pytest.fixture(scope="session")
def postgresql(server: database.Server) -> str:
    """URL of a database with the schema in it."""
    url = server.new_database()
    store = SqlStore(url)
    store.start()
    store.close()
    return url


@pytest.fixture(params=sorted(OPEN))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    name = str(request.param)
    url = str(request.getfixturevalue("postgresql")) if name == "postgresql" else ""
    opened = OPEN[name](tmp_path, url)
    opened.start()
    yield opened
    opened.close()
