"""A world with two coordinators on one PostgreSQL database and one artifact folder.

The second one, "deputy", has a data folder of its own and the first one's keys. Used by the tests of takeover.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

import psycopg
from processes import BIN

from .world import World

COORDINATORS = ("coordinator", "deputy")


@dataclass(slots=True)
class Twins(World):
    """`url`: an empty database."""

    url: str = ""

    def start_one(self, name: str) -> None:
        """One of COORDINATORS, the first one first."""
        keys = [] if name == COORDINATORS[0] else ["--keys-dir", str(self.folder / COORDINATORS[0] / "keys")]
        self.processes.start_coordinator(*self._shared(), *keys, name=name, environment=dict(self.settings))

    def refused(self, folder: str, *options: str) -> Any:
        """Why a coordinator with its data in this folder does not start: what it says on stderr, in one text."""
        done = subprocess.run(
            [str(BIN / "shardwork-coordinator"), "serve", "--data-dir", str(self.folder / folder), *options],
            env=self.processes.environment(f"{folder}-home"),
            capture_output=True,
            text=True,
            check=False,
            timeout=self.patience_s,
        )
        assert done.returncode != 0, done.stdout
        return done.stderr

    def kill(self, name: str) -> None:
        """kill -9 of a coordinator."""
        self.processes.kill_hard(name)
        self.until(lambda: self.processes.is_over(name), f"{name} to be gone")

    def attached(self) -> dict[str, str]:
        """Name of each attached worker -> address of its coordinator, as the database has it."""
        query = (
            "select party.name, coordinator.address from attachment join party on party.id = worker_id"
            " join coordinator on coordinator.id = attachment.coordinator"
        )
        return {str(name): str(address) for name, address in self.rows(query)}

    def address(self, name: str) -> str:
        """host:port of a coordinator."""
        return self.processes.listens[name]

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(query.replace("?", "%s").encode(), values).fetchall()

    def books(self) -> Any:
        command = [str(BIN / "shardwork-coordinator"), "ledger", "check", "--json"]
        environment = {**self.processes.environment("books-home"), "SHARDWORK_DATABASE": self.url}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return json.loads(done.stdout)

    def _shared(self) -> list[str]:
        return ["--database", self.url, "--storage", str(self.folder / "store")]
