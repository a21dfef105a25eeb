# pyright: standard
"""How well each kind of alignment learns, on a task whose success is computable, through the product's own rounds.

A small model that knows every right answer and has no taste is improved by a planted one: reward models and DPO from
pairs of which one in ten is judged wrongly, GRPO, RLOO and PPO from a reward that code verifies or from a reward
model, the whole loop three times around, and all that beside a worker that lies. Rates are the product's `auto`;
"full 4" is full tuning by four shards a round. Rounds run in this process: recipes' plans, the worker's phases, the
coordinator's merge, apply and choice (`aligning`). The rates were chosen on seeds 0 to 2 (reward: 0 and 1; DPO: all
five), so the figures of these seeds flatter them; what several shards of PPO bear, on seeds 10 to 13.

    python bench/alignment.py                        # five seeds; adds what bench/results/alignment.json lacks
    python bench/alignment.py --quick                # one seed, some cells, minutes; prints only
    python bench/alignment.py --cells loop --seeds 0 # these, again
    python bench/alignment.py --table                # what the file holds
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from aligning import claims
from aligning.cells import CELLS, CORE, QUICK, Figures, Seed
from aligning.first import first_model
from aligning.stage import Place
from learning.figures import machine

from shardwork_worker.child import ENVIRONMENT
from shardwork_worker.training.trainer import TorchTrainer

RESULT = Path(__file__).resolve().parent / "results" / "alignment.json"
SEEDS = (0, 1, 2, 3, 4)
#: the first model is kept here between calls
KEPT = Path(tempfile.gettempdir()) / "shardwork-bench-alignment"


def known_runs() -> list[dict[str, Any]]:
    return json.loads(RESULT.read_text())["runs"] if RESULT.exists() else []


def by_cell(runs: Sequence[dict[str, Any]]) -> dict[str, list[Figures]]:
    found: dict[str, list[Figures]] = {}
    for cell in CELLS:
        those = [run["figures"] for run in sorted(runs, key=lambda run: run["seed"]) if run["cell"] == cell]
        if those:
            found[cell] = those
    return found


def record(run: dict[str, Any]) -> None:
    """In place of an earlier run of the same cell and seed."""
    kept = [one for one in known_runs() if (one["cell"], one["seed"]) != (run["cell"], run["seed"])]
    runs = sorted([*kept, run], key=lambda one: (list(CELLS).index(one["cell"]), one["seed"]))
    figures = by_cell(runs)
    text = json.dumps(
        {
            "what": (__doc__ or "").splitlines()[0],
            "machine": machine(),
            "claims": [{"says": says, "holds": holds} for says, holds in claims.told(figures)],
            "table": claims.table(figures),
            "runs": runs,
        },
        indent=1,
    )
    RESULT.with_suffix(".new").write_text(text + "\n")
    RESULT.with_suffix(".new").replace(RESULT)


def parameters(base: Path) -> int:
    from safetensors import safe_open

    with safe_open(base / "model.safetensors", "np") as opened:
        return sum(opened.get_tensor(name).size for name in opened.keys())  # noqa: SIM118  # it is no mapping


def run(cells: Sequence[str], seed: int) -> Iterator[dict[str, Any]]:
    base = first_model(KEPT)
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), TorchTrainer("cpu"))
        shared = Seed(place, base, seed, parameters(base))
        for cell in cells:
            before = time.process_time()
            figures = {name: round(float(value), 4) for name, value in CELLS[cell](shared).items()}
            seconds = round(time.process_time() - before, 1)
            shown = ", ".join(f"{name} {value:g}" for name, value in figures.items())
            print(f"{cell}, seed {seed}: {shown} ({seconds:.0f} CPU s)", flush=True)
            yield {"cell": cell, "seed": seed, "figures": figures, "cpu_s": seconds}


def tell(runs: Sequence[dict[str, Any]]) -> int:
    """1 when a claim does not hold."""
    found = claims.told(by_cell(runs))
    for says, holds in found:
        print(("holds  " if holds else "MISSED ") + says)
    return int(not all(holds for _, holds in found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, some cells; no file")
    parser.add_argument("--table", action="store_true", help="print what was measured so far and stop")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), help="these, even where the file has them")
    given = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    torch.set_num_threads(1)
    if given.quick:
        return tell(list(run(QUICK, 0)))
    for cells in () if given.table else [given.cells] if given.cells else (CORE, tuple(CELLS)):
        for seed in given.seeds:
            done = set() if given.cells else {one["cell"] for one in known_runs() if one["seed"] == seed}
            for one in run([cell for cell in cells if cell not in done], seed):
                record(one)
    if given.table:
        for cell, figures in claims.table(by_cell(known_runs())).items():
            print(cell, {name: (one["mean"], one["least"], one["most"]) for name, one in figures.items()})
    return tell(known_runs())


if __name__ == "__main__":
    sys.exit(main())
