"""Fixtures of the worker's tests: a fake coordinator, and workers in this process or in one of their own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shardwork import session
from shardwork_worker.app import Folders, Start, Worker, only_one
from shardwork_worker.control import Command, ask

from .agent_process import start
from .fake_coordinator import FakeCoordinator

SCRIPT = str(Path(__file__).with_name("agent_process.py"))


@dataclass(slots=True)
class InProcess:
    """A worker in the test's own loop."""

    start: Start
    task: asyncio.Task[int]

    @property
    def folders(self) -> Folders:
        return Folders.of(self.start.home)

    async def ask(self, command: Command) -> dict[str, Any]:
        return await asyncio.to_thread(ask, self.folders.state, command)

    async def until_idle(self) -> dict[str, Any]:
        """The status once no shard is in hand."""
        async with asyncio.timeout(10):
            while (status := await self.ask(Command.STATUS))["shard"] is not None:
                pass
        return status


@dataclass(slots=True)
class Workers:
    """Starts workers and ends those that a test leaves."""

    coordinator: FakeCoordinator
    home: Path
    _tasks: list[asyncio.Task[int]] = field(default_factory=list[asyncio.Task[int]])
    _processes: list[asyncio.subprocess.Process] = field(default_factory=list[asyncio.subprocess.Process])

    async def here(self, *, idle_s: float | None = None, **settings: Any) -> InProcess:
        """A worker in this process, joined."""
        wanted = start(self.coordinator.join, self.home, idle_s=idle_s, **settings)
        folders = Folders.of(wanted.home)
        folders.make()
        task = asyncio.create_task(_run(Worker(wanted, folders), folders))
        self._tasks.append(task)
        hellos = sum(name == "Hello" for name, _ in self.coordinator.events)
        await self.coordinator.wait("Hello", hellos + 1)
        return InProcess(wanted, task)

    async def process(self, *arguments: str, env: dict[str, str] | None = None) -> asyncio.subprocess.Process:
        """A worker in a process of its own, not waited for."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            SCRIPT,
            self.coordinator.join.text(),
            str(self.home),
            *arguments,
            env={**os.environ, **(env or {})},
            stderr=asyncio.subprocess.PIPE,
        )
        self._processes.append(process)
        return process

    async def close(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
            await process.communicate()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _run(worker: Worker, folders: Folders) -> int:
    with only_one(folders.state):
        running = asyncio.create_task(worker.run())
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            worker.end(0)
            await running
            raise


@pytest.fixture
async def coordinator(tmp_path: Path) -> AsyncIterator[FakeCoordinator]:
    fake = FakeCoordinator(tmp_path / "coordinator")
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def workers(coordinator: FakeCoordinator, tmp_path: Path) -> AsyncIterator[Workers]:
    started = Workers(coordinator, tmp_path / "home")
    yield started
    await started.close()


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "BACKOFF_S", 0.02)
    monkeypatch.setattr(session, "BACKOFF_CAP_S", 0.2)


@pytest.fixture
def waiting(tmp_path: Path) -> dict[str, Any]:
    """An order whose shard computes until `let_go`."""
    return {"do": "wait", "go": str(tmp_path / "go"), "log": str(tmp_path / "runs.log")}


def let_go(order: dict[str, Any]) -> None:
    Path(order["go"]).touch()


@pytest.fixture
def run_log(tmp_path: Path) -> Callable[[], list[str]]:
    """Lines that the fake child wrote, one a run; orders name the file as "log"."""
    path = tmp_path / "runs.log"
    return lambda: path.read_text().splitlines() if path.exists() else []
