"""What the end-to-end tests share: a town with two workers, a quiet one where nobody works, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from . import models
from .chromium import chromium
from .fake_people import FakePeople, served, task
from .people_visit import Visit
from .world import CALM, WORKERS, World


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A coordinator, two workers and a requester with 100,000 sats, a model folder and chat rows."""
    world = World(tmp_path_factory.mktemp("town"), CALM)
    try:
        world.start(*WORKERS, sats=100_000)
        models.write_gpt2(world.folder / "models" / "gpt2")
        models.write_chat(world.folder / "chat.jsonl")
        yield world
    finally:
        world.stop()


@pytest.fixture(scope="session")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A coordinator without any worker, and a requester with 1,000 sats."""
    world = World(tmp_path_factory.mktemp("quiet"))
    try:
        world.start(sats=1_000)
        yield world
    finally:
        world.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def fake() -> FakePeople:
    return FakePeople([task(number) for number in range(1, 9)])


@pytest.fixture
def web(fake: FakePeople) -> Iterator[str]:
    with served(fake) as address:
        yield address


@pytest.fixture(params=["desktop", "phone"])
def visit(request: pytest.FixtureRequest, browser: Any, fake: FakePeople, web: str) -> Iterator[Visit]:
    found = Visit(browser, fake, web, request.param)
    yield found
    found.context.close()
