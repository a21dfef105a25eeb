"""Figures: the file of runs, and the table and costs that follow from it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from .cells import ALONE, PARALLEL, REGIMES, ROUNDS, Cell
from .job import SHARERS, Outcome

Run = Mapping[str, Any]
#: losses whose cost is told, as shares of data parallelism's drop
REACHED = (0.5, 0.8)


def key(run: Run) -> tuple[Any, ...]:
    names = ("regime", "kind", "shards", "inner_steps", "rows", "rate", "seed")
    return (list(REGIMES).index(run["regime"]), *(run[name] for name in names[1:]))


def known(path: Path) -> list[Run]:
    return json.loads(path.read_text())["runs"] if path.exists() else []


def has(path: Path, cell: Cell) -> bool:
    return key(asdict(cell)) in {key(run) for run in known(path)}


def record(path: Path, cell: Cell, outcome: Outcome, seconds: float) -> None:
    """Adds a run to the file, in place of an earlier one of the same cell, and sums up again."""
    run: dict[str, Any] = {**asdict(cell), "start": round(outcome.start, 4), "loss": round(outcome.loss, 4)}
    run |= {"curve": [(step, round(loss, 4)) for step, loss in outcome.curve], "cpu_s": round(seconds)}
    run |= {"trained_params": outcome.trained_params}
    if cell.kind == ROUNDS:
        run |= {"bytes": outcome.bytes, "taken": outcome.taken}
    runs = sorted([*(one for one in known(path) if key(one) != key(run)), run], key=key)
    steps = {name: regime.steps for name, regime in REGIMES.items()}
    figures = {"machine": machine(), "steps": steps, "table": table(runs), "runs": runs}
    text = json.dumps(figures, indent=1)
    fresh = path.with_suffix(".new")
    fresh.write_text(text + "\n")
    fresh.replace(path)


def table(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A line for each job shape: medians over seeds, rounds at one rate for all of them, peers at their best."""
    shapes = dict.fromkeys(
        (run["regime"], run["shards"], run["inner_steps"], run["rows"]) for run in runs if run["kind"] == ROUNDS
    )
    lines = [_line(runs, *shape) for shape in shapes]
    return [line for line in lines if line]


def _line(runs: Sequence[Run], regime: str, shards: int, steps: int, rows: str) -> dict[str, Any]:
    here = [run for run in runs if run["regime"] == regime]
    shape = [run for run in here if (run["shards"], run["inner_steps"], run["rows"]) == (shards, steps, rows)]
    jobs = usual_rate(run for run in shape if run["kind"] == ROUNDS)
    straight = best_of_seed(run for run in here if run["kind"] == PARALLEL and run["shards"] == shards)
    alone = best_of_seed(run for run in here if run["kind"] == ALONE)
    seeds = sorted(set(jobs) & set(straight))
    if not seeds:
        return {}
    shares = [recovered(jobs[seed], straight[seed]) for seed in seeds]
    lone = [recovered(alone[seed], straight[seed]) for seed in seeds if seed in alone]
    first = jobs[seeds[0]]
    return {
        "regime": regime,
        "shards": shards,
        "inner_steps": steps,
        "rows": rows,
        "recovered": round(median(shares), 3),
        "least": round(min(shares), 3),
        "alone": round(median(lone), 3) if lone else None,
        "seeds": len(seeds),
        "rate": first["rate"],
        "data_parallel_rate": straight[seeds[0]]["rate"],
        "loss": {
            "start": median(jobs[seed]["start"] for seed in seeds),
            "rounds": median(jobs[seed]["loss"] for seed in seeds),
            "data_parallel": median(straight[seed]["loss"] for seed in seeds),
        },
        "bytes": volume(first, REGIMES[regime].steps),
        "to_reach": [reach(first, straight[seeds[0]], share, REGIMES[regime].steps) for share in REACHED],
    }


def usual_rate(runs: Iterable[Run]) -> dict[int, Run]:
    """Seed -> its run at the rate that has most seeds; of those, that which did best with the first seed."""
    by_rate: dict[float, dict[int, Run]] = {}
    for run in runs:
        by_rate.setdefault(run["rate"], {})[run["seed"]] = run
    return min(by_rate.values(), key=lambda found: (-len(found), found[min(found)]["loss"]), default={})


def best_of_seed(runs: Iterable[Run]) -> dict[int, Run]:
    """Seed -> its run at the rate that did best with it, of those seeds that met the first seed's best: the harder peer
    of each, and none that is easy because its best rate was never tried."""
    kept = list(runs)
    at_first = {float(run["loss"]): run["rate"] for run in kept if run["seed"] == 0}
    best = at_first[min(at_first)] if at_first else None
    met = {run["seed"] for run in kept if best is None or run["rate"] == best}
    found: dict[int, Run] = {}
    for run in sorted(kept, key=lambda run: -run["loss"]):
        if run["seed"] in met:
            found[run["seed"]] = run
    return found


def recovered(run: Run, straight: Run) -> float:
    """Share of data parallelism's held-out loss drop."""
    return float((straight["start"] - run["loss"]) / (straight["start"] - straight["loss"]))


def volume(run: Run, steps: int) -> dict[str, Any]:
    """Bytes of a job beside those of data parallelism, where each worker sends its gradient and receives the mean of
    all at every step: as many down as up."""
    rounds = steps // run["inner_steps"]
    fp32 = 4 * run["trained_params"] * steps * run["shards"]
    found = run["bytes"]
    return {
        "up_a_round": round(found["up"] / rounds),
        "down_a_round": round(found["down"] / rounds),
        "evaluator_a_round": round(found["evaluate"] / rounds),
        "up": found["up"],
        "down": found["down"],
        "evaluator": found["evaluate"],
        "data_parallel_fp32_each_way": fp32,
        "data_parallel_bf16_each_way": fp32 // 2,
        "up_times_less_than_fp32": round(fp32 / found["up"], 1),
        "up_times_less_than_bf16": round(fp32 / 2 / found["up"], 1),
        "down_times_less_than_fp32": round(fp32 / found["down"], 1),
        "down_times_less_than_bf16": round(fp32 / 2 / found["down"], 1),
    }


def reach(run: Run, straight: Run, share: float, steps: int) -> dict[str, Any]:
    """Steps and bytes, both ways together, until the loss on test rows fell by this share of data parallelism's."""
    top, bottom = straight["curve"][0][1], straight["curve"][-1][1]
    target = top - share * (top - bottom)
    job, parallel = first_below(run["curve"], target), first_below(straight["curve"], target)
    each = 4 * run["trained_params"] * run["shards"]
    moved = run["bytes"]["up"] + run["bytes"]["down"] + run["bytes"]["evaluate"]
    return {
        "loss": round(target, 4),
        "share": share,
        "steps": job,
        "data_parallel_steps": parallel,
        "bytes": round(moved * job / steps) if job else None,
        "data_parallel_fp32_bytes": 2 * each * parallel if parallel else None,
        "data_parallel_bf16_bytes": each * parallel if parallel else None,
    }


def first_below(curve: Sequence[Sequence[float]], target: float) -> int | None:
    return next((int(step) for step, loss in curve if loss <= target), None)


def machine() -> dict[str, Any]:
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1),
        "lone_workers_share": f"1/{SHARERS}",
    }
