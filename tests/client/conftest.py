"""Fixtures of the client's tests: a serving fake coordinator, a home of one's own, and ways to run the command."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from shardwork_client.cli import app

from .fake_coordinator import Fake, Running

Run = Callable[..., Result]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    served = Running(tmp_path / "coordinator")
    yield served
    served.stop()


@pytest.fixture
def fake(running: Running) -> Fake:
    return running.fake


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SHARDWORK_HOME in an empty folder; nothing of the real user leaks in."""
    place = tmp_path / "home"
    monkeypatch.setenv("SHARDWORK_HOME", str(place))
    monkeypatch.delenv("SHARDWORK_JOIN", raising=False)
    monkeypatch.delenv("SHARDWORK_DEBUG", raising=False)
    return place


@pytest.fixture
def run(home: Path) -> Run:
    """Runs `shardwork ARGS…` in this process; stdout and stderr stay apart."""

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def logged_in(run: Run, fake: Fake) -> Run:
    """Like `run`, after a login at the fake coordinator."""
    result = run("login", fake.join)
    assert result.exit_code == 0, result.stderr
    return run


def json_of(result: Result) -> Any:
    """The one JSON object on stdout."""
    lines = result.stdout.splitlines()
    assert len(lines) == 1, result.stdout
    return json.loads(lines[0])


def error_of(result: Result) -> Any:
    """The one JSON error object: the last line on stderr."""
    return json.loads(result.stderr.splitlines()[-1])["error"]
