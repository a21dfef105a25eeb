"""The demo of this machine: one coordinator on loopback and one worker, under the home folder, with everything kept.

`ensure` finds what runs, starts what does not, and gives the join line; after a crash it is the same coordinator
with the same data on the same port. Used by `commands.setup` and `commands.demo`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import urlsplit

from shardwork.config import Home
from shardwork.errors import Conflict, InvalidInput

from .process import LOOK_EVERY_S, Background

START_S = 60.0
#: with one key nobody can agree; a demo does not wait long for a second one
SETTINGS = {"SHARDWORK_AGREEMENT_GRACE_S": "3", "HF_HUB_OFFLINE": "1"}
#: program -> a package that its extra installs and the base does not
NEEDED = {"shardwork-coordinator": "sqlalchemy", "shardwork-worker": "torch"}


@dataclass(frozen=True, slots=True)
class Served:
    """Where the demo's coordinator is; the link that makes the dashboard's first user, once."""

    join: str
    web: str
    setup: str = ""


class LocalDemo:
    def __init__(self, home: Home) -> None:
        self.folder = home.data_dir / "demo"
        self.coordinator = Background("coordinator", self.folder)
        self.worker = Background("worker", self.folder)

    def known(self) -> Served | None:
        """Where its coordinator was last; None before the first start."""
        try:
            return Served(**json.loads((self.folder / "demo.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def is_at(self, join: str) -> bool:
        """Whether a join line is the demo's own."""
        before = self.known()
        return before is not None and before.join == join

    def is_running(self) -> bool:
        return self.coordinator.pid() is not None and self.worker.pid() is not None

    def ensure(self) -> Served:
        """Starts what does not run. Raises InvalidInput "demo.not_installed", Conflict "demo.not_started"."""
        self._check_installed()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        served = self.known()
        if served is None or self.coordinator.pid() is None:
            served = self._serve(served)
        if self.worker.pid() is None:
            self.worker.start("shardwork_worker.cli", ["start", served.join, "--name", "demo"], SETTINGS)
        return served

    def stop(self) -> list[str]:
        """Ends both; the names of those that ran."""
        return [each.name for each in (self.worker, self.coordinator) if each.stop()]

    def _check_installed(self) -> None:
        missing = [program for program, package in NEEDED.items() if find_spec(package) is None]
        if missing:
            raise InvalidInput(
                "demo.not_installed",
                f"A demo on this machine needs {' and '.join(missing)}, whose packages are not installed.",
                next_step="pip install 'shardwork[all]', then the same command again.",
            )

    def _serve(self, before: Served | None) -> Served:
        """Starts the coordinator where it was; on another port where that one is taken by now."""
        address = urlsplit(before.join).netloc if before else "127.0.0.1:0"
        web = urlsplit(before.web).netloc if before else "127.0.0.1:0"
        told = self._start(address, web)
        if told is None and before is not None:
            told = self._start("127.0.0.1:0", "127.0.0.1:0")
            # it would look for the coordinator where it was
            self.worker.stop()
        if told is None:
            raise Conflict(
                "demo.not_started",
                "The demo's coordinator did not start.",
                next_step=f"Read its log: {self.coordinator.log}",
                log=self.coordinator.last_words(),
            )
        (self.folder / "demo.json").write_text(json.dumps({"join": told.join, "web": told.web, "setup": told.setup}))
        return told

    def _start(self, address: str, web: str) -> Served | None:
        data = self.folder / "coordinator"
        arguments = ["serve", "--data-dir", str(data), "--listen", address, "--web", web]
        process = self.coordinator.start("shardwork_coordinator.cli", arguments, SETTINGS)
        end_s = time.monotonic() + START_S
        while time.monotonic() < end_s and process.poll() is None:
            line = self.coordinator.out.read_text().partition("\n")
            if line[1]:
                said = json.loads(line[0])
                return Served(join=said["join"], web=said["web"], setup=said.get("setup", ""))
            time.sleep(LOOK_EVERY_S)
        process.kill()
        process.wait()
        return None
