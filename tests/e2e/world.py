"""A coordinator, workers and a requester as real processes, driven as people do: through the commands.

Built on the demo's processes. What the commands do not tell (shards' attempts, artifact ids of a round) is read from
the coordinator's SQLite file, read-only. Used by the end-to-end and the chaos tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import BIN, Processes, descendants

from shardwork.config import Home
from shardwork.errors import ShardworkError
from shardwork_worker.control import Command, ask

WORKERS = ("alice", "bob")
#: no second copies and no waiting for a second key: nothing but the test itself disturbs a job
CALM = {"SHARDWORK_BACKUP_MIN_S": "600", "SHARDWORK_AGREEMENT_GRACE_S": "600"}
PATIENCE_S = 100.0
LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Said:
    """What one command said and how it ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one JSON value on stdout."""
        lines = self.stdout.splitlines()
        assert len(lines) == 1, (self.stdout, self.stderr)
        return json.loads(lines[0])

    @property
    def error(self) -> Any:
        """The JSON error: the last line on stderr."""
        return json.loads(self.stderr.splitlines()[-1])["error"]


@dataclass(slots=True)
class World:
    """One coordinator with its workers and one requester; `folder` is also where the requester's files lie."""

    folder: Path
    #: settings of the coordinator, SHARDWORK_*
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    #: how long anything may take
    patience_s: float = PATIENCE_S
    processes: Processes = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes = Processes(self.folder)

    # ---- starting and stopping --------------------------------------------------------------------------------

    def start(self, *workers: str, sats: int = 0) -> None:
        """Starts everything, logs the requester in and gives it `sats`; waits until the workers take work."""
        self.start_coordinator()
        for name in workers:
            self.processes.start_worker(name)
        self.succeed("login", self.processes.join)
        if sats:
            self.succeed("wallet", "deposit", sats)
        for name in workers:
            self.wait_ready(name)

    def start_coordinator(self, *, armed: str = "") -> None:
        """Again on the same port and folder after a kill. `armed`: the failpoint at which it shall die."""
        failpoint = {"SHARDWORK_FAILPOINT": armed} if armed else {}
        self.processes.start_coordinator(environment={**self.settings, **failpoint})

    def kill_coordinator(self) -> None:
        """kill -9, and gone on return."""
        self.processes.kill_hard("coordinator")
        self.until(lambda: self.processes.is_over("coordinator"), "the killed coordinator to be gone")

    def stop(self) -> None:
        self.processes.stop()

    def wait_ready(self, name: str) -> None:
        self.until(lambda: self.worker(name).get("state") in ("ready", "busy"), f"worker {name} to be ready")

    # ---- the commands -----------------------------------------------------------------------------------------

    def run(self, *arguments: object, join: str = "") -> Said:
        """`shardwork ARGUMENTS` to its end, in the requester's folder."""
        process = self.begin(*arguments, join=join)
        stdout, stderr = process.communicate(timeout=self.patience_s)
        return Said(process.returncode, stdout, stderr)

    def succeed(self, *arguments: object) -> Said:
        """`run` of a command that must not fail."""
        said = self.run(*arguments)
        assert said.exit_code == 0, said
        return said

    def begin(self, *arguments: object, join: str = "") -> subprocess.Popen[str]:
        """`shardwork ARGUMENTS`, left running."""
        flags = ["--join", join] if join else []
        return subprocess.Popen(
            [str(BIN / "shardwork"), *flags, *(str(each) for each in arguments)],
            env=self.processes.environment("client"),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ask(self, *arguments: object) -> Any:
        """The JSON answer of a read command, which must succeed."""
        said = self.run(*arguments, "--json")
        assert said.exit_code == 0, said.stderr
        return said.json

    def submit(self, file: str) -> str:
        """The new job's id."""
        return str(self.ask("job", "submit", file, "--yes")["id"])

    def finish(self, job: str) -> Any:
        """Waits until the job is final; its report."""
        self.until(lambda: self.job_state(job) in ("succeeded", "failed", "cancelled", "paused"), f"job {job} to end")
        return self.ask("job", "report", job)

    def balance(self) -> Any:
        return self.ask("wallet", "balance")

    def events(self, job: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("job", "events", job)["events"]
        return found

    def books(self) -> Any:
        """`shardwork-coordinator ledger check --json`."""
        command = [str(BIN / "shardwork-coordinator"), "ledger", "check", "--json"]
        done = subprocess.run(
            [*command, "--data-dir", str(self.folder / "coordinator")],
            env=self.processes.environment("coordinator-home"),
            capture_output=True,
            text=True,
            check=False,
        )
        return json.loads(done.stdout)

    # ---- the workers ------------------------------------------------------------------------------------------

    def home(self, name: str) -> Home:
        return Home.find({"SHARDWORK_HOME": str(self.folder / name)})

    def worker(self, name: str, command: Command = Command.STATUS) -> dict[str, Any]:
        """The worker's own status, as `shardwork-worker status --json` tells it; empty while none answers."""
        try:
            return ask(self.home(name).state_dir / "worker", command)
        except ShardworkError:
            return {}

    def command_worker(self, name: str, *arguments: str) -> Said:
        """`shardwork-worker ARGUMENTS` as this worker's owner."""
        done = subprocess.run(
            [str(BIN / "shardwork-worker"), *arguments],
            env=self.processes.environment(name),
            capture_output=True,
            text=True,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def wait_mid_shard(self, names: Sequence[str], phase: str = "learn") -> tuple[str, str]:
        """(worker, its shard) as soon as one of the workers is in the middle of a shard of this phase."""
        found: list[tuple[str, str]] = []

        def look() -> bool:
            for name in names:
                status = self.worker(name)
                if f"/{phase}/" in str(status.get("shard") or "") and 0.05 < float(status.get("progress") or 0) < 0.6:
                    found.append((name, str(status["shard"]).partition("#")[0]))
            return bool(found)

        self.until(look, f"a worker in the middle of a {phase} shard")
        return found[0]

    def wait_replaced(self, name: str) -> dict[str, Any]:
        """What the worker says of why it stays away, once another with its key took over."""

        def why() -> dict[str, Any]:
            return self.worker(name).get("why") or {}

        self.until(lambda: why().get("code") == "worker.replaced", f"{name} to hear that another took over")
        return why()

    def signal_worker(self, name: str, number: signal.Signals) -> None:
        """To the worker alone, not to its training child."""
        lock = self.home(name).state_dir / "worker" / "worker.lock"
        os.kill(int(lock.read_text()), number)

    def signal_children(self, name: str, number: signal.Signals) -> int:
        """To the worker's training child and the sandbox around it; how many there are."""
        found = descendants(self.processes.pid(name))
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return len(found)

    def freeze_child(self, name: str) -> None:
        """The worker lives on and its training child stands still, so that a shard lasts as long as a test wants."""
        assert self.signal_children(name, signal.SIGSTOP), name

    def thaw_child(self, name: str) -> None:
        """Its child goes on, unless the worker has ended it meanwhile because its shard was revoked."""
        self.signal_children(name, signal.SIGCONT)

    def wait_computing(self, *names: str) -> None:
        """Until each of these workers has a shard in hand and its child was told to compute it."""
        self.until(lambda: all(self.worker(name).get("step") == "computing" for name in names), f"{names} to compute")

    # ---- what only the database tells -------------------------------------------------------------------------

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the coordinator's database as it is now."""
        address = f"file:{self.folder / 'coordinator' / 'coordinator.db'}?mode=ro"
        connection = sqlite3.connect(address, uri=True, timeout=10)
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def job_state(self, job: str) -> str:
        found = self.rows("select state from job where id = ?", job)
        return str(found[0][0]) if found else ""

    def wait_phase(self, job: str, phase: str, *, number: int = 1) -> None:
        """Until this phase of the job's round has begun."""
        query = "select phase, state from round where job_id = ? and number = ?"
        self.until(lambda: self.rows(query, job, number)[:1] == [(phase, "open")], f"phase {phase}")

    def now_ms(self) -> int:
        """The wall clock that the coordinator's records are stamped with."""
        return time.time_ns() // 1_000_000

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end_s = time.monotonic() + self.patience_s
        while not condition():
            assert time.monotonic() < end_s, f"waited in vain for {what}; {self.folder}"
            time.sleep(LOOK_EVERY_S)
