# pyright: standard
"""Writes docs/training/measured.md from bench/results/recovery.json: tables, and curves as pictures beside it.

Data parallelism's bytes are those of bf16 gradients up and down, the smaller of its two figures; a job's are measured,
up, down and to the evaluator together. Medians over the seeds that were run.

    python bench/curves.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from learning import figures
from learning.cells import ALONE, PARALLEL, REGIMES, ROUNDS
from learning.pictures import Chart, Line, draw

ROOT = Path(__file__).resolve().parents[1]
RESULT, FOLDER = ROOT / "bench" / "results" / "recovery.json", ROOT / "docs" / "training"
TITLES = {"full": "Tuning a warm base", "lora": "LoRA on a warm base", "scratch": "3.1M parameters from scratch"}
SHAPE = ("regime", "shards a round", "steps a round", "rows")
#: by regime and steps a round: what the project holds itself to
WANTED: Mapping[str, Mapping[int, float]] = {
    "full": {10: 0.92, 25: 0.80},
    "lora": {10: 0.90},
    "scratch": {10: 0.88},
}
INTRODUCTION = """# What rounds recover, measured

Written by `python bench/curves.py` from what `python bench/recovery.py --full` found; don't edit it. How it is measured
stands in that file: tiny models, one thread, text of Python's standard library, the product's own phases. Medians over
the seeds that were run; a line with fewer than three is a first look.
"""


def median_curve(runs: Sequence[figures.Run]) -> list[tuple[float, float]]:
    columns = zip(*(run["curve"] for run in runs), strict=True)
    return [(float(column[0][0]), median(loss for _, loss in column)) for column in columns]


def lines_of(runs: Sequence[figures.Run], regime: str, shards: int) -> Iterator[tuple[Line, float]]:
    """(curve, bytes a step) of each side that was measured; the lone worker moves none."""
    here = [run for run in runs if run["regime"] == regime and run["rows"] == "iid"]
    straight = figures.best_of_seed(run for run in here if run["kind"] == PARALLEL and run["shards"] == shards)
    if straight:
        first = next(iter(straight.values()))
        each_step = 2 * 2 * first["trained_params"] * shards
        yield Line("data parallel", median_curve(list(straight.values()))), each_step
    for inner in (10, 25):
        shape = [run for run in here if (run["kind"], run["shards"], run["inner_steps"]) == (ROUNDS, shards, inner)]
        jobs = list(figures.usual_rate(shape).values())
        if jobs:
            each_step = sum(jobs[0]["bytes"].values()) / REGIMES[regime].steps
            yield Line(f"{shards} shards, {inner} steps a round", median_curve(jobs)), each_step
    alone = list(figures.best_of_seed(run for run in here if run["kind"] == ALONE).values())
    if alone:
        yield Line("one shard's share, alone", median_curve(alone)), 0.0


def charts(runs: Sequence[figures.Run]) -> Iterator[tuple[str, Chart]]:
    for regime, shards in dict.fromkeys((run["regime"], run["shards"]) for run in runs if run["kind"] == ROUNDS):
        found = list(lines_of(runs, regime, shards))
        title = f"{TITLES[regime]}, {shards} shards a round: held-out loss, nats a token"
        by_steps = Chart(title=title, across="steps", lines=[line for line, _ in found])
        yield f"{regime}-{shards}-steps.svg", by_steps
        moved = [
            Line(line.name, [(step * each, loss) for step, loss in line.points if step]) for line, each in found if each
        ]
        yield f"{regime}-{shards}-bytes.svg", Chart(title=title, across="bytes moved", lines=moved, log=True)


def page(lines: Sequence[dict[str, Any]], pictures: Sequence[tuple[str, str]]) -> str:
    shown = [f"![{title}]({name})" for name, title in pictures]
    tables = (shares(lines), volumes(lines), reached(lines))
    return "\n".join([INTRODUCTION, *(text for table in tables for text in table), "## Curves\n", *spaced(shown)])


def spaced(paragraphs: Sequence[str]) -> Iterator[str]:
    for text in paragraphs:
        yield text + "\n"


def row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def head(*names: str) -> list[str]:
    return [row(*names), "|" + "---|" * len(names)]


def shape(line: dict[str, Any]) -> tuple[object, ...]:
    return TITLES[line["regime"]], line["shards"], line["inner_steps"], line["rows"]


def shares(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "## Share of data parallelism's held-out loss drop\n"
    yield from head(*SHAPE, "recovered", "least", "wanted", "one shard's share alone", "seeds", "rates")
    for line in lines:
        wanted = WANTED[line["regime"]].get(line["inner_steps"])
        yield row(
            *shape(line),
            f"{line['recovered']:.1%}",
            f"{line['least']:.1%}",
            "" if wanted is None else f"{wanted:.0%}" + ("" if line["recovered"] >= wanted else ", missed"),
            "" if line["alone"] is None else f"{line['alone']:.1%}",
            line["seeds"],
            f"x{line['rate']:g}, x{line['data_parallel_rate']:g}",
        )
    yield "\nRates: of rounds, then of data parallelism, as multiples of the regime's.\n"


def volumes(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "## Bytes\n"
    yield from head(
        *SHAPE,
        "up a round",
        "down a round",
        "to the evaluator",
        "up in total",
        "down in total",
        "data parallel each way",
    )
    for line in lines:
        moved = line["bytes"]
        yield row(
            *shape(line),
            megabytes(moved["up_a_round"]),
            megabytes(moved["down_a_round"]),
            megabytes(moved["evaluator_a_round"]),
            f"{megabytes(moved['up'])}: {moved['up_times_less_than_fp32']}x, {moved['up_times_less_than_bf16']}x less",
            f"{megabytes(moved['down'])}: {moved['down_times_less_than_fp32']}x, "
            f"{moved['down_times_less_than_bf16']}x less",
            f"{megabytes(moved['data_parallel_fp32_each_way'])}, {megabytes(moved['data_parallel_bf16_each_way'])}",
        )
    yield "\nAll shards of a round together. Data parallelism in fp32, then in bf16.\n"


def reached(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "## Steps and bytes to reach a loss\n"
    yield from head(*SHAPE, "share of the drop", "loss", "steps", "data parallel's", "bytes", "data parallel's, bf16")
    for line in lines:
        for point in line["to_reach"]:
            moved, straight = point["bytes"], point["data_parallel_bf16_bytes"]
            yield row(
                *shape(line),
                f"{point['share']:.0%}",
                f"{point['loss']:.2f}",
                point["steps"] or "not reached",
                point["data_parallel_steps"],
                megabytes(moved) if moved else "",
                megabytes(straight) if straight else "",
            )
    yield "\nFirst point of each side's curve at or below the loss, first seed; bytes up, down and to the evaluator.\n"


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    runs, drawn = figures.known(RESULT), list[tuple[str, str]]()
    for name, chart in charts(runs):
        (FOLDER / name).write_text(draw(chart), encoding="utf-8")
        drawn.append((name, f"{chart.title}, against {chart.across}"))
    (FOLDER / "measured.md").write_text(page(figures.table(runs), drawn), encoding="utf-8")
    print(f"docs/training/measured.md and {len(drawn)} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
