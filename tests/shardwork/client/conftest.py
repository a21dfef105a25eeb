"""Fixtures of the library's tests: the client tests' fake coordinator, a requester with sats, and a job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shardwork import Client
from shardwork.v1 import jobs_pb2
from tests.client import tiny_model
from tests.client.fake_coordinator import Fake, Running


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.delenv("SHARDWORK_JOIN", raising=False)
    monkeypatch.setattr("shardwork.session.BACKOFF_S", 0.001)
    monkeypatch.setattr("shardwork.client.calls.WATCH_FIRST_PAUSE_S", 0.01)
    served = Running(tmp_path / "coordinator")
    yield served
    served.stop()


@pytest.fixture
def fake(running: Running) -> Fake:
    running.fake.available_msat = 5_000_000
    running.fake.quote = jobs_pb2.Quote(shards=9, rounds=2, reserve_msat=1_500_000, estimate_high_msat=1_400_000)
    return running.fake


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def client(fake: Fake, home: Path) -> Iterator[Client]:
    with Client(fake.join, home=home) as made:
        yield made


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    return tiny_model.write_job(tmp_path)
