"""What tests of several folders share: one PostgreSQL server for the whole session, started when first asked for."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import database
import pytest


def pytest_configure() -> None:
    """A shell that starts the suite in the background lets every child ignore Ctrl-C, and some tests press it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server() -> Iterator[database.Server]:
    """A PostgreSQL server that nobody else uses. Tests crash the server, never the machine."""
    with database.embedded(crash_safe=False) as running:
        yield running
