"""What tests of several folders share: one PostgreSQL server for the whole session, started when first asked for; and a
thread for each process that computes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import database
import pytest

# read when torch is first imported. Thread pools of processes that run side by side wait for each other: on two cores a
# step on a tiny model took three times as long. A worker's child has one thread as well
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def pytest_configure() -> None:
    """A shell that starts the suite in the background lets every child ignore Ctrl-C, and some tests press it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server() -> Iterator[database.Server]:
    """A PostgreSQL server that nobody else uses. Tests crash the server, never the machine."""
    with database.embedded(crash_safe=False) as running:
        yield running
