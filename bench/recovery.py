# pyright: standard
"""How much of synchronous data parallelism's gain the product's rounds recover, with the product's own phases.

`data parallel` is one machine that takes the same number of steps with K times the batch: the same rows, tokens and
model. `rounds` is a job of K shards a round: learn, encode, merge, evaluate, choose, apply, all in this process and
through folders. `alone` is one shard's share of the rows and nobody else. Both sides take the best of a grid of rates,
found with seed 0. Recovered is

    (loss at the start - loss of rounds) / (loss at the start - loss of data parallel)

on held-out rows that chose nothing. By topic means that each shard reads one package; iid means shuffled rows.

    python bench/recovery.py                          # the default: a job and its peer, seed 0, short; prints only
    python bench/recovery.py --full                   # the whole table, hours; goes on where it was broken off
    python bench/recovery.py --full --regimes lora --seeds 0
    python bench/recovery.py --table                  # what bench/results/recovery.json holds, as a table
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from learning import figures
from learning.cells import ALONE, FIRST, PARALLEL, REGIMES, ROUNDS, SMALLER, THEN, Cell, Wanted
from learning.job import SHARERS, Job, warm_base
from learning.text import read_corpus, skeleton

from shardwork.recipes.averaging import gain_of
from shardwork_worker.child import ENVIRONMENT
from shardwork_worker.training.trainer import TorchTrainer

RESULT = Path(__file__).resolve().parent / "results" / "recovery.json"
SHORT_STEPS = 50


def cells_of(wanted: Sequence[Wanted], seeds: Sequence[int]) -> Iterator[Cell]:
    """The runs that these lines need: each side's usual rate with every seed, then the rest of the grid with seed 0,
    then what turned out better with the other seeds."""
    for grid in (USUAL, GRID):
        for seed in seeds:
            for line in wanted:
                if grid is USUAL:
                    yield Cell(regime=line.regime, kind=ALONE, shards=SHARERS, rate=1, seed=seed)
                for kind in (PARALLEL, ROUNDS):
                    rates = grid[kind](line)
                    if grid is GRID and seed != 0:
                        rates = best_rate(kind, line)
                    for rate in rates:
                        yield cell_of(kind, line, rate, seed)


def cell_of(kind: str, line: Wanted, rate: float, seed: int) -> Cell:
    cell = Cell(regime=line.regime, kind=kind, shards=line.shards, rate=rate, seed=seed)
    return cell if kind == PARALLEL else replace(cell, inner_steps=line.inner_steps, rows=line.rows)


def best_rate(kind: str, line: Wanted) -> tuple[float, ...]:
    """Of the rates that seed 0 was run at."""
    like = asdict(cell_of(kind, line, 0, 0))
    names = [name for name in like if name != "rate"]
    runs = [run for run in figures.known(RESULT) if all(run[name] == like[name] for name in names)]
    return (min(runs, key=lambda run: run["loss"])["rate"],) if runs else ()


def as_product(line: Wanted) -> float:
    return round(gain_of(line.shards, line.inner_steps, from_scratch=not REGIMES[line.regime].warm), 2)


Rates = Mapping[str, Callable[[Wanted], tuple[float, ...]]]
#: multiples of the regime's rate: what data parallelism did best at, and what the product's `auto` takes for rounds
USUAL: Rates = {
    PARALLEL: lambda line: (REGIMES[line.regime].peer_rate,),
    ROUNDS: lambda line: (as_product(line),),
}
GRID: Rates = {
    PARALLEL: lambda line: (REGIMES[line.regime].peer_rate / 2, REGIMES[line.regime].peer_rate * 1.5),
    ROUNDS: lambda line: (round(as_product(line) / 1.5, 2), round(as_product(line) * 1.5, 2)),
}


class Bench:
    """Corpus, bases and trainer of one call."""

    def __init__(self, root: Path, kept: Path | None) -> None:
        self._root = root
        self._trainer = TorchTrainer("cpu")
        self._corpus = read_corpus(root)
        self._kept = kept
        self._made = 0

    def base(self, regime: str) -> Path:
        folder = self._root / f"skeleton-{regime}"
        if not folder.exists():
            skeleton(self._corpus, REGIMES[regime].shape, folder)
        if not REGIMES[regime].warm:
            return folder
        warm = (self._kept or self._root) / "base"
        if not warm.exists():
            small = skeleton(self._corpus, SMALLER, self._root / "skeleton-small")
            warm_base(self._corpus, warm.parent, small, self._trainer)
        return warm

    def run(self, cell: Cell, steps: int = 0) -> tuple[figures.Outcome, float]:
        """(outcome, seconds of CPU)."""
        base, before = self.base(cell.regime), time.process_time()
        self._made += 1
        job = Job(
            root=self._root / f"job-{self._made}",
            name=cell.regime,
            base=base,
            topics=self._corpus.topics,
            seed=cell.seed,
            trainer=self._trainer,
            steps=steps,
        )
        return job.run(cell), time.process_time() - before


def full(bench: Bench, regimes: Sequence[str], seeds: Sequence[int], lines: Sequence[Wanted]) -> None:
    for cell in cells_of([line for line in lines if line.regime in regimes], seeds):
        if figures.has(RESULT, cell):
            continue
        outcome, seconds = bench.run(cell)
        figures.record(RESULT, cell, outcome, seconds)
        print(f"{cell.name}, seed {cell.seed}: {outcome.loss:.4f} in {seconds:.0f} CPU s {outcome.taken}", flush=True)


def short(bench: Bench) -> None:
    shape = {"regime": "full", "shards": 4, "rate": 1.0, "seed": 0}
    peer, _ = bench.run(Cell(kind=PARALLEL, **shape), SHORT_STEPS)
    job, _ = bench.run(Cell(kind=ROUNDS, **shape), SHORT_STEPS)
    share = (job.start - job.loss) / (peer.start - peer.loss)
    print(f"after {SHORT_STEPS} steps: {job.start:.4f} -> {job.loss:.4f}, data parallel {peer.loss:.4f}: {share:.1%}")


def print_table() -> None:
    head = ("regime", "shards", "inner_steps", "rows", "recovered", "least", "alone", "seeds", "rate")
    print(" | ".join(head))
    for line in figures.table(figures.known(RESULT)):
        print(" | ".join(str(line[name]) for name in head))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="every line and seed; adds to bench/results/recovery.json")
    parser.add_argument("--table", action="store_true", help="print what was measured so far and stop")
    parser.add_argument("--first", action="store_true", help="only the lines that the release is held to")
    parser.add_argument("--regimes", nargs="+", default=list(REGIMES), choices=list(REGIMES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--keep", type=Path, help="folder that keeps the warmed base between calls")
    given = parser.parse_args()
    if given.table:
        print_table()
        return 0
    os.environ.update(ENVIRONMENT)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), given.keep)
        if given.full:
            full(bench, given.regimes, given.seeds, FIRST if given.first else (*FIRST, *THEN))
        else:
            short(bench)
    return 0


if __name__ == "__main__":
    sys.exit(main())
