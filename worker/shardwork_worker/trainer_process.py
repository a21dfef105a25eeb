"""The agent's end of the training child: one warm process, one request at a time.

Owns starting, talking to, interrupting and restarting the process; the messages stand in `shardwork_worker.child`.
The child gets an empty environment and no key, sits in a session of its own (a Ctrl-C in the terminal does not reach
it) and dies with the agent because its pipe closes. Leases call `run` and `rebuild`; cancelling a call interrupts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardwork.errors import Internal, ShardworkError
from shardwork.recipes.abilities import Ability, known

from .frames import encode, read_frame_from
from .status import why_from_json

Message = dict[str, Any]
ProgressListener = Callable[[float, float | None], None]

READY_TIMEOUT_S = 180.0
#: how long a child may take to obey an interrupt before it is killed
GRACE_S = 10.0
LOG_LIMIT_BYTES = 1024 * 1024
STDERR_TAIL_BYTES = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    #: "cpu", "cuda:0"
    device: str
    name: str
    memory_bytes: int
    #: beside fp32, as `shardwork.recipes.abilities` names them
    abilities: frozenset[Ability] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    #: version, empty when torch cannot be imported
    torch: str
    #: the CUDA that this torch was built for, as "12.6"; empty without, or when there is no GPU to ask for
    cuda: str = ""
    #: best first
    devices: Sequence[Device] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """One shard for the child; folders are absolute."""

    lease_id: str
    phase: str
    recipe: str
    order_json: str
    seed: bytes
    inputs: Mapping[str, Path]
    output_dir: Path
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    outputs: Mapping[str, Path]
    metrics: Mapping[str, float]
    compute_ms: int


class TrainerProcess:
    """Starts on first use, restarts after a crash. `stop` ends it for good."""

    def __init__(self, command: Sequence[str], *, log: Path, grace_s: float = GRACE_S) -> None:
        self._command = tuple(command)
        self._log = log
        self._grace_s = grace_s
        self._process: asyncio.subprocess.Process | None = None
        self._pump: asyncio.Task[None] | None = None
        #: frames in order; None once the pipe has closed
        self._frames: asyncio.Queue[Message | None] = asyncio.Queue()

    @property
    def pid(self) -> int | None:
        """Process id while a child lives."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> Ready:
        """Starts the child and waits until it is ready. Raises Internal "trainer.died" or "trainer.not_ready"."""
        await self.stop()
        self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._open_log() as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={},
                cwd=self._log.parent,
                start_new_session=True,
            )
        self._frames = asyncio.Queue()
        self._pump = asyncio.create_task(self._read_frames(self._process, self._frames))
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                return _parse_ready(await self._next({"ready"}))
        except TimeoutError:
            await self.stop()
            sentence = "The training child did not become ready."
            raise Internal("trainer.not_ready", sentence, seconds=READY_TIMEOUT_S, stderr=self._tail()) from None

    async def run(self, order: RunOrder, on_progress: ProgressListener) -> Done:
        """Computes one shard. Raises what the child reports, Internal "trainer.died" when it dies on the way."""
        message = {
            "type": "run",
            "lease_id": order.lease_id,
            "phase": order.phase,
            "recipe": order.recipe,
            "order_json": order.order_json,
            "seed": order.seed.hex(),
            "inputs": {name: str(folder) for name, folder in order.inputs.items()},
            "output_dir": str(order.output_dir),
            "device": order.device,
        }
        reply = await self._ask(message, "done", on_progress)
        return Done(
            outputs={str(name): Path(folder) for name, folder in reply["outputs"].items()},
            metrics={str(name): float(value) for name, value in reply["metrics"].items()},
            compute_ms=int(reply["compute_ms"]),
        )

    async def rebuild(self, *, checkpoint: Path, step: Path, moments: Path, into: Path) -> None:
        """Makes the next checkpoint from its parent and a round's update. Raises what the child reports."""
        folders = {"checkpoint": checkpoint, "step": step, "moments": moments, "into": into}
        await self._ask({"type": "rebuild"} | {name: str(path) for name, path in folders.items()}, "rebuilt")

    async def stop(self) -> None:
        """Kills the child with everything it started. Harmless when none runs."""
        process, self._process = self._process, None
        if process is None:
            return
        _kill_group(process)
        await process.wait()
        if self._pump is not None:
            await self._pump
        if process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(OSError):
                await process.stdin.wait_closed()

    async def _ask(self, message: Message, answer: str, on_progress: ProgressListener | None = None) -> Message:
        if self.pid is None:
            await self.start()
        self._bound_log()
        lease_id = str(message.get("lease_id", ""))
        try:
            await self._send(message)
            return await self._next({answer}, lease_id, on_progress)
        except asyncio.CancelledError:
            await self._abandon(lease_id)
            raise

    async def _send(self, message: Message) -> None:
        assert self._process is not None and self._process.stdin is not None
        # a dead child is noticed by `_next`, which knows its exit status
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(encode(message))
            await self._process.stdin.drain()

    async def _next(self, wanted: set[str], lease_id: str = "", on_progress: ProgressListener | None = None) -> Message:
        """Frames until one of `wanted`; progress goes to the listener, a failure is raised.

        Frames of another lease are left over from one that was abandoned and mean nothing any more.
        """
        while (frame := await self._frames.get()) is not None:
            if str(frame.get("lease_id", "")) != lease_id:
                continue
            if frame["type"] in wanted:
                return frame
            if frame["type"] == "progress" and on_progress is not None:
                loss = frame.get("loss")
                on_progress(float(frame["fraction"]), None if loss is None else float(loss))
            if frame["type"] == "failed":
                raise ShardworkError.from_why(why_from_json(frame["why"]))
        raise await self._died()

    async def _abandon(self, lease_id: str) -> None:
        """Asks the child to give the shard up; one that does not obey in time is killed."""
        await self._send({"type": "interrupt", "lease_id": lease_id})
        # not asyncio.timeout: before Python 3.11.4 it raises no TimeoutError in a task that is being cancelled
        obeying = asyncio.create_task(self._next({"done", "rebuilt"}, lease_id))
        try:
            await asyncio.wait({obeying}, timeout=self._grace_s)
            if not obeying.done():
                await self.stop()
        finally:
            obeying.cancel()
        with contextlib.suppress(ShardworkError, asyncio.CancelledError):
            await obeying

    async def _died(self) -> Internal:
        process = self._process
        status = await process.wait() if process is not None else 0
        await self.stop()
        # nothing of ours kills a child that is asked for its answer
        starved = " Most often that is a system out of memory." if status == -signal.SIGKILL else ""
        return Internal(
            "trainer.died",
            f"The training child died.{starved}",
            next_step=f"The worker's owner finds more in {self._log.name} of its state folder.",
            exit_status=_name_of(status),
            stderr=self._tail(),
        )

    async def _read_frames(self, process: asyncio.subprocess.Process, frames: asyncio.Queue[Message | None]) -> None:
        assert process.stdout is not None
        try:
            while (frame := await read_frame_from(process.stdout)) is not None:
                frames.put_nowait(frame)
        except (ShardworkError, OSError):
            # a child that breaks the framing cannot be talked to any more
            _kill_group(process)
        finally:
            frames.put_nowait(None)

    @contextlib.contextmanager
    def _open_log(self) -> Generator[int]:
        self._bound_log()
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _bound_log(self) -> None:
        """Sets a log that grew large aside and begins anew. Copied, not moved: a warm child goes on appending to it."""
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > LOG_LIMIT_BYTES:
                shutil.copyfile(self._log, self._log.with_suffix(".old.log"))
                os.truncate(self._log, 0)

    def _tail(self) -> str:
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, self._log.stat().st_size - STDERR_TAIL_BYTES))
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""


def _parse_ready(frame: Message) -> Ready:
    first = {"device": "cpu", "name": frame["device_name"], "memory_bytes": frame["memory_bytes"]}
    devices = [
        Device(
            device=str(entry["device"]),
            name=str(entry["name"]),
            memory_bytes=int(entry["memory_bytes"]),
            abilities=known(entry.get("abilities", ())),
        )
        for entry in frame.get("devices", [first])
    ]
    return Ready(torch=str(frame.get("torch") or ""), cuda=str(frame.get("cuda") or ""), devices=devices)


def _kill_group(process: asyncio.subprocess.Process) -> None:
    # the child leads its own session, so its pid names the group and whatever it started dies with it
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _name_of(status: int) -> str:
    if status >= 0:
        return str(status)
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
