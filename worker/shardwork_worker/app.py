"""Puts a worker together and runs it until it is told to end.

Owns the lock on the worker's folders, the order of start and end, signals, and the wait for the first join. The CLI's
`start` calls `run`. Ctrl-C and SIGTERM release the lease in hand and end the child before the process leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardwork.clock import SystemClock
from shardwork.config import Home
from shardwork.errors import Conflict, Unreachable
from shardwork.identity.keys import SigningKey, load_or_create
from shardwork.identity.role import Role
from shardwork.session import JoinLine, Session, backoff_s
from shardwork.why import Why

from . import control, probe
from .account.book import Book
from .account.joined import Joined
from .account.reasons import About, Reason, from_book
from .agent import Agent
from .bench.report import speeds
from .cache import Cache
from .control import Command
from .lease import Workplace
from .limits.conflicts import check_memory, conflicts
from .limits.guard import Guard
from .limits.meter import Meter
from .log import say
from .offer import terms_of
from .refusals import JOINING, SETTINGS_CHANGED
from .sandbox.choice import Ground, choose, lacking
from .sandbox.jail import Mode, physical_memory_bytes
from .settings import WorkerSettings, settings_file
from .state_file import Journal
from .status import State, Status
from .trainer_process import TrainerProcess

CHILD_COMMAND = (sys.executable, "-I", "-m", "shardwork_worker.child")
#: as `shardwork_worker.child` reads it
MEMORY_SHARE = "--memory-share"
EXIT_INTERRUPTED = 130
#: tries for a join line that never worked before: a wrong one must not wait for ever
FIRST_JOIN_TRIES = 3
IDLE_CHECK_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What `start` was asked for."""

    join: JoinLine
    home: Home
    settings: WorkerSettings
    #: end with exit 0 once nothing came for this long; None runs until stopped
    idle_s: float | None = None
    child_command: Sequence[str] = CHILD_COMMAND


@dataclass(frozen=True, slots=True)
class Folders:
    """Where one worker keeps its things."""

    state: Path
    artifacts: Path
    work: Path
    #: outputs that are handed in, out of the child's reach
    handed: Path
    #: the child's temporary files, where its sandbox has none of its own
    scratch: Path

    @classmethod
    def of(cls, home: Home) -> Folders:
        cache = home.cache_dir / "worker"
        return cls(
            state=state_folder(home),
            artifacts=cache / "artifacts",
            work=cache / "work",
            handed=cache / "handed",
            scratch=cache / "scratch",
        )

    def make(self) -> None:
        for folder in (self.state, self.artifacts, self.work, self.handed, self.scratch):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def ground(home: Home, settings: WorkerSettings) -> Ground:
    """What the sandbox shows of this worker's folders, and what it hides."""
    folders = Folders.of(home)
    return Ground(
        inputs=folders.artifacts,
        work=folders.work,
        scratch=folders.scratch,
        hidden=(home.config_dir, home.state_dir, home.cache_dir),
        keys=home.key_path("worker").parent,
        output_bytes=settings.output_bytes,
        processes="*" in settings.device,
        memory_share=settings.memory_share,
    )


def child_command(start: Start) -> list[str]:
    """How the training child is started; it is told what share of a GPU's memory it may use."""
    share = start.settings.memory_share
    return [*start.child_command, *([MEMORY_SHARE, str(share)] if share < 1 else [])]


def _stamp(home: Home) -> int:
    """Of the settings' file; 0 without one."""
    try:
        return settings_file(home).stat().st_mtime_ns
    except OSError:
        return 0


def state_folder(home: Home) -> Path:
    """Lock, journal, control socket and the child's log."""
    return home.state_dir / "worker"


def run(start: Start) -> int:
    """Runs a worker to its end; the exit code. Raises Conflict "worker.already_running" and what joining raises."""
    folders = Folders.of(start.home)
    folders.make()
    with only_one(folders.state):
        return asyncio.run(Worker(start, folders).run())


