"""A command on a pseudo-terminal of a given size, for what only a terminal shows: prompts, bars and the live view."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

COMMAND = (sys.executable, "-m", "shardwork_client.cli")


class Terminal:
    """`shardwork ARGS…` on a terminal, and everything it has drawn."""

    def __init__(self, *arguments: object, columns: int = 100, lines: int = 30, kind: str = "xterm-256color") -> None:
        self.master, slave = pty.openpty()
        self.resize(columns, lines)
        # a size that is set there goes before the terminal's own
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        environment = {**inherited, "TERM": kind, "NO_COLOR": "1"}
        command = [*COMMAND, *(str(argument) for argument in arguments)]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self.text = ""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def signal(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)

    def interrupt(self) -> int:
        """Ctrl-C, as often as a person would press it: one that falls between Python's check for signals and its
        read of the terminal is only seen at the next key. The exit code."""
        for _ in range(10):
            self.signal(signal.SIGINT)
            try:
                self.process.wait(3)
                break
            except subprocess.TimeoutExpired:
                continue
        return self.finish()

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def read_until(self, wanted: str, *, within_s: float = 30.0) -> str:
        """What was drawn from now until `wanted` appeared. Fails as soon as the command has ended without it."""
        deadline = time.monotonic() + within_s
        fresh = ""
        while wanted not in fresh:
            ready, _, _ = select.select([self.master], [], [], 0.2)
            chunk = self._read() if ready else ""
            fresh += chunk
            has_ended = bool(ready) and not chunk
            assert not has_ended and time.monotonic() < deadline, self.text + fresh
        self.text += fresh
        return fresh

    def finish(self) -> int:
        """Reads to the end; the exit code."""
        while chunk := self._read():
            self.text += chunk
        os.close(self.master)
        return self.process.wait(30)

    def _read(self) -> str:
        try:
            return os.read(self.master, 65536).decode(errors="replace")
        except OSError:  # Linux: the other end is closed
            return ""
