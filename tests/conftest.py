"""What tests of several folders share: one PostgreSQL server for the whole session, started when first asked for."""

from __future__ import annotations

from collections.abc import Iterator

import database
import pytest


@pytest.fixture(scope="session")
def server() -> Iterator[database.Server]:
    """A PostgreSQL server that nobody else uses. Tests crash the server, never the machine."""
    with database.embedded(crash_safe=False) as running:
        yield running
