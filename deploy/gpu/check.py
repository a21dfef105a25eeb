# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""Proves on your machine what the makers of Shardwork could not try: training on a GPU, shut in a sandbox.

Runs the worker's real training child, outside and inside each sandbox that works here, and looks whether the same shard
gives the same bytes, how many tokens a second it takes, how far bf16 drifts from fp32, whether computing blocks twice
changes anything, whether too large a batch is halved, and whether several GPUs give what one gives. Without a GPU it
runs on the CPU and says that it proves nothing about CUDA.

    python deploy/gpu/check.py [--device cuda:0] [--json bench/results/gpu.json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench")]

import overhead  # noqa: E402

from shardwork.errors import ShardworkError  # noqa: E402
from shardwork.recipes.orders import InitOrder, LearnOrder, Precision  # noqa: E402
from shardwork.tensors.file import read_tensors  # noqa: E402
from shardwork_worker.app import CHILD_COMMAND  # noqa: E402
from shardwork_worker.sandbox.choice import OFF, Ground, Sandbox, tried  # noqa: E402
from shardwork_worker.sandbox.jail import Kind  # noqa: E402
from shardwork_worker.trainer_process import Done, Ready, RunOrder, TrainerProcess  # noqa: E402

RESULT = ROOT / "bench" / "results" / "gpu.json"
STEPS, ROWS, LENGTH = 10, 8, 128
#: bf16 against fp32, relative distance of the deltas: 2-3 % was measured for 5-20 steps on CPUs
MOST_DRIFT = 0.1
SEED = bytes(32)


@dataclass(slots=True)
class Bench:
    """The inputs, and a child at a time."""

    folder: Path
    device: str
    order: LearnOrder
    base: Path
    train: Path
    _count: int = 0
    _inputs: dict[str, Path] = field(default_factory=dict[str, Path])

    def ground(self, processes: bool = False) -> Ground:
        work = self.folder / "work"
        return Ground(
            inputs=self.folder / "inputs",
            work=work,
            scratch=self.folder / "scratch",
            hidden=(),
            keys=self.folder / "keys",
            output_bytes=1 << 36,
            processes=processes,
        )

    async def learn(self, trainer: TrainerProcess, order: LearnOrder, device: str = "") -> tuple[Done, float]:
        """A shard and its tokens a second, after a first step that warms up."""
        ticks: list[float] = []
        ran = await self._run(
            trainer, "learn", order, lambda _fraction, _loss: ticks.append(time.perf_counter()), device
        )
        seconds = ticks[-1] - ticks[1] if len(ticks) > 2 else float("nan")
        return ran, (len(ticks) - 2) * order.batch_size * order.max_length / seconds

    async def checkpoint(self, trainer: TrainerProcess) -> None:
        order = InitOrder(tuning=self.order.tuning, from_scratch=self.order.from_scratch)
        made = await self._run(trainer, "init", order, lambda _fraction, _loss: None, "")
        self._inputs = {"base": self.base, "train": self.train, "checkpoint": made.outputs["checkpoint"]}

    async def _run(self, trainer: TrainerProcess, phase: str, order: Any, listen: Any, device: str) -> Done:
        self._count += 1
        folder = self.folder / "work" / f"{phase}-{self._count}"
        folder.mkdir(parents=True)
        return await trainer.run(
            RunOrder(
                lease_id=f"{phase}-{self._count}",
                phase=phase,
                recipe="pretrain",
                order_json=order.canonical_json(),
                seed=SEED,
                inputs=self._inputs or {"base": self.base},
                output_dir=folder,
                device=device or self.device,
            ),
            listen,
        )


def distance(one: Path, other: Path) -> float:
    """Relative, over all numbers of two deltas; 0 for equal bytes."""
    apart = whole = 0.0
    for file in sorted(one.glob("*.safetensors")):
        ours, theirs = read_tensors(file), read_tensors(other / file.name)
        for name, values in ours.items():
            apart += float(((values.astype("float64") - theirs[name]) ** 2).sum())
            whole += float((values.astype("float64") ** 2).sum())
    return float((apart / whole) ** 0.5)


async def examine(folder: Path, wanted: str) -> dict[str, Any]:
    ready = await devices(folder)
    device = ready.devices[0].device if wanted == "auto" else wanted
    bench = Bench(
        folder,
        device,
        overhead.learn_order(STEPS, ROWS, LENGTH).model_copy(update={"encoding": "fp32"}),
        overhead.write_base(folder / "inputs" / "base"),
        overhead.write_train(folder / "inputs" / "train", STEPS * ROWS, LENGTH),
    )
    found: dict[str, Any] = {
        "device": device,
        "name": next((one.name for one in ready.devices if one.device == device), device),
        "abilities": next((sorted(one.abilities) for one in ready.devices if one.device == device), []),
        "torch": ready.torch,
        "proves_cuda": device.startswith("cuda"),
        "steps": STEPS,
        "tokens_a_step": ROWS * LENGTH,
        "in": {},
    }
    outside = await in_sandbox(bench, OFF, None, found)
    for kind in (Kind.BUBBLEWRAP, Kind.KERNEL):
        await in_sandbox(bench, await tried(kind, bench.ground()), outside, found, name=kind.value)
    teams = [one.device for one in ready.devices if "*" in one.device] if wanted == "auto" else []
    for team in teams:
        await a_team(bench, team, outside, found)
    found["several_gpus"] = found.get("several_gpus", "not tried: there is one device")
    return found


async def devices(folder: Path) -> Ready:
    trainer = TrainerProcess(CHILD_COMMAND, log=folder / "log" / "devices.log")
    try:
        return await trainer.start()
    finally:
        await trainer.stop()


async def in_sandbox(
    bench: Bench, sandbox: Sandbox, outside: Path | None, found: dict[str, Any], name: str = "none"
) -> Path:
    """The trials in this sandbox; the delta in fp32. What does not run is told, and the next is tried."""
    if sandbox.kind is Kind.NONE and name != "none":
        found["in"][name] = {"ran": False, "why": {layer: why for layer, (_, why) in sandbox.layers.items()}}
        return outside or bench.folder
    told: dict[str, Any] = {"ran": True, "escaped": dict(sandbox.escaped)}
    found["in"][name] = told
    started = time.perf_counter()
    trainer = TrainerProcess(sandbox.command(CHILD_COMMAND), log=bench.folder / "log" / f"{name}.log")
    try:
        await trainer.start()
        told["start_s"] = round(time.perf_counter() - started, 3)
        if not bench._inputs:
            await bench.checkpoint(trainer)
        await bench.learn(trainer, bench.order)  # warm
        done, speed = await bench.learn(trainer, bench.order)
        delta = done.outputs["delta"]
        told["tokens_a_second"] = round(speed)
        told["distance_from_outside"] = distance(outside, delta) if outside else 0.0
        await variants(bench, trainer, delta, told)
        return delta
    except ShardworkError as error:
        told.update(ran=False, why=error.why.render(), evidence=dict(error.why.evidence))
        return outside or bench.folder
    finally:
        await trainer.stop()


async def variants(bench: Bench, trainer: TrainerProcess, delta: Path, told: dict[str, Any]) -> None:
    """bf16, blocks computed twice, and a batch that may not fit."""
    half = bench.order.model_copy(update={"precision": Precision.BF16})
    done, speed = await bench.learn(trainer, half)
    drift = distance(delta, done.outputs["delta"])
    told["bf16"] = {"drift": drift, "within": drift <= MOST_DRIFT, "tokens_a_second": round(speed)}
    twice = bench.order.model_copy(update={"gradient_checkpointing": True})
    done, speed = await bench.learn(trainer, twice)
    told["recomputed"] = {"distance": distance(delta, done.outputs["delta"]), "tokens_a_second": round(speed)}
    if bench.device.startswith("cuda"):
        large = bench.order.model_copy(update={"batch_size": 4096, "micro_batch_size": 4096, "steps": 2})
        done, _ = await bench.learn(trainer, large)
        told["too_large_a_batch"] = {key: done.metrics.get(key, 0) for key in ("memory_halvings", "micro_batch_size")}
    else:
        told["too_large_a_batch"] = "not tried: a CPU's memory ends for the whole machine"


async def a_team(bench: Bench, team: str, outside: Path, found: dict[str, Any]) -> None:
    sandbox = await tried(Kind.BUBBLEWRAP, bench.ground(processes=True))
    trainer = TrainerProcess(sandbox.command(CHILD_COMMAND), log=bench.folder / "log" / "team.log")
    try:
        await bench.learn(trainer, bench.order, team)
        done, speed = await bench.learn(trainer, bench.order, team)
        apart = distance(outside, done.outputs["delta"])
        found["several_gpus"] = {"device": team, "tokens_a_second": round(speed), "distance_from_one": apart}
    except ShardworkError as error:
        found["several_gpus"] = {"device": team, "why": error.why.render(), "evidence": dict(error.why.evidence)}
    finally:
        await trainer.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, default=RESULT)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(examine(Path(folder), given.device))
    print(json.dumps(found, indent=2))
    given.json.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    if not found["proves_cuda"]:
        print("No GPU was used: this proves nothing about CUDA.", file=sys.stderr)
    good = all(one["ran"] and one["bf16"]["within"] for one in found["in"].values() if one["ran"] or "evidence" in one)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
