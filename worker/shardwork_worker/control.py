"""The control socket: how `status`, `pause`, `finish`, `resume` and `stop` reach the worker that runs.

A Unix socket in the worker's state folder that only its user can open; one JSON line asks, one answers. The agent
serves it, the CLI asks. Light: the asking side needs neither grpc nor asyncio's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from shardwork.errors import Conflict, Internal, InvalidInput, NotFound, ShardworkError

from .status import why_from_json, why_to_json

SOCKET_NAME = "worker.sock"
#: held by the worker that runs; its process id stands in it
LOCK_NAME = "worker.lock"
#: `pause` and `stop` wait for the child to obey, which may take its whole grace time
ANSWER_TIMEOUT_S = 45.0
#: the others only look or note
QUICK_ANSWER_TIMEOUT_S = 10.0
LINE_LIMIT_BYTES = 64 * 1024


class Command(StrEnum):
    STATUS = "status"
    #: every reason for what it does or does not do, and is or is not paid
    WHY = "why"
    PAUSE = "pause"
    FINISH = "finish"
    RESUME = "resume"
    STOP = "stop"


#: a worker that was told to stop is gone after so many looks
STOP_LOOKS, STOP_LOOK_S = 300, 0.1

Handler = Callable[[Command], Awaitable[Mapping[str, Any]]]


def stop_and_wait(state_dir: Path) -> None:
    """Ends the worker that runs here, if any, and waits until its folders are free. Raises Conflict
    "worker.does_not_stop"."""
    with contextlib.suppress(NotFound, Internal):
        ask(state_dir, Command.STOP)
    for _ in range(STOP_LOOKS):
        # it answers no more some time before it has ended
        if not is_held(state_dir):
            return
        time.sleep(STOP_LOOK_S)
    raise Conflict(
        "worker.does_not_stop",
        "What uses the worker's folders still runs, though it was told to stop.",
        next_step="Nothing was changed. A `bench` ends by itself, or by Ctrl-C; else end that process. Then try again.",
        pid=holder_of(state_dir),
    )


def is_held(state_dir: Path) -> bool:
    """Whether a worker, or its `bench`, holds the folder's lock."""
    try:
        descriptor = os.open(state_dir / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def ask(state_dir: Path, command: Command) -> dict[str, Any]:
    """The worker's status after it carried out `command`. Raises NotFound "worker.not_running", or what it answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        slow = command in (Command.PAUSE, Command.STOP)
        connection.settimeout(ANSWER_TIMEOUT_S if slow else QUICK_ANSWER_TIMEOUT_S)
        try:
            with _reachable(state_dir) as address:
                connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            raise not_running(state_dir) from None
        try:
            connection.sendall(json.dumps({"command": command.value}).encode() + b"\n")
            with connection.makefile("rb") as answers:
                answer = json.loads(answers.readline())
        except (OSError, ValueError):
            sentence = "The worker runs, but it did not answer."
            next_step = "See what it says where it runs. If it hangs: kill -9 its process; a new start goes on."
            pid = holder_of(state_dir)
            raise Internal("worker.no_answer", sentence, next_step=next_step, pid=pid) from None
    if "error" in answer:
        raise ShardworkError.from_why(why_from_json(answer["error"]))
    return dict(answer["status"])


def holder_of(state_dir: Path) -> str:
    """The process id of the worker that holds the folder's lock, as it noted it; "unknown" without one."""
    try:
        return (state_dir / LOCK_NAME).read_text(errors="replace").strip()[:20] or "unknown"
    except OSError:
        return "unknown"


def not_running(state_dir: Path) -> NotFound:
    return NotFound(
        "worker.not_running",
        "No worker runs here.",
        next_step="Start one: shardwork-worker start JOIN.",
        state_folder=state_dir,
    )


@contextlib.asynccontextmanager
async def serve(state_dir: Path, handler: Handler) -> AsyncGenerator[None]:
    """Answers requests until the block ends. The caller holds the worker's lock: a socket found there is left over."""
    listener = _listening(state_dir)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError):
            line = await reader.readline()
            writer.write(json.dumps(await _answer(line, handler)).encode() + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, sock=listener, limit=LINE_LIMIT_BYTES)
    try:
        yield
    finally:
        server.close()
        (state_dir / SOCKET_NAME).unlink(missing_ok=True)


def _listening(state_dir: Path) -> socket.socket:
    """A socket that has its name only once it listens: whoever sees it gets through."""
    listener, unnamed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), f"{SOCKET_NAME}.new"
    (state_dir / unnamed).unlink(missing_ok=True)
    with _reachable(state_dir, unnamed) as address:
        before = os.umask(0o177)
        try:
            listener.bind(address)
        finally:
            os.umask(before)
    listener.listen()
    (state_dir / unnamed).replace(state_dir / SOCKET_NAME)
    return listener


async def _answer(line: bytes, handler: Handler) -> dict[str, Any]:
    try:
        return {"status": dict(await handler(_parse(line)))}
    except ShardworkError as error:
        return {"error": why_to_json(error.why)}


def _parse(line: bytes) -> Command:
    try:
        return Command(json.loads(line)["command"])
    except (ValueError, KeyError, TypeError):
        known = ", ".join(Command)
        raise InvalidInput("worker.unknown_command", "The worker does not know this command.", known=known) from None


@contextlib.contextmanager
def _reachable(state_dir: Path, name: str = SOCKET_NAME) -> Generator[str]:
    """The socket's address in the 107 bytes that the system allows, however deep the folder lies."""
    try:
        folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise not_running(state_dir) from None
    try:
        yield f"/proc/self/fd/{folder}/{name}"
    finally:
        os.close(folder)
