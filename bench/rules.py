# pyright: standard
"""Every averaging rule under attack: held-out loss after a few rounds in which some of the shards lie.

A warm base is tuned as in `recovery`: the product's own learn, merge and apply, int8, H = 10, 8 shards, every step the
plain mean (no candidates, no roll-back), so that the rule alone is measured. Liars know what the honest shards of their
round found. `refused` counts liars that the gates or the rule left out, of all.

    python bench/rules.py --quick            # the default: one seed, two attacks, minutes; prints only
    python bench/rules.py --full             # three seeds; goes on where it stopped; bench/results/rules.json

Attacks on delta x (mean and spread over the honest ones, by coordinate): flip -x, flip10 -10 x, zeros, noise (of the
honest norm), noise10, scale3 3 x, alie mean - 1.5 spread (Baruch et al., arXiv 1902.06156), ipm -0.5 mean (Xie et al.,
arXiv 1903.03936), nan.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from learning.cells import ROUNDS as AVERAGED
from learning.cells import SMALLER, Cell
from learning.figures import machine
from learning.job import Job, warm_base
from learning.text import Corpus, read_corpus, skeleton

from shardwork.errors import Conflict
from shardwork.recipes.base import Computed
from shardwork.recipes.orders import ApplyOrder, LearnOrder, MergeOrder
from shardwork.tensors.checkpoint import open_checkpoint, write_delta
from shardwork.tensors.encodedfile import pieces, scratch
from shardwork.tensors.encoding import F32
from shardwork.tensors.file import read_tensors, write_tensors
from shardwork_coordinator.aggregate import RULES, gates, merge
from shardwork_coordinator.aggregate.rule import hostile
from shardwork_worker.child import ENVIRONMENT
from shardwork_worker.training.trainer import TorchTrainer

RESULT = Path(__file__).resolve().parent / "results" / "rules.json"
ROUNDS, INNER_STEPS, SHARDS, LIARS = 4, 10, 8, 2
ENCODING = "int8"
#: shards a round, each with a fifth that flip
COUNTS = (1, 2, 4, 8, 16)

Tensors = Mapping[str, F32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Honest:
    """What the liars know: the honest deltas of their round, by coordinate."""

    mean: Tensors
    spread: Tensors
    random: np.random.Generator

    def apart(self, spreads: float) -> Tensors:
        """So many spreads below the mean: what looks like one of them and pulls all the same way."""
        return {name: mean - np.multiply(self.spread[name], np.float32(spreads)) for name, mean in self.mean.items()}

    def noise(self, like: Tensors, factor: float) -> Tensors:
        drawn = {name: self.random.standard_normal(value.shape, np.float32) for name, value in like.items()}
        size = np.sqrt(sum(float(np.square(value).sum()) for value in drawn.values()))
        norm = np.sqrt(sum(float(np.square(value).sum()) for value in like.values()))
        return {name: value * np.float32(factor * norm / size) for name, value in drawn.items()}


Attack = Callable[[Tensors, Honest], Tensors]


def scaled(factor: float) -> Attack:
    return lambda own, _honest: {name: value * np.float32(factor) for name, value in own.items()}


ATTACKS: Mapping[str, Attack | None] = {
    "none": None,
    "flip": scaled(-1),
    "flip10": scaled(-10),
    "zeros": scaled(0),
    "noise": lambda own, honest: honest.noise(own, 1),
    "noise10": lambda own, honest: honest.noise(own, 10),
    "scale3": scaled(3),
    "alie": lambda _own, honest: honest.apart(1.5),
    "ipm": lambda _own, honest: {name: value * np.float32(-0.5) for name, value in honest.mean.items()},
    "nan": scaled(1),
}
#: by topic the honest ones differ most from each other
BY_TOPIC = ("none", "flip", "zeros", "alie")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    rule: str
    attack: str = "none"
    rows: str = "iid"
    shards: int = SHARDS
    liars: int = LIARS

    @property
    def name(self) -> str:
        return f"{self.rule}, {self.attack}, {self.rows}, {self.liars} of {self.shards}"


def cases() -> list[Case]:
    found = [Case(rule=rule, attack=attack) for attack in ATTACKS for rule in RULES]
    found += [Case(rule=rule, attack=attack, rows="by topic") for attack in BY_TOPIC for rule in RULES]
    for count in COUNTS:
        liars = hostile(count, least_honest=1)
        found += [
            Case(rule=rule, attack=attack, shards=count, liars=liars)
            for attack in ("none", "flip")
            for rule in RULES
            if liars or attack == "none"
        ]
    return list(dict.fromkeys(found))


def cell(case: Case, seed: int) -> Cell:
    return Cell(
        regime="full",
        kind=AVERAGED,
        shards=case.shards,
        rate=1.0,
        seed=seed,
        inner_steps=INNER_STEPS,
        rows=case.rows,
    )


# ---- rounds ---------------------------------------------------------------------------------------------------------


class Attacked:
    """Rounds of one seed; the first round's honest deltas are learned once for all cases of the same rows."""

    def __init__(self, bench: Job) -> None:
        self._bench = bench
        self._first: dict[tuple[str, int], tuple[Path, Path, list[Path]]] = {}

    def run(self, case: Case) -> dict[str, Any]:
        bench = self._bench
        setting = cell(case, bench.seed)
        checkpoint, train, deltas = self._start(setting)
        outer: dict[str, Path] = {}
        rounds = bench.steps // INNER_STEPS
        refused, lies = 0, case.liars * rounds if ATTACKS[case.attack] else 0
        for number in range(1, rounds + 1):
            deltas = deltas if number == 1 else self._learn(setting, number, checkpoint, train)
            sent = self._with_lies(case, number, checkpoint, deltas)
            try:
                merged = self._merge(case, setting, number, checkpoint, sent, outer)
            except Conflict:  # fewer than half may be used: the job would roll the round back
                return {"loss": None, "refused": refused, "lies": lies}
            refused += sum(merged.metrics[f"kept.{index}"] == 0 for index in range(case.liars))
            order = ApplyOrder(steps=INNER_STEPS, encoding=ENCODING)
            checkpoint = bench.applied(checkpoint, merged.outputs, "mean", order)
            outer = {"outer": merged.outputs["outer"]}
        loss = bench.loss(bench.stage(setting), bench.report, checkpoint)
        return {"loss": round(loss, 4), "refused": refused if lies else 0, "lies": lies}

    def _start(self, setting: Cell) -> tuple[Path, Path, list[Path]]:
        key = setting.rows, setting.shards
        if key not in self._first:
            checkpoint, train = self._bench.first(self._bench.stage(setting)), self._bench.rows_for(setting)
            self._first[key] = checkpoint, train, self._learn(setting, 1, checkpoint, train)
        return self._first[key]

    def _learn(self, setting: Cell, number: int, checkpoint: Path, train: Path) -> list[Path]:
        bench = self._bench
        plans = bench.plan(bench.stage(setting), number, "learn", {})
        orders = [LearnOrder.model_validate_json(plan) for plan in plans]
        contexts = [bench.context({"checkpoint": checkpoint, "train": train}) for _ in orders]
        return [
            bench.trainer.learn(order, context).outputs["delta"]
            for order, context in zip(orders, contexts, strict=True)
        ]

    def _with_lies(self, case: Case, number: int, checkpoint: Path, deltas: Sequence[Path]) -> list[Path]:
        attack = ATTACKS[case.attack]
        if attack is None or case.liars == 0:
            return list(deltas)
        honest = [read_delta(checkpoint, folder)[0] for folder in deltas[case.liars :]]
        stacked = {name: np.stack([delta[name] for delta in honest]) for name in honest[0]}
        known = Honest(
            mean={name: value.mean(axis=0) for name, value in stacked.items()},
            spread={name: value.std(axis=0) for name, value in stacked.items()},
            random=np.random.default_rng((self._bench.seed, number)),
        )
        lies: list[Path] = []
        for folder in deltas[: case.liars]:
            self._bench.made += 1
            lie = self._bench.root / f"lie-{self._bench.made}"
            write_lie(checkpoint, folder, lie, attack, known)
            if case.attack == "nan":
                # our own encoder refuses to write one
                poison(lie / "delta.safetensors")
            lies.append(lie)
        return [*lies, *deltas[case.liars :]]

    def _merge(
        self,
        case: Case,
        setting: Cell,
        number: int,
        checkpoint: Path,
        deltas: Sequence[Path],
        outer: Mapping[str, Path],
    ) -> Computed:
        bench = self._bench
        named = {f"delta-{index}": folder for index, folder in enumerate(deltas)}
        known = dict.fromkeys(("checkpoint", *named), "")
        plan = bench.plan(bench.stage(setting), number, "merge", known)[0]
        order = MergeOrder.model_validate_json(plan).model_copy(update={"rule": case.rule})
        return merge.compute(order, bench.context({"checkpoint": checkpoint, **outer, **named}))


