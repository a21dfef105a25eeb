"""The pulse of a page: it hears of every change, also of one that comes while it rests after another."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shardwork_coordinator.web.dashboard import pulse
from shardwork_coordinator.web.live import Live

from .scene import COOKIE, Scene, signed_in
from .visitor import visitor


def asking(secret: str, *, seen: str) -> Any:
    """A page's request for its stream."""
    return cast("Any", SimpleNamespace(cookies={COOKIE: secret}, query_params={"seen": seen}))


async def test_a_change_during_the_rest_is_told_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    monkeypatch.setattr(pulse, "QUIET_S", 0.1)
    monkeypatch.setattr(pulse, "BEAT_S", 0.05)
    desk = cast("Any", SimpleNamespace(engine=scene.engine, live=Live(scene.engine), cookie=COOKIE))
    request = cast(
        "Any", SimpleNamespace(cookies={COOKIE: await signed_in(scene)}, query_params={"seen": desk.live.mark()})
    )
    told = pulse.beats(request, desk, "ada")
    assert (await anext(told)).event == "beat"
    scene.engine.wake()
    assert [(await anext(told)).event for _ in range(2)] == ["changed", "beat"]
    resting = asyncio.ensure_future(anext(told))
    await asyncio.sleep(0)
    # while it rests
    scene.engine.wake()
    assert (await resting).event == "changed"
    await told.aclose()
    scene.store.close()


async def test_a_change_between_the_page_and_its_stream_is_told_first() -> None:
    scene = Scene()
    desk = cast("Any", SimpleNamespace(engine=scene.engine, live=Live(scene.engine), cookie=COOKIE))
    secret = await signed_in(scene)
    seen = desk.live.mark()
    fresh = pulse.beats(asking(secret, seen=seen), desk, "ada")
    assert (await anext(fresh)).event == "beat"
    scene.engine.wake()
    # also one that was cut off meanwhile, and one of an earlier run
    for mark in (seen, "1"):
        late = pulse.beats(asking(secret, seen=mark), desk, "ada")
        assert [(await anext(late)).event for _ in range(2)] == ["changed", "beat"]
        await late.aclose()
    await fresh.aclose()
    scene.store.close()


async def test_a_page_is_marked_before_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    async with visitor(scene.engine) as client:
        read = scene.store.read

        async def changing(work: Any) -> Any:
            found = await read(work)
            scene.engine.wake()
            return found

        first = mark_of((await client.get("/jobs")).text)
        assert mark_of((await client.get("/jobs")).text) == first
        monkeypatch.setattr(scene.store, "read", changing)
        stale = mark_of((await client.get("/jobs")).text)
        monkeypatch.setattr(scene.store, "read", read)
        assert mark_of((await client.get("/jobs")).text) != stale
    scene.store.close()


def mark_of(page: str) -> str:
    found = re.search(r'sse-connect="/pulse\?seen=(\d+)"', page)
    assert found is not None
    return found[1]
