"""The child as the agent sees it: a process with an empty environment that speaks frames and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from shardwork.recipes.orders import CountOrder
from shardwork_worker.child import why_of
from shardwork_worker.frames import read_frame, write_frame
from shardwork_worker.training.context import Interrupted

COMMAND = [sys.executable, "-I", "-m", "shardwork_worker.child"]
NOISY = """
import shardwork_worker.child as child
quiet = child.ready
def ready():
    print("a stray print")
    return quiet()
child.ready = ready
child.main()
"""


class Process:
    """A child and its pipes."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log.open("wb")
        self.process = subprocess.Popen(
            command, env={}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, start_new_session=True
        )
        self._in = cast(BinaryIO, self.process.stdin)
        self._out = cast(BinaryIO, self.process.stdout)

    def send(self, **message: Any) -> None:
        write_frame(self._in, message)

    def receive(self) -> dict[str, Any]:
        message = read_frame(self._out)
        assert message is not None, "the child closed its pipe"
        return message

    def outcome(self) -> dict[str, Any]:
        """The next message that is no progress."""
        while (message := self.receive())["type"] == "progress":
            pass
        return message

    def has_torch(self) -> bool:
        return "libtorch" in Path(f"/proc/{self.process.pid}/maps").read_text()

    def hang_up(self) -> None:
        self._in.close()

    def stop(self) -> None:
        if not self._in.closed:
            self._in.close()
        self.process.kill()
        self.process.wait(timeout=10)
        self._out.close()
        self._log.close()


@contextmanager
def started(log: Path, command: list[str] | None = None) -> Generator[Process]:
    process = Process(command or COMMAND, log)
    try:
        yield process
    finally:
        process.stop()


def count_run(tmp_path: Path, name: str = "lease-1", **changes: Any) -> dict[str, Any]:
    """A run frame of the recipe that needs no torch."""
    part = tmp_path / f"part-{name}"
    part.mkdir()
    (part / "lines.txt").write_text("one two two three three three\n")
    frame: dict[str, Any] = {
        "type": "run",
        "lease_id": name,
        "phase": "map",
        "recipe": "count",
        "order_json": CountOrder(top=2).canonical_json(),
        "seed": bytes(32).hex(),
        "inputs": {"part": str(part)},
        "output_dir": str(tmp_path / f"out-{name}"),
        "device": "cpu",
    }
    return {**frame, **changes}


def test_a_map_shard_runs_without_torch(tmp_path: Path) -> None:
    with started(tmp_path / "log") as child:
        ready = child.receive()
        assert ready["type"] == "ready" and ready["device_name"] and ready["memory_bytes"] > 2**28
        child.send(**count_run(tmp_path))
        done = child.outcome()
        assert done["type"] == "done" and done["lease_id"] == "lease-1" and done["compute_ms"] >= 0
        assert any(Path(done["outputs"]["counts"]).iterdir())
        assert not child.has_torch()


def test_a_failed_shard_says_why_and_the_child_goes_on(tmp_path: Path) -> None:
    with started(tmp_path / "log") as child:
        child.receive()
        child.send(**count_run(tmp_path, "bad-order", phase="learn", recipe="sft", order_json="{}"))
        failed = child.outcome()
        assert failed["type"] == "failed" and failed["lease_id"] == "bad-order"
        assert failed["why"]["code"] == "trainer.bad_order" and failed["why"]["sentence"].endswith(".")
        child.send(**count_run(tmp_path, "bad-recipe", recipe="conut"))
        assert child.outcome()["why"]["code"] == "recipe.unknown"
        child.send(type="dance")
        assert child.outcome()["why"]["code"] == "child.unknown_message"
        child.send(**count_run(tmp_path, "good"))
        assert child.outcome()["type"] == "done"


def test_an_interrupt_reaches_a_shard_that_still_waits_its_turn(tmp_path: Path) -> None:
    with started(tmp_path / "log") as child:
        child.send(**count_run(tmp_path, "first"))
        child.send(**count_run(tmp_path, "second"))
        child.send(type="interrupt", lease_id="second")
        child.send(type="interrupt", lease_id="unknown")
        assert child.receive()["type"] == "ready"
        assert child.outcome()["type"] == "done"
        failed = child.outcome()
        assert (failed["lease_id"], failed["why"]["code"]) == ("second", "trainer.interrupted")


def test_a_stray_print_does_not_break_the_frames(tmp_path: Path) -> None:
    with started(tmp_path / "log", [sys.executable, "-I", "-c", NOISY]) as child:
        assert child.receive()["type"] == "ready"
        child.send(type="exit")
        assert child.process.wait(timeout=20) == 0
    assert "a stray print" in (tmp_path / "log").read_text()


def test_the_child_exits_when_its_pipe_closes(tmp_path: Path) -> None:
    with started(tmp_path / "log") as child:
        child.receive()
        child.hang_up()
        assert child.process.wait(timeout=20) == 0


def test_bytes_that_are_no_frame_end_the_child(tmp_path: Path) -> None:
    with started(tmp_path / "log") as child:
        child.receive()
        stdin = cast(BinaryIO, child.process.stdin)
        stdin.write(b"GET / HTTP/1.1\r\n\r\n")
        stdin.flush()
        assert child.process.wait(timeout=20) == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "trainer.out_of_memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "trainer.out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "trainer.out_of_memory"),
        (RuntimeError("CUDA error: device-side assert triggered"), "trainer.device_broken"),
        (Interrupted(), "trainer.interrupted"),
        (RuntimeError("shapes do not match"), "trainer.unexpected"),
    ],
)
def test_every_error_has_a_code_of_its_own(error: Exception, code: str) -> None:
    why = why_of(error)
    assert why.code == code and why.sentence.endswith(".")
