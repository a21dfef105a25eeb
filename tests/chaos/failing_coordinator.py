"""A coordinator that is killed at one failpoint after another and started again each time, as an operator's init would.

Built on the demo's processes. Used by the chaos tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from processes import Processes


class FailingCoordinator:
    """Arms the given failpoints in turn: each kill starts the coordinator with the next one, and at last with none."""

    def __init__(self, folder: Path, failpoints: Sequence[str], *, settings: Mapping[str, str] | None = None) -> None:
        """`settings`: the coordinator's own, SHARDWORK_*."""
        folder.mkdir(parents=True, exist_ok=True)
        self.processes = Processes(folder)
        self._settings = dict(settings or {})
        self._waiting = list(failpoints)
        #: failpoints at which it was killed, in order
        self.killed_at: list[str] = []
        #: ends that no failpoint and nobody else explains
        self.faults: list[str] = []
        self.armed: str | None = None
        self._is_meant = False
        #: set while it runs, from the moment it answers
        self.serving = threading.Event()
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        self._start_next()
        self._keeper.start()

    def _start_next(self) -> None:
        self.armed = self._waiting.pop(0) if self._waiting else None
        armed = {"SHARDWORK_FAILPOINT": self.armed} if self.armed else {}
        self.processes.start_coordinator(environment={**self._settings, **armed})
        self.serving.set()

    def _keep(self) -> None:
        while not self._over.wait(0.02):
            if self.processes.is_over("coordinator"):
                self.serving.clear()
                self._note_end()
                self._start_next()

    def _note_end(self) -> None:
        lines = (self.processes.folder / "coordinator.log").read_text(encoding="utf-8").splitlines()
        said = [line for line in lines if line.startswith("failpoint ")][len(self.killed_at) :]
        if self.armed and said == [f"failpoint {self.armed}"]:
            self.killed_at.append(self.armed)
        elif not self._is_meant:
            self.faults.append(f"armed {self.armed}: {lines[-5:]}")
        self._is_meant = False

    def arm(self, failpoints: Sequence[str]) -> None:
        """Starts it again with the first of these, and so on; returns once it serves."""
        assert self.armed is None and not self._waiting
        before = len(self.killed_at)
        self._waiting += failpoints
        self.serving.clear()
        self.skip()
        while self.armed is None and len(self.killed_at) == before:
            time.sleep(0.02)
        assert self.serving.wait(60)

    @property
    def is_in_peace(self) -> bool:
        """Whether nothing is armed any more, and it serves."""
        return self.armed is None and not self._waiting and self.serving.is_set()

    def persist(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A client command, repeated while the coordinator is away, as a person would."""
        for _ in range(60):
            done = self.processes.client(*arguments, quiet=True, check=False)
            if done.returncode != 7:
                return done
            time.sleep(0.5)
        raise AssertionError(f"{arguments} never reached the coordinator")

    def skip(self) -> None:
        """Gives up on the armed failpoint, which nothing reached."""
        self.armed, self._is_meant = None, True
        self.processes.kill_hard("coordinator")

    def stop(self) -> None:
        self._over.set()
        self._keeper.join(30)
        self.processes.stop()


def books(processes: Processes, settings: Mapping[str, str] | None = None) -> dict[str, Any]:
    """`ledger check --json` of the coordinator's database, as it lies on disk."""
    command: list[str | Path] = [
        Path(sys.executable).parent / "shardwork-coordinator",
        "ledger",
        "check",
        "--json",
        "--data-dir",
    ]
    done = subprocess.run(
        [*command, processes.folder / "coordinator"],
        env={**processes.environment("coordinator-home"), **(settings or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
