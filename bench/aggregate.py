"""Streaming merge against raw numpy: GB/s, and anonymous memory as deltas are added.

    python bench/aggregate.py            # writes bench/results/aggregate.json

Each delta is 25 million parameters (100 MB in fp32), packed in int8. Both sides count the same bytes: K x 100 MB of
decoded fp32 delta. The raw baseline is `acc += x` over K fp32 arrays that lie in memory already, run between the
merges (A B A B). `mean` reads, unpacks and averages the deltas only; `merge` is the whole phase: gates, screen, mean,
momentum, one step, and both moments, so it handles three times the deltas' bytes twice.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import numpy as np

from shardwork.recipes.base import Trainer
from shardwork.recipes.orders import MergeOrder
from shardwork.tensors.checkpoint import open_checkpoint, write_checkpoint, write_delta
from shardwork.tensors.encodedfile import pieces, scratch
from shardwork.tensors.encoding import ENCODINGS, F32, Quantity
from shardwork_coordinator.aggregate import RULES, gates, merge
from shardwork_coordinator.aggregate.mean import WeightedMean

PARAMETERS = 25_000_000
SHAPES = {f"layer.{index}.weight": (1000, 2500) for index in range(10)}
FP32_BYTES = PARAMETERS * 4
REPEATS = 5
RESULTS = Path(__file__).parent / "results" / "aggregate.json"


class BenchContext:
    seed = bytes(32)

    def __init__(self, inputs: Mapping[str, Path], root: Path) -> None:
        self.inputs = inputs
        self._root = root

    @property
    def trainer(self) -> Trainer:
        raise AssertionError("merging trains nothing")

    def output(self, name: str) -> Path:
        folder = self._root / name
        folder.mkdir(parents=True)
        return folder

    def progress(self, fraction: float, *, loss: float | None = None) -> None: ...


class AnonymousPeak:
    """Highest RssAnon above the start while the block runs, sampled every millisecond."""

    def __enter__(self) -> AnonymousPeak:
        self._start, self.peak_bytes, self._over = _anonymous_bytes(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.001):
            self.peak_bytes = max(self.peak_bytes, _anonymous_bytes() - self._start)

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        self._thread.join()


def _anonymous_bytes() -> int:
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) * 1024


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def prepare(root: Path, deltas: int) -> None:
    random = np.random.default_rng(0)

    def draw(scale: float) -> dict[str, F32]:
        return {name: random.standard_normal(shape, np.float32) * np.float32(scale) for name, shape in SHAPES.items()}

    weights, common = draw(1), draw(0.01)
    write_checkpoint(root / "checkpoint", weights, None, None, "full", 0, 0)
    for index in range(deltas):
        noise, m = draw(0.01), draw(1e-3)
        after = {name: weights[name] - common[name] - noise[name] for name in weights}
        v = {name: np.square(value) for name, value in m.items()}
        write_delta(root / f"delta-{index}", "int8", weights, after, m, v, 10, 10)


def run_mean(root: Path, count: int) -> None:
    """The inner loop of a merge: unpack each delta's piece and average."""
    rule, room, out, weights = WeightedMean(), scratch(), scratch(), [1 / count] * count
    with open_checkpoint(root / "checkpoint") as checkpoint:
        deltas = [gates.open_delta(root / f"delta-{index}", checkpoint, "int8") for index in range(count)]
        for place in pieces(checkpoint.shapes):
            rule.combine((delta.delta.read(*place, room) for delta in deltas), weights, out[: place[2] - place[1]])


def run_merge(root: Path, count: int, rule: str = "screened_mean") -> None:
    inputs = {"checkpoint": root / "checkpoint"} | {f"delta-{index}": root / f"delta-{index}" for index in range(count)}
    order = MergeOrder(rule=rule, steps=10, weights=(1,) * count, candidates=("mean",), encoding="int8")
    with tempfile.TemporaryDirectory(dir=root) as outputs:
        found = merge.compute(order, BenchContext(inputs, Path(outputs)))
    # multi-Krum leaves out two of eight whatever they are
    assert found.metrics["num_kept"] == count or rule == "multi_krum"


def run_raw(arrays: list[F32], accumulator: F32) -> None:
    accumulator[...] = arrays[0]
    for array in arrays[1:]:
        accumulator += array


def measure(root: Path, count: int) -> dict[str, float]:
    times: dict[str, list[float]] = {"raw": [], "mean": [], "merge": []}
    arrays = [np.full(PARAMETERS, index, np.float32) for index in range(count)]
    accumulator = np.zeros(PARAMETERS, np.float32)
    for _ in range(REPEATS):
        times["raw"].append(timed(lambda: run_raw(arrays, accumulator)))
        times["mean"].append(timed(lambda: run_mean(root, count)))
        times["merge"].append(timed(lambda: run_merge(root, count)))
    found = {f"{name}_s": round(median(values), 4) for name, values in times.items()}
    found |= {f"{name}_gb_s": round(count * FP32_BYTES / 1e9 / median(values), 2) for name, values in times.items()}
    return {**found, **peaks(root, count)}


def peaks(root: Path, count: int) -> dict[str, float]:
    """In a process of its own, so that nothing warmed up hides what a merge takes."""
    text = subprocess.run(
        [sys.executable, __file__, "--peak", str(root), str(count)], check=True, capture_output=True, text=True
    ).stdout
    return {"merge_rss_anon_peak_mb": round(int(text) / 1e6, 1)}


def rules(root: Path, count: int) -> dict[str, dict[str, float]]:
    """The whole phase by each rule, and how often the plain mean's time it takes; rules in turn."""
    times: dict[str, list[float]] = {name: [] for name in RULES}
    for _ in range(REPEATS):
        for name, found in times.items():
            found.append(timed(lambda name=name: run_merge(root, count, name)))
    plain = median(times["mean"])
    return {name: {"s": round(median(t), 3), "of_mean": round(median(t) / plain, 2)} for name, t in times.items()}


def codec() -> dict[str, float]:
    values = np.random.default_rng(0).standard_normal(PARAMETERS, np.float32)
    squares, encoding = np.square(values), ENCODINGS["int8"]
    return {
        "int8_encode_delta_100mb_s": round(
            median(timed(lambda: encoding.encode(values, Quantity.DELTA)) for _ in range(REPEATS)), 4
        ),
        "int8_encode_v_100mb_s": round(
            median(timed(lambda: encoding.encode(squares, Quantity.V)) for _ in range(REPEATS)), 4
        ),
    }


def main() -> None:
    if sys.argv[1:2] == ["--peak"]:
        with AnonymousPeak() as watched:
            run_merge(Path(sys.argv[2]), int(sys.argv[3]))
        print(watched.peak_bytes)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(root, 8)
        load = os.getloadavg()[0]
        found = {str(count): measure(root, count) for count in (2, 8)}
        by_rule = rules(root, 8)
    result = {
        "what": "K int8 deltas of 25M parameters; GB/s of decoded fp32 (K x 100 MB), median of "
        f"{REPEATS}, A B A B in one run",
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "numpy": np.__version__, "load": load},
        "deltas": found,
        "rules_of_8": by_rule,
        "codec": codec(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