def read_delta(checkpoint: Path, folder: Path) -> tuple[Tensors, Tensors, Tensors, Tensors]:
    """(delta, m, v, weights before), each by name and flat."""
    with open_checkpoint(checkpoint) as before:
        opened = gates.open_delta(folder, before, ENCODING)
        room = scratch()
        found: tuple[dict[str, F32], ...] = ({}, {}, {}, {})
        for name, shape in before.shapes.items():
            parts: list[list[F32]] = [[], [], [], []]
            for place in pieces({name: shape}):
                parts[0].append(opened.change(before, place, room).copy())
                parts[1].append(opened.m.read(*place, room).copy())
                parts[2].append(opened.v.read(*place, room).copy())
                parts[3].append(before.piece(*place).copy())
            for tensors, values in zip(found, parts, strict=True):
                tensors[name] = np.concatenate(values).reshape(shape)
        opened.close()
    return found[0], found[1], found[2], found[3]


def write_lie(checkpoint: Path, folder: Path, into: Path, attack: Attack, known: Honest) -> None:
    """A delta that looks like the honest one but for its values; the moments stay."""
    own, m, v, before = read_delta(checkpoint, folder)
    after = {name: before[name] - value for name, value in attack(own, known).items()}
    update = json.loads((folder / "update.json").read_text())
    write_delta(into, ENCODING, before, after, m, v, update["steps"], update["adam_step"])


