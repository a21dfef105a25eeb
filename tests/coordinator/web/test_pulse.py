"""The pulse of a page: it hears of every change, also of one that comes while it rests after another."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shardwork_coordinator.web.dashboard import pulse
from shardwork_coordinator.web.live import Live

from .scene import COOKIE, Scene, signed_in


async def test_a_change_during_the_rest_is_told_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    monkeypatch.setattr(pulse, "QUIET_S", 0.1)
    monkeypatch.setattr(pulse, "BEAT_S", 0.05)
    desk = cast("Any", SimpleNamespace(engine=scene.engine, live=Live(scene.engine), cookie=COOKIE))
    request = cast("Any", SimpleNamespace(cookies={COOKIE: await signed_in(scene)}))
    told = pulse.beats(request, desk)
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