@contextlib.contextmanager
def only_one(folder: Path) -> Generator[None]:
    """Holds the lock of a worker's folder; two workers with one key would fight over one identity and one journal."""
    descriptor = os.open(folder / control.LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                "worker.already_running",
                "A worker, or its `bench`, already runs with this key and these folders.",
                next_step="See a worker with `shardwork-worker status`; wait for a `bench` to end. For a second worker "
                "set SHARDWORK_HOME.",
                folder=folder,
                pid=control.holder_of(folder),
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class Worker:
    """One run. `_ending` holds the exit code once something asked for the end."""

    start: Start
    folders: Folders
    _agent: Agent | None = None
    _why: Why | None = None
    _ending: asyncio.Future[int] = field(init=False)
    #: when the settings were written that this run has read
    _settings_at: int = field(init=False)

    async def run(self) -> int:
        self._ending = asyncio.get_running_loop().create_future()
        self._settings_at = _stamp(self.start.home)
        self._listen_to_signals()
        working = asyncio.create_task(self._work())
        await asyncio.wait({working, self._ending}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        working.cancel()
        await asyncio.wait({working})
        if not working.cancelled() and (error := working.exception()) is not None:
            raise error
        return self._ending.result()

    async def _work(self) -> int:
        start, folders = self.start, self.folders
        key = load_or_create(start.home.key_path("worker"))
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(control.serve(folders.state, self._obey))
            check_memory(start.settings, physical_memory_bytes())
            sandbox = await choose(start.settings.sandbox, ground(start.home, start.settings))
            if start.settings.sandbox is not Mode.OFF and not sandbox.holds:
                say(lacking(sandbox).render())
            trainer = TrainerProcess(sandbox.command(child_command(start)), log=folders.state / "trainer.log")
            stack.push_async_callback(trainer.stop)
            ready = await trainer.start()
            device = probe.choose_device(ready, start.settings.device)
            disk_bytes = shutil.disk_usage(folders.artifacts).total
            for why in conflicts(start.settings, device.device, disk_bytes=disk_bytes):
                say(why.render())
            joined = Joined(folders.state)
            session = await self._join(key, joined)
            stack.push_async_callback(session.close)
            settings = start.settings
            cache = Cache(folders.artifacts, limit_bytes=settings.cache_bytes)
            session.pace = meter = Meter(
                down_bytes_per_s=settings.down_bytes_per_s, up_bytes_per_s=settings.up_bytes_per_s
            )
            place = Workplace(
                session=session,
                trainer=trainer,
                cache=cache,
                journal=Journal(folders.state / "lease.json"),
                key=key,
                clock=SystemClock(),
                device=device.device,
                work_folder=folders.work,
                handed_folder=folders.handed,
                output_bytes=settings.output_bytes,
                input_bytes=settings.input_bytes,
                sandbox=sandbox,
                on_peers=lambda: joined.note(start.join, session.join),
            )
            capability = probe.capability(
                ready, device, disk=folders.artifacts, sandbox=sandbox.word, settings=settings
            )
            # a hint for whoever looks at the coordinator's page of this worker
            capability.speeds.extend(probe.speeds(speeds(folders.state, device.device)))
            guard = Guard(
                settings,
                device.device,
                Book(folders.state),
                meter,
                disk=folders.artifacts,
                make_room=lambda: cache.make_room(keep=agent.inputs_in_hand),
            )
            stack.callback(guard.left_over)
            agent = Agent(place, capability, terms_of(settings), guard)
            self._agent = agent
            self._take_up(agent, place.journal)
            await agent.look_at_limits()
            looking = asyncio.create_task(agent.keep_limits())
            stack.callback(looking.cancel)
            streaming = asyncio.create_task(agent.stream.run())
            stack.callback(streaming.cancel)
            # last in, first out: the lease is given back while everything it needs is still there
            stack.push_async_callback(agent.stop)
            return await self._wait_end(agent, streaming)

    def _take_up(self, agent: Agent, journal: Journal) -> None:
        record = journal.load()
        if record is not None:
            agent.go_on_with(record)
        in_hand = agent.folder_in_hand
        for folder in (*self.folders.work.iterdir(), *self.folders.handed.iterdir()):
            if folder != in_hand:
                shutil.rmtree(folder, ignore_errors=True)

    async def _join(self, key: SigningKey, joined: Joined) -> Session:
        """Enrols. Waits for ever for a coordinator that was there before; a new join line gets a few tries."""
        was_there, join = joined.was(self.start.join), joined.known(self.start.join)
        attempt = 0
        while True:
            try:
                settings = self.start.settings
                session = await Session.open(
                    join, key, Role.WORKER, name=settings.name, payout_address=settings.payout_address
                )
            except Unreachable as error:
                attempt += 1
                if not was_there and attempt >= FIRST_JOIN_TRIES:
                    raise
                if self._why is None:
                    say(f"cannot join yet, trying again: {error}")
                self._why = error.why
                await asyncio.sleep(backoff_s(min(attempt, 10)))
            else:
                joined.note(self.start.join, session.join)
                return session

    async def _wait_end(self, agent: Agent, streaming: asyncio.Task[None]) -> int:
        """Until idle if that was asked for, else until cancelled. A stream that ends has met a bug, which is raised."""
        patience_s = self.start.idle_s
        if patience_s is None:
            await streaming
        while patience_s is not None and not streaming.done():
            idle_s = agent.idle_s()
            if idle_s is not None and idle_s >= patience_s:
                break
            await asyncio.wait({streaming}, timeout=IDLE_CHECK_S)
        if streaming.done():
            streaming.result()
        say("nothing to do any more")
        return 1 if agent.tripped else 0

    async def _obey(self, command: Command) -> Mapping[str, Any]:
        answer: Mapping[str, Any]
        if self._agent is not None:
            answer = await self._agent.obey(command)
            if command is Command.WHY and self._settings_changed():
                answer = {**answer, "reasons": [*answer["reasons"], Reason(About.LIMIT, SETTINGS_CHANGED).to_json()]}
        elif command in (Command.STATUS, Command.STOP):
            state = Status(state=State.JOINING, why=self._why, coordinator=self.start.join.address)
            answer = state.to_json()
        elif command is Command.WHY:
            answer = self._why_joining()
        else:
            sentence = "The worker has not joined yet."
            raise Conflict("worker.joining", sentence, next_step="Try again once it has, or stop it.")
        if command is Command.STOP:
            # after the answer, which is written without waiting once this returns
            asyncio.get_running_loop().call_soon(self.end, 0)
        return answer

    def _settings_changed(self) -> bool:
        return _stamp(self.start.home) != self._settings_at

    def _why_joining(self) -> Mapping[str, Any]:
        told = [Reason(About.WORK, self._why or JOINING)]
        told += from_book(Book(self.folders.state), SystemClock().now_ms())
        return {"state": State.JOINING.value, "reasons": [reason.to_json() for reason in told]}

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self.end, EXIT_INTERRUPTED)
        loop.add_signal_handler(signal.SIGTERM, self.end, 0)
        # a terminal that is closed, unless its owner used nohup
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, self.end, 0)

    def end(self, exit_code: int) -> None:
        """Asks for the end: what signals and the `stop` command do."""
        if not self._ending.done():
            say("stopping: giving the shard in hand back" if self._agent and self._agent.folder_in_hand else "stopping")
            self._ending.set_result(exit_code)
        elif exit_code == EXIT_INTERRUPTED:
            # asked twice: the child's pipe closes with this process, the coordinator sees the stream end
            os._exit(exit_code)
