"""The training child: one warm process per device that runs one shard at a time for the agent.

Started as `python -I -m shardwork_worker.child` with an empty environment; it holds no key and opens no connection, and
shuts itself in (`sandbox.confine`) before it reads its first message, as the agent's `--jail` says.
Frames (`shardwork_worker.frames`) come on standard input and leave on the descriptor that was standard output; the
descriptor itself is pointed at standard error first, so that a library's stray print cannot break a frame.

    agent -> child   run, rebuild, interrupt, exit
    child -> agent   ready, progress, done, rebuilt, failed

A thread reads frames, so that `interrupt` takes effect at the next training step and a closed pipe ends the process
at once. torch is imported by the first shard that needs it and stays warm from then on.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import queue
import re
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import ValidationError

from shardwork.errors import InvalidInput, ShardworkError
from shardwork.recipes import recipe as find_recipe
from shardwork.recipes.abilities import Ability
from shardwork.recipes.base import Computed, Context
from shardwork.recipes.order import Order
from shardwork.recipes.orders import EvaluateOrder, InitOrder, LearnOrder, PublishOrder
from shardwork.why import Why

from .frames import read_frame, write_frame
from .sandbox.confine import confine, jail_of
from .training.context import MEMORY_SHARE_VARIABLE, Inputs, Interrupted, ShardContext, TrainerSource

#: set before torch is imported: no network, no second thread pool, repeatable matrix products on GPUs
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # cuda:1 is the second GPU of nvidia-smi, which measures its power
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
}

OrderT = TypeVar("OrderT", bound=Order)

#: on the command line: the share of a GPU's memory that the owner allows
MEMORY_SHARE = "--memory-share"

#: a line of torch's version.py; "None" where it was built without
TORCH_CUDA = re.compile(r"^cuda\b[^=]*=\s*['\"](\d+\.\d+)", re.MULTILINE)
DEVICE_BROKEN = "trainer.device_broken"
#: of NVIDIA's driver, of AMD's, and of Windows' below Linux
GPU_NODES = ("nvidiactl", "kfd", "dxg")
OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def main() -> int:
    """Entry of the process: settles environment and descriptors, then serves until the pipe closes."""
    os.environ.update(ENVIRONMENT)
    if MEMORY_SHARE in sys.argv:
        os.environ[MEMORY_SHARE_VARIABLE] = sys.argv[sys.argv.index(MEMORY_SHARE) + 1]
    _die_first()
    frames_in = os.fdopen(os.dup(0), "rb", buffering=0)
    frames_out = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    if (jail := jail_of(sys.argv)) is not None:
        # the last moment with one thread, and nothing foreign was read yet
        confine(jail)
    return Child(frames_in, frames_out).serve()


def run_phase(phase: str, recipe: str, order_json: str, context: Context) -> Computed:
    """Runs one shard: phases of the trainer directly, everything else through its recipe.

    Raises InvalidInput "trainer.bad_order", and what the phase raises. The order is read before torch is imported.
    """
    match phase:
        case "init":
            init = _order(InitOrder, phase, order_json)
            return context.trainer.init(init, context)
        case "learn":
            learn = _order(LearnOrder, phase, order_json)
            return context.trainer.learn(learn, context)
        case "evaluate":
            evaluate = _order(EvaluateOrder, phase, order_json)
            return context.trainer.evaluate(evaluate, context)
        case "publish":
            publish = _order(PublishOrder, phase, order_json)
            return context.trainer.publish(publish, context)
        case _:
            return find_recipe(recipe).compute(phase, order_json, context)


def _order(kind: type[OrderT], phase: str, order_json: str) -> OrderT:
    try:
        return kind.model_validate_json(order_json)
    except ValidationError as error:
        sentence = "The shard's order does not fit this worker's version."
        raise InvalidInput("trainer.bad_order", sentence, phase=phase, problem=str(error)[:500]) from error


@dataclass(slots=True)
class Child:
    """The frame loop. One instance lives as long as the process."""

    frames_in: BinaryIO
    frames_out: BinaryIO
    trainers: TrainerSource = field(default_factory=TrainerSource)
    _work: queue.SimpleQueue[dict[str, Any] | None] = field(default_factory=queue.SimpleQueue[dict[str, Any] | None])
    #: leases that were revoked while queued or running
    _interrupted: set[str] = field(default_factory=set[str])

    def serve(self) -> int:
        threading.Thread(target=self._read, name="frames", daemon=True).start()
        self._send(ready())
        while (message := self._work.get()) is not None:
            answer = self._answer(message)
            self._send(answer)
            # every later call on this device would fail too, and ranks of a team are no longer at one place; the agent
            # starts a new child
            is_team = "*" in str(message.get("device", ""))
            if answer["type"] == "failed" and (is_team or answer["why"]["code"] == DEVICE_BROKEN):
                self.trainers.close()
                return 1
        self.trainers.close()
        return 0

    def _read(self) -> None:
        """Sorts frames as they come: work is queued, an interrupt takes effect at once, a closed pipe ends all."""
        try:
            while (message := read_frame(self.frames_in)) is not None:
                match message["type"]:
                    case "interrupt":
                        self._interrupted.add(str(message["lease_id"]))
                    case "exit":
                        self._work.put(None)
                    case _:
                        # a new run of a lease clears an interrupt that was meant for an earlier one
                        self._interrupted.discard(str(message.get("lease_id", "")))
                        self._work.put(message)
        except (ShardworkError, OSError):
            traceback.print_exc()
        # nobody is left to take a result: a shard that still runs is abandoned in the middle of its step
        os._exit(0)

    def _answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        try:
            match message["type"]:
                case "run":
                    return self._run(message)
                case "rebuild":
                    return rebuild(message)
                case other:
                    raise InvalidInput("child.unknown_message", "The child does not know this message.", type=other)
        except Exception as error:
            if not isinstance(error, Interrupted | ShardworkError):
                traceback.print_exc()
            if not isinstance(error, Interrupted):
                # a revoked lease is ordinary (a copy came first), and the next shard tunes the same base
                self.trainers.release_memory()
            return {"type": "failed", "lease_id": message.get("lease_id", ""), "why": as_message(why_of(error))}

    def _run(self, message: Mapping[str, Any]) -> dict[str, Any]:
        lease_id = str(message["lease_id"])
        context = ShardContext(
            inputs=Inputs((name, Path(folder)) for name, folder in message["inputs"].items()),
            seed=bytes.fromhex(message["seed"]),
            output_dir=Path(message["output_dir"]),
            trainer_of=lambda: self.trainers.on(str(message.get("device", "cpu"))),
            tell=lambda fraction, loss: self._progress(lease_id, fraction, loss),
        )
        started = time.monotonic()
        context.progress(0.0)
        computed = run_phase(str(message["phase"]), str(message["recipe"]), str(message["order_json"]), context)
        return {
            "type": "done",
            "lease_id": lease_id,
            "outputs": {name: str(folder) for name, folder in computed.outputs.items()},
            "metrics": dict(computed.metrics),
            "compute_ms": round((time.monotonic() - started) * 1000),
        }

    def _progress(self, lease_id: str, fraction: float, loss: float | None) -> None:
        if lease_id in self._interrupted:
            raise Interrupted()
        self._send({"type": "progress", "lease_id": lease_id, "fraction": fraction, "loss": loss})

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            write_frame(self.frames_out, message)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)


def rebuild(message: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the next checkpoint from its parent and the round's update; needs no torch."""
    from shardwork.tensors.checkpoint import apply_update

    checkpoint, step, moments, into = (Path(message[name]) for name in ("checkpoint", "step", "moments", "into"))
    apply_update(checkpoint, step, moments, into)
    return {"type": "rebuilt", "into": message["into"]}


