"""The demo's coordinators: one on the embedded defaults, or two on one PostgreSQL database and one artifact folder.

The second one, "deputy", has a data folder of its own and the first one's keys. Called by `run` and by
`bench/takeover.py`.
"""

from __future__ import annotations

import time

import psycopg
from processes import Processes

FIRST, DEPUTY = "coordinator", "deputy"
#: how long a takeover is waited for
PATIENCE_S = 60.0
LOOK_EVERY_S = 0.01


class Coordinators:
    """`url`: of an empty PostgreSQL database; empty for one coordinator on SQLite."""

    def __init__(self, processes: Processes, url: str = "", *, count: int = 1) -> None:
        self._processes, self._url = processes, url
        self.names = (FIRST, DEPUTY)[:count]
        #: join line of each
        self.joins: dict[str, str] = {}

    def start(self, name: str) -> None:
        options: list[str] = []
        if self._url:
            options += ["--database", self._url, "--storage", str(self._processes.folder / "store")]
        if name != FIRST:
            options += ["--keys-dir", str(self._processes.folder / FIRST / "keys")]
        self._processes.start_coordinator(*options, name=name)
        self.joins[name] = self._processes.join

    def start_all(self) -> None:
        for name in self.names:
            self.start(name)

    def join_of(self, number: int) -> str:
        """Where the worker of this number goes: in turns."""
        return self.joins[self.names[number % len(self.names)]]

    def settings(self) -> dict[str, str]:
        """For operators' commands beside `--data-dir`."""
        return {"SHARDWORK_DATABASE": self._url} if self._url else {}

    def attached(self) -> dict[str, str]:
        """Name of each worker -> the coordinator it is attached to, as the database has it."""
        address = {self._processes.listens[name]: name for name in self.names}
        query = (
            "SELECT party.name, coordinator.address FROM attachment JOIN party ON party.id = worker_id"
            " JOIN coordinator ON coordinator.id = attachment.coordinator"
        )
        with psycopg.connect(self._url) as connection:
            rows: list[tuple[str, str]] = connection.execute(query.encode()).fetchall()
        return {name: address[place] for name, place in rows}

    def take_over_from(self, name: str) -> tuple[list[str], float]:
        """Kills a coordinator (kill -9); its workers, and the seconds until the last of them was with another."""
        workers = [worker for worker, place in self.attached().items() if place == name]
        started = time.monotonic()
        self._processes.kill(name)
        while name in self.attached().values():
            if time.monotonic() - started > PATIENCE_S:
                raise SystemExit(f"the workers of {name} went nowhere within {PATIENCE_S:.0f} s")
            time.sleep(LOOK_EVERY_S)
        return workers, time.monotonic() - started
