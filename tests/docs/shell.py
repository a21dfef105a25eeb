"""One bash that commands are given one after the other, as a reader types them; what it started ends with it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

#: where the programs of this environment lie
BIN = Path(sys.executable).parent
END = "@@ended"
#: what a coordinator and a worker print once they are there
READY = re.compile(r'^\{"join".*\n|\bjoined\b', re.MULTILINE)
PATIENCE_S = 150.0
LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Ran:
    """A command and how it ended; what it printed on both streams, in order."""

    command: str
    exit_code: int
    output: str


class Shell:
    """A bash in `folder`. Variables and folders stay from one command to the next."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self._background: list[int] = []
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> Ran:
        """To its end. Nothing is typed at it: what asks on a terminal finds none."""
        if re.search(r"&\s*$", command):
            return self._start(command)
        watchdog = threading.Timer(PATIENCE_S, self._give_up)
        watchdog.start()
        try:
            output, code = self._send(f"{{ {command}\n}} </dev/null")
        finally:
            watchdog.cancel()
        return Ran(command, code, output)

    def _start(self, command: str) -> Ran:
        """In the background; over when it said what a reader waits for: its join line, or that it joined."""
        log = self.folder / f"background-{len(self._background)}.log"
        said, _ = self._send(f"{{ {command}\n}} </dev/null >{shlex.quote(str(log))} 2>&1; echo $!")
        self._background.append(int(said.split()[-1]))
        end_s = time.monotonic() + PATIENCE_S
        while not READY.search(log.read_text()) and self._lives(self._background[-1]) and time.monotonic() < end_s:
            time.sleep(LOOK_EVERY_S)
        text = log.read_text()
        return Ran(command, 0 if READY.search(text) else 1, text)

    def _lives(self, pid: int) -> bool:
        return self._send(f"kill -0 {pid} 2>/dev/null")[1] == 0

    def set(self, name: str, value: str) -> None:
        self._send(f"export {name}={shlex.quote(value)}")

    def value(self, command: str) -> str:
        """What a command of the test's own prints."""
        return self._send(f"{{ {command}\n}} </dev/null 2>/dev/null")[0].strip()

    def end(self) -> None:
        """Ends what it started, kindly first."""
        for pid in reversed(self._background):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        assert self._bash.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._bash.stdin.write("wait\nexit 0\n")
            self._bash.stdin.close()
        try:
            self._bash.wait(30)
        except subprocess.TimeoutExpired:
            self._give_up()
            self._bash.wait()
        if self._bash.stdout is not None:
            self._bash.stdout.close()

    def _send(self, text: str) -> tuple[str, int]:
        assert self._bash.stdin is not None and self._bash.stdout is not None
        # the code first: an echo would have one of its own
        self._bash.stdin.write(f"{text}\n_code=$?; echo; echo {END} $_code\n")
        self._bash.stdin.flush()
        lines: list[str] = []
        for line in self._bash.stdout:
            if line.startswith(END):
                return "".join(lines).removesuffix("\n"), int(line.split()[-1])
            lines.append(line)
        raise AssertionError(f"the shell ended in the middle of: {text}\n{''.join(lines)}")

    def _give_up(self) -> None:
        """A command that does not end ends the shell, and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
