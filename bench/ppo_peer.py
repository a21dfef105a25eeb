# pyright: standard
"""Our PPO beside TRL's: the numbers of an update on the same rollouts, and a toy task learned by both.

TRL dropped its PPO trainer after 1.12.0; that version is fetched alone (`peering.package`) and runs on the repository's
own torch and transformers. The formulas are its `PPOTrainer.train` as it lies, overheard (`peering.theirs`), against
`PolicyLearning`. The toy task is that of bench/alignment.py: six rounds of 128 answers and eight steps, the reward one
that code verifies, the figure the share of answers to held-out prompts that it likes.

    python bench/ppo_peer.py              # five seeds, about three CPU minutes; bench/results/ppo_peer.json
    python bench/ppo_peer.py --formulas   # the numbers of an update only; prints, and exits 1 where they differ
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from peering import package

RESULT = Path(__file__).resolve().parent / "results" / "ppo_peer.json"
SEEDS = (0, 1, 2, 3, 4)
#: of cases that mean the same
COMPARED = ("advantages", "whitened", "loss", "gradients")
DIFFERENCES = {
    "where an answer ends": "TRL gives the score at the state behind the last token, which its critic values and its "
    "value loss counts; ours gives it with the last token (Ouyang et al., arXiv 2203.02155) and expects nothing after "
    "it. An answer that is cut off has no such state. With lambda below 1 advantages differ.",
    "the critic": "Theirs is a network of its own, ours a head on the policy's last layer.",
    "means": "TRL averages losses of micro-batches, ours counts each token of the minibatch alike: the same where a "
    "minibatch is one micro-batch, as here.",
    "steps": "Theirs come every gradient_accumulation_steps micro-batches, whatever num_mini_batches says, but for the "
    "last batch of the data: 4 updates of 3 passes in 4 minibatches with accumulation 4 made 21 steps, not 48. Here "
    "accumulation is 1, and each minibatch is a step.",
    "what only one has": "TRL can whiten rewards and estimate KL by k3; ours adds entropy, clips rewards, leaves out "
    "answers that were not drawn from this policy. All of it is off here.",
    "the gradient's norm": "Ours is bounded by 1, theirs not at all.",
}


def formulas() -> dict[str, dict[str, Any]]:
    from peering.formulas import CASES, SAME, compared

    found: dict[str, dict[str, Any]] = {}
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            numbers = compared(case, Path(folder))
        told = {key: float(f"{value:.2g}") for key, value in numbers.items()}
        found[name] = {"says": case.says, **told}
        if case.same:
            found[name]["holds"] = all(numbers[key] <= SAME for key in COMPARED)
        print(name, found[name], flush=True)
    return found


def toy() -> dict[str, Any]:
    from aligning.cells import Seed
    from aligning.first import first_model
    from aligning.stage import Place
    from alignment import KEPT, parameters
    from peering.toy import SIDES, Toy

    from shardwork_worker.training.trainer import TorchTrainer

    base = first_model(KEPT)
    runs: list[dict[str, Any]] = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            place = Place(Path(folder) / "place", TorchTrainer("cpu"))
            both = Toy(Path(folder), base, Seed(place, base, seed, parameters(base)))
            for side in SIDES:
                told = {name: round(value, 4) for name, value in both.learned(side).items()}
                runs.append({"side": side, "seed": seed, **told})
                print(runs[-1], flush=True)
    return {"table": table(runs), "runs": runs}


def table(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and ours over each of theirs."""
    from peering.toy import OURS, SIDES

    of = {side: [run for run in runs if run["side"] == side] for side in SIDES}
    found: dict[str, Any] = {}
    for side, these in of.items():
        gains = [run["after"] - run["before"] for run in these]
        found[side] = {
            "after": round(fmean(run["after"] for run in these), 4),
            "gain": round(fmean(gains), 4),
            "gain_deviation": round(stdev(gains), 4),
            "cpu_s": round(fmean(run["cpu_s"] for run in these), 1),
        }
    for side in SIDES[1:]:
        ratios = {name: round(found[OURS][name] / found[side][name], 3) for name in ("after", "gain", "cpu_s")}
        found[f"{OURS} / {side}"] = ratios
    return found


def main() -> int:
    from shardwork_worker.child import ENVIRONMENT

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formulas", action="store_true", help="the numbers of an update only; no file")
    given = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    warnings.simplefilter("ignore")
    try:
        package.put_first()
    except package.NotToBeHad as error:
        print(f"not compared: {error}", file=sys.stderr)
        return 2
    import torch

    torch.set_num_threads(1)
    found: dict[str, Any] = {"trl": package.VERSION, "torch": version("torch"), "transformers": version("transformers")}
    found["differences"] = DIFFERENCES
    found["formulas"] = formulas()
    holds = all(case.get("holds", True) for case in found["formulas"].values())
    if not given.formulas:
        found["toy"] = toy()
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(found["toy"]["table"], indent=1))
    return int(not holds)


if __name__ == "__main__":
    sys.exit(main())
