"""One program of the demo in the background: detached from the terminal, its output in files, known again by its pid.

A pid alone may be somebody else's after a restart of the machine, so it counts only while its command line names our
folder. Ends nothing that it did not start. Used by `local`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_S = 15.0
LOOK_EVERY_S = 0.05
LOG_TAIL = 5


@dataclass(frozen=True, slots=True)
class Background:
    """A program with a folder of its own: `<name>.pid`, `<name>.log`, `<name>.out` in it."""

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def out(self) -> Path:
        """What it says on stdout, since it was started last."""
        return self.folder / f"{self.name}.out"

    @property
    def _pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    @property
    def _marked(self) -> list[str]:
        """An option that Python keeps for whoever asks: it says on the command line whose process this is."""
        return ["-X", f"shardwork-demo={self.folder}"]

    def pid(self) -> int | None:
        """Its process while it runs."""
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None
        return pid if self._marked[1] in command_of(pid) else None

    def start(self, module: str, arguments: Sequence[str], settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Starts `python -m module arguments` in a session of its own, without our SHARDWORK_* settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SHARDWORK_")}
        home = self.folder / f"{self.name}-home"
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.log.open("ab") as log, self.out.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, *self._marked, "-m", module, *arguments],
                env={**kept, **settings, "SHARDWORK_HOME": str(home)},
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )
        self._pid_file.write_text(f"{process.pid}\n")
        return process

    def stop(self) -> bool:
        """Ends it, orderly first; whether it ran."""
        pid = self.pid()
        if pid is None:
            return False
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            end_s = time.monotonic() + STOP_S
            while self.pid() is not None and time.monotonic() < end_s:
                time.sleep(LOOK_EVERY_S)
            if self.pid() is None:
                break
        self._pid_file.unlink(missing_ok=True)
        return True

    def last_words(self) -> str:
        """The end of its log, for whoever is told that it did not start."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return " | ".join(line.strip() for line in lines[-LOG_TAIL:] if line.strip())


def command_of(pid: int) -> str:
    """The command line of a living process; empty where there is none, or none that may be seen."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        if Path("/proc/self").exists():
            return ""
    with contextlib.suppress(OSError):
        done = subprocess.run(
            ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return done.stdout
    return ""
