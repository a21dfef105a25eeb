"""Failpoints: every commit has a name that a test can aim at, and the names read from the source are the real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from shardwork_coordinator import failpoints as live
from shardwork_coordinator.store import MemoryStore

from . import failpoints
from .failpoints import PACKAGE, failpoint_names, nameless, unknown_writes
from .tree import assert_none, modules, planted

SOURCE = """
def outside(store):
    return store.write(lambda tx: None)

async def waiting(engine):
    async def inner():
        return await engine.store.write(lambda tx: None)
    return await inner()

class Desk:
    def __init__(self, store):
        self._store = store

    async def keep(self):
        await self._store.write(lambda tx: None)
"""


def test_known_commits_and_effects_are_found() -> None:
    names = failpoint_names()
    known = {
        "granting:Granting.grant",
        "sweeper:Sweeper._expire",
        "outbox:OutboxRunner._execute",
        "rpc.results:submit_result",
    }
    assert {"effect:push", "effect:execute"} | known <= set(names)
    assert any(name.startswith("money.payouts:") for name in names)
    assert not any(name.startswith(("failpoints:", "cli:")) for name in names)


def test_every_commit_is_made_by_a_function_that_has_a_name() -> None:
    assert_none(nameless(modules(PACKAGE)))


def test_everything_that_is_written_to_is_known_to_be_a_store_or_not() -> None:
    assert_none(unknown_writes(modules(PACKAGE)))


async def test_the_names_read_from_the_source_are_those_of_the_running_wrapper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []

    def note(name: str, moment: str) -> None:
        seen.append(f"{name}:{moment}")

    monkeypatch.setattr(live, "hit", note)
    store = live.Failing(MemoryStore())
    store.start()
    scope: dict[str, Any] = {"__name__": "shardwork_coordinator.rounds.planted"}
    exec(compile(SOURCE, "planted.py", "exec"), scope)
    await scope["outside"](store)
    await scope["waiting"](type("Engine", (), {"store": store}))
    await cast(Callable[[Any], Any], scope["Desk"])(store).keep()
    store.close()
    read = [call.place for call in failpoints.store_writes(planted(SOURCE, PACKAGE + "rounds/planted.py"))]
    assert seen == [f"{name}:{moment}" for name in read for moment in (live.BEFORE, live.AFTER)]
    assert read == ["rounds.planted:outside", "rounds.planted:waiting.<locals>.inner", "rounds.planted:Desk.keep"]


@pytest.mark.parametrize(
    "text",
    [
        "store.write(work)",
        "def f(store):\n  return lambda: store.write(work)",
        "def f(store):\n  return [store.write(one) for one in works]",
        "def f(name):\n  hit(name, BEFORE)",
    ],
)
def test_a_commit_without_a_name_is_found(text: str) -> None:
    assert nameless([planted(text, PACKAGE + "planted.py")]) != []


def test_a_write_to_something_unknown_is_found() -> None:
    assert unknown_writes([planted("def f():\n  ledger.write(work)", PACKAGE + "planted.py")]) == [
        PACKAGE + "planted.py:2 ledger.write"
    ]
