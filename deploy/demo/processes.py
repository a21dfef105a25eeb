"""The demo's processes: a coordinator, workers, one-shot client commands; slowed, killed, and ended with it.

Ends only what it started. Called by `run`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent


class Processes:
    """Everything that runs for one demo, under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.join = self.web = self.setup = ""
        #: where each coordinator listens, so that it is started again there
        self.listens: dict[str, str] = {}
        self._running: dict[str, subprocess.Popen[str]] = {}

    def environment(self, home: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SHARDWORK_")}
        # gRPC must not be sent through a proxy for an address on this machine
        return {**kept, "SHARDWORK_HOME": str(self.folder / home), "HF_HUB_OFFLINE": "1"}

    def start_coordinator(
        self, *options: str, name: str = "coordinator", environment: dict[str, str] | None = None
    ) -> None:
        """Starts it, or starts it again on the same port and folder, and waits until it serves."""
        listen = self.listens.get(name, "127.0.0.1:0")
        command = [str(BIN / "shardwork-coordinator"), "serve", "--data-dir", str(self.folder / name)]
        with (self.folder / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                [*command, "--listen", listen, *options],
                env={**self.environment(f"{name}-home"), **(environment or {})},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._running[name] = process
        assert process.stdout is not None
        with process.stdout as said_once:
            line = said_once.readline()
        if not line:
            # killed while starting, or refused to: whoever keeps it running looks at its log
            process.wait()
            return
        said = json.loads(line)
        self.join, self.web, self.setup = said["join"], said["web"], said.get("setup", "")
        self.listens[name] = said["join"].removeprefix("shardwork://").partition("?")[0].partition(",")[0]

    def start_worker(self, name: str, *options: str, join: str = "") -> None:
        command = [str(BIN / "shardwork-worker"), "start", join or self.join, "--name", name, *options]
        with (self.folder / f"{name}.log").open("a") as log:
            self._running[name] = subprocess.Popen(
                command,
                env=self.environment(name),
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def client(self, *arguments: str, quiet: bool = False, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One client command, shown to whoever watches the demo unless it is quiet."""
        if not quiet:
            print(f"\n$ shardwork {' '.join(arguments)}", flush=True)
        done = subprocess.run(
            [str(BIN / "shardwork"), *arguments],
            env=self.environment("client"),
            cwd=self.folder,
            stdout=subprocess.PIPE if quiet else None,
            stderr=None,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise SystemExit(f"`shardwork {' '.join(arguments)}` ended with {done.returncode}")
        return done

    def ask(self, *arguments: str) -> Any:
        """The JSON answer of a read command."""
        return json.loads(self.client(*arguments, "--json", quiet=True).stdout)

    def kill(self, name: str) -> None:
        """kill -9 of the process and, for a worker, of its training child."""
        process = self._running.pop(name)
        for pid in (process.pid, *descendants(process.pid)):
            _signal(pid, signal.SIGKILL)
        process.wait()

    def kill_hard(self, name: str) -> None:
        """kill -9 of the process alone; whoever watches it sees it gone."""
        _signal(self._running[name].pid, signal.SIGKILL)

    def end(self, name: str) -> None:
        """SIGTERM, and over on return."""
        process = self._running.pop(name)
        _signal(process.pid, signal.SIGTERM)
        process.wait(30)

    def pid(self, name: str) -> int:
        return self._running[name].pid

    def is_over(self, name: str) -> bool:
        """Whether the process has ended, by itself or killed."""
        return self._running[name].poll() is not None

    @contextlib.contextmanager
    def slowed(self, name: str, *, share: float) -> Generator[None, None, None]:
        """Lets the worker's training child run only this share of the time, by stopping it again and again."""
        over = threading.Event()
        slowing = threading.Thread(target=_slow, args=(self._running[name].pid, share, over), daemon=True)
        slowing.start()
        try:
            yield
        finally:
            over.set()
            slowing.join()

    def stop(self) -> None:
        """Ends everything that was started: kindly first."""
        for process in self._running.values():
            _signal(process.pid, signal.SIGTERM)
        for process in self._running.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                _signal(process.pid, signal.SIGKILL)
                process.wait()


def _slow(pid: int, share: float, over: threading.Event) -> None:
    while not over.is_set():
        for child in descendants(pid):
            _signal(child, signal.SIGSTOP)
        time.sleep(1.0 - share)
        for child in descendants(pid):
            _signal(child, signal.SIGCONT)
        time.sleep(share)


def children(pid: int) -> list[int]:
    """Direct children, from /proc; none where that does not exist."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            found += [int(word) for word in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def descendants(pid: int) -> list[int]:
    """Children, theirs and so on: a sandbox stands between a worker and its training child."""
    return [one for child in children(pid) for one in (child, *descendants(child))]


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