def ready() -> dict[str, Any]:
    """What this device is. torch is asked only where there is a GPU, so that a child for `map` stays light."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cpu: dict[str, Any] = {"device": "cpu", "name": _cpu_name(), "memory_bytes": memory_bytes}
    # every CPU that torch runs on computes in bf16, most of them slowly
    devices = [cpu | {"abilities": [Ability.BF16] if _torch_version() else []}]
    if has_gpu():
        from .training.device import gpus

        devices = [*gpus(), *devices]
    first = devices[0]
    return {
        "type": "ready",
        "torch": _torch_version(),
        "cuda": _torch_cuda(),
        "device_name": first["name"],
        "memory_bytes": first["memory_bytes"],
        "devices": devices,
    }


def has_gpu() -> bool:
    """Whether it is worth asking torch, which takes seconds to import."""
    return sys.platform == "darwin" or any(Path("/dev", name).exists() for name in GPU_NODES)


def why_of(error: Exception) -> Why:
    """The reason that the agent reports."""
    if isinstance(error, ShardworkError):
        return error.why
    if isinstance(error, Interrupted):
        return Why(code="trainer.interrupted", sentence="The shard was interrupted because its lease was revoked.")
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY_WORDS):
        return Why(
            code="trainer.out_of_memory",
            sentence="The device ran out of memory.",
            evidence={"detail": str(error)[:300]},
            next_step="Use a smaller micro batch or max_length, LoRA instead of full tuning, or a larger device.",
        )
    if "CUDA error" in str(error):
        return Why(
            code=DEVICE_BROKEN,
            sentence="The GPU failed in the middle of the shard.",
            evidence={"detail": str(error)[:300]},
            next_step="If it comes back, check the GPU's driver and memory.",
        )
    return Why(
        code="trainer.unexpected",
        sentence="The training child hit an error that it does not know.",
        evidence={"error": type(error).__name__, "detail": str(error)[:500]},
        next_step="See the worker's log for the traceback.",
    )


def as_message(why: Why) -> dict[str, Any]:
    return {
        "code": why.code,
        "sentence": why.sentence,
        "evidence": dict(why.evidence),
        "next_step": why.next_step,
    }


def _die_first() -> None:
    """A shard that eats all memory must cost its lease, not the owner's desktop: this process is killed first."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _torch_version() -> str:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return ""


def _torch_cuda() -> str:
    """What torch was built for, read from its own file: importing it takes seconds."""
    found = importlib.util.find_spec("torch") if _torch_version() else None
    try:
        text = Path(found.origin).with_name("version.py").read_text() if found and found.origin else ""
    except OSError:
        text = ""
    built = TORCH_CUDA.search(text)
    return built[1] if built else ""


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "cpu"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "cpu")


if __name__ == "__main__":
    sys.exit(main())