def poison(file: Path) -> None:
    stored = read_tensors(file)
    scales = next(name for name in stored if name.endswith("@scale"))
    stored[scales] = np.full_like(stored[scales], np.nan)
    write_tensors(file, stored)


# ---- figures --------------------------------------------------------------------------------------------------------


def tables(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{rows and liars: {attack: {rule: {median loss, most, share of lies refused, seeds}}}}."""
    found: dict[str, Any] = {}
    keys = dict.fromkeys(
        (f"{run['liars']} of {run['shards']}, {run['rows']}", run["attack"], run["rule"]) for run in runs
    )
    for table, attack, rule in keys:
        these = [
            run
            for run in runs
            if (f"{run['liars']} of {run['shards']}, {run['rows']}", run["attack"], run["rule"])
            == (table, attack, rule)
        ]
        losses = [run["loss"] if run["loss"] is not None else float("inf") for run in these]
        lies = sum(run["lies"] for run in these)
        found.setdefault(table, {}).setdefault(attack, {})[rule] = {
            "loss": median(losses),
            "most": max(losses),
            "refused": round(sum(run["refused"] for run in these) / lies, 2) if lies else 0,
            "seeds": len(these),
        }
    return found


def known_runs() -> list[dict[str, Any]]:
    return json.loads(RESULT.read_text())["runs"] if RESULT.exists() else []


def record(run: Mapping[str, Any]) -> None:
    runs = [*known_runs(), dict(run)]
    figures = {
        "what": f"held-out loss after {ROUNDS} rounds of {INNER_STEPS} steps from a warm base; medians over seeds",
        "machine": machine(),
        "start": median(run["start"] for run in runs),
        "tables": tables(runs),
        "runs": runs,
    }
    RESULT.write_text(json.dumps(figures, indent=1) + "\n")


def measured(seed: int, root: Path, base: Path, corpus: Corpus, wanted: Sequence[Case]) -> Iterator[dict[str, Any]]:
    bench = Job(
        root=root / f"seed-{seed}",
        name="full",
        base=base,
        topics=corpus.topics,
        seed=seed,
        trainer=TorchTrainer("cpu"),
        steps=ROUNDS * INNER_STEPS,
    )
    stage = bench.stage(cell(Case(rule="mean"), seed))
    attacked, start = Attacked(bench), bench.loss(stage, bench.report, bench.first(stage))
    for case in wanted:
        yield {
            "rule": case.rule,
            "attack": case.attack,
            "rows": case.rows,
            "shards": case.shards,
            "liars": case.liars,
            "seed": seed,
            "start": round(start, 4),
            **attacked.run(case),
        }
    shutil.rmtree(bench.root)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="one seed, two attacks, no file; the default")
    size.add_argument("--full", action="store_true", help="every case and seed; adds to bench/results/rules.json")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    given = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    torch.set_num_threads(1)
    quick = [
        case for case in cases() if case.attack in ("none", "flip") and case.rows == "iid" and case.shards == SHARDS
    ]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        corpus = read_corpus(root)
        base = warm_base(corpus, root, skeleton(corpus, SMALLER, root / "skeleton"), TorchTrainer("cpu"))
        for seed in given.seeds if given.full else [0]:
            done = {(run["rule"], run["attack"], run["rows"], run["shards"], run["seed"]) for run in known_runs()}
            wanted = [
                case
                for case in (cases() if given.full else quick)
                if not given.full or (case.rule, case.attack, case.rows, case.shards, seed) not in done
            ]
            for run in measured(seed, root, base, corpus, wanted):
                print(json.dumps(run), flush=True)
                if given.full:
                    record(run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
