"""Measuring: each case as a real shard runs, in the sandboxed child, small models first, until one is too much.

Owns the child, the folders it works in, and when to stop. Called by the CLI's `bench`, which
holds the worker's lock, because two measurements at once measure each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shardwork.errors import ShardworkError
from shardwork.models.presets import PRESETS
from shardwork.recipes.order import Order
from shardwork.why import Why

from .. import probe
from ..app import Folders, Start, child_command, ground
from ..limits import gpu
from ..limits.conflicts import check_memory
from ..limits.size import show
from ..sandbox.choice import choose
from ..sandbox.jail import physical_memory_bytes
from ..trainer_process import Device, Ready, RunOrder, TrainerProcess
from .income import Power, Rates
from .report import Report, Result
from .workload import LENGTH, ROWS, Case, Kind, write_base, write_rows

#: steps of the first look, and seconds of the longer one that counts
FIRST_STEPS, LONG_S, MOST_STEPS = 4, 4.0, 400
#: a step that takes longer than this makes a device too slow for the model
SLOW_STEP_S = 5.0
#: share of the memory that weights and their moments may take; activations come on top
FITS = 0.8
WATTS_EVERY_S = 0.5
#: how long a child that is interrupted may take
GRACE_S = 1.0


@dataclass(slots=True)
class Bench:
    """One run. `say` hears what is measured next."""

    start: Start
    say: Callable[[str], None]
    rates: Rates = field(default_factory=Rates)
    power: Power = field(default_factory=Power)
    #: presets to try; the first that is too slow or too large ends its kind
    presets: Sequence[str] = tuple(PRESETS)

    async def run(self) -> Report:
        folders = Folders.of(self.start.home)
        check_memory(self.start.settings, physical_memory_bytes())
        sandbox = await choose(self.start.settings.sandbox, ground(self.start.home, self.start.settings))
        # nothing is lost with it: an owner who had enough need not wait for a step to end
        command = sandbox.command(child_command(self.start))
        trainer = TrainerProcess(command, log=folders.state / "bench.log", grace_s=GRACE_S)
        try:
            ready = await trainer.start()
            device = probe.choose_device(ready, self.start.settings.device)
            place = _Place(trainer, device.device, folders.artifacts / "bench", folders.work / "bench")
            with place:
                results = [result async for result in self._results(place, ready, device)]
        finally:
            await trainer.stop()
        return Report(
            device=device.device,
            device_name=device.name,
            torch=ready.torch,
            sandbox=sandbox.word,
            at_ms=time.time_ns() // 1_000_000,
            rates=self.rates,
            power=self.power,
            results=results,
        )

    async def _results(self, place: _Place, ready: Ready, device: Device) -> AsyncIterator[Result]:
        for kind in Kind:
            for preset in self.presets:
                case = Case(kind, preset)
                self.say(f"measuring {kind} {preset} on {device.device}")
                result = await self._measured(case, place, ready, device)
                yield result
                if result.why is not None:
                    # what is larger is slower and needs more
                    break

    async def _measured(self, case: Case, place: _Place, ready: Ready, device: Device) -> Result:
        speed, watts, why = None, None, self._refusal(case, ready, device)
        if why is None:
            try:
                speed, watts = await place.measure(case)
                step_s = ROWS * LENGTH / speed
                why = too_slow(case, step_s) if step_s > SLOW_STEP_S else None
            except ShardworkError as error:
                why = error.why
        return Result(
            kind=case.kind,
            recipe=case.recipe,
            preset=case.preset,
            parameters=case.parameters,
            units_per_token=case.units_per_token,
            tokens_per_s=speed,
            watts=watts,
            why=why,
        )

    def _refusal(self, case: Case, ready: Ready, device: Device) -> Why | None:
        if not ready.torch:
            return Why(
                code="bench.no_torch",
                sentence="torch is not installed, so nothing can be trained here.",
                next_step="pip install 'shardwork[worker]'",
            )
        has = int(device.memory_bytes * self.start.settings.memory_share)
        if case.memory_bytes <= has * FITS:
            return None
        return Why(
            code="bench.too_large",
            sentence=f"It needs {show(case.memory_bytes)} and more; this device gives shards {show(has)}.",
            evidence={"needs_bytes": str(case.memory_bytes), "memory_bytes": str(has)},
            next_step="A device with more memory takes it.",
        )


@dataclass(slots=True)
class _Place:
    """The child and its folders, which are removed at the end."""

    trainer: TrainerProcess
    device: str
    inputs: Path
    outputs: Path
    _runs: int = 0

    def __enter__(self) -> None:
        self.__exit__()
        self.inputs.mkdir(parents=True)
        self.outputs.mkdir(parents=True)

    def __exit__(self, *_: object) -> None:
        for folder in (self.inputs, self.outputs):
            shutil.rmtree(folder, ignore_errors=True)

    async def measure(self, case: Case) -> tuple[float, float | None]:
        """(tokens a second, mean watts). A short look first; the longer one runs about as long on any device."""
        name = f"{case.kind}-{case.preset}"
        base = await asyncio.to_thread(write_base, self.inputs / f"{name}-base", case)
        rows = await asyncio.to_thread(write_rows, self.inputs / f"{name}-rows", case.preset)
        checkpoint = await self._init(case, base)
        inputs = {"base": base, "train": rows, "checkpoint": checkpoint}
        speed = await self._learn(case, inputs, FIRST_STEPS)
        watts: list[float] = []
        steps = min(round(LONG_S * speed / (ROWS * LENGTH)), MOST_STEPS)
        if steps > FIRST_STEPS:
            async with _watching(self.device, watts):
                speed = await self._learn(case, inputs, steps)
        self.__enter__()
        return speed, sum(watts) / len(watts) if watts else None

    async def _init(self, case: Case, base: Path) -> Path:
        outputs, _ = await self._run(case, "init", case.init_order(), {"base": base})
        # the sandbox shows inputs and the folder of the shard that runs, nothing else
        return outputs["checkpoint"].rename(self.inputs / f"{case.kind}-{case.preset}-checkpoint")

    async def _learn(self, case: Case, inputs: dict[str, Path], steps: int) -> float:
        _, ticks = await self._run(case, "learn", case.learn_order(steps), inputs)
        # the first step warms up; what comes before it is loading
        (first_at_s, first), (last_at_s, last) = ticks[1], ticks[-1]
        return (last - first) * steps * ROWS * LENGTH / max(last_at_s - first_at_s, 1e-9)

    async def _run(
        self, case: Case, phase: str, order: Order, inputs: dict[str, Path]
    ) -> tuple[dict[str, Path], list[tuple[float, float]]]:
        """(outputs, (when, fraction) of each step)."""
        self._runs += 1
        ticks: list[tuple[float, float]] = []
        folder = self.outputs / str(self._runs)
        folder.mkdir()
        run_order = RunOrder(
            lease_id=f"bench-{self._runs}",
            phase=phase,
            recipe=case.recipe,
            order_json=order.canonical_json(),
            seed=bytes(32),
            inputs=inputs,
            output_dir=folder,
            device=self.device,
        )
        done = await self.trainer.run(run_order, lambda fraction, _loss: ticks.append((time.monotonic(), fraction)))
        return dict(done.outputs), ticks


@contextlib.asynccontextmanager
async def _watching(device: str, watts: list[float]) -> AsyncGenerator[None]:
    """Adds what the device's GPUs draw together, every half second, where nvidia-smi says."""

    async def watch() -> None:
        while found := gpu.of_device(await gpu.readings(), device):
            drawn = [one.watts for one in found if one.watts is not None]
            if drawn:
                watts.append(sum(drawn))
            await asyncio.sleep(WATTS_EVERY_S)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def too_slow(case: Case, step_s: float) -> Why:
    return Why(
        code="bench.too_slow",
        sentence=f"A step of {ROWS * LENGTH:,} tokens takes {step_s:.0f} s here, so larger models were not tried.",
        evidence={"step_s": f"{step_s:.1f}", "parameters": str(case.parameters)},
        next_step="Ask for a larger one by name: --preset",
    )
