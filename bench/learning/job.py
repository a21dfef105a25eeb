# pyright: standard
"""Runs a cell in this process through the product's own orders and phases, and through folders.

Owns a regime with one seed: its base, held-out rows and rows to learn from. Bytes are sizes of the artifacts that were
written, counted as the agent moves them: a learner that holds the checkpoint before fetches `step` and `moments`.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from shardwork.jobs.spec import PlanSection, StageSpec
from shardwork.recipes import averaging
from shardwork.recipes.base import PlanInput, StageFacts
from shardwork.recipes.orders import ApplyOrder, EvaluateOrder, InitOrder, LearnOrder, MergeOrder
from shardwork.tensors.checkpoint import open_checkpoint
from shardwork_coordinator.aggregate import apply, merge
from shardwork_coordinator.machine.choice import choose
from shardwork_worker.training.checkpoints import load_weights
from shardwork_worker.training.context import ShardContext
from shardwork_worker.training.model import build
from shardwork_worker.training.publish import write_model
from shardwork_worker.training.trainer import TorchTrainer

from .cells import ALONE, PARALLEL, REGIMES, ROUNDS, Cell, Regime
from .text import LENGTH, Corpus, Row, masked, write_rows

#: held-out rows, and how many of them only the first and last model meet
HELD_OUT, REPORT = 512, 384
#: shards whose rows the lone worker shares out: it reads one in so many
SHARERS = 4
WARM_STEPS = 600
#: points on the curve of an uninterrupted run
POINTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    start: float
    loss: float
    #: (inner steps so far, loss on test rows)
    curve: list[tuple[int, float]]
    #: by way, of the whole job
    bytes: dict[str, int] = field(default_factory=dict[str, int])
    taken: str = ""
    trained_params: int


@dataclass(slots=True, kw_only=True)
class Job:
    root: Path
    name: str
    base: Path
    topics: list[list[list[int]]]
    seed: int
    trainer: TorchTrainer
    steps: int = 0
    regime: Regime = field(init=False)
    held_out: Path = field(init=False)
    report: Path = field(init=False)
    train: list[list[Row]] = field(init=False)
    made: int = 0

    def __post_init__(self) -> None:
        self.regime = REGIMES[self.name]
        self.steps = self.steps or self.regime.steps
        shuffle = random.Random(self.seed).shuffle
        topics = [list(rows) for rows in self.topics]
        for rows in topics:
            shuffle(rows)
        each, some = HELD_OUT // len(topics), self.regime.held_out
        held = [masked(row, self.regime.prompt) for rows in topics for row in rows[:each]]
        shuffle(held)
        selection, test, report = held[:some], held[some : 2 * some], held[-REPORT:]
        self.held_out = write_rows(self.root / "held-out", {"selection": selection, "test": test})
        self.report = write_rows(self.root / "report", {"test": report})
        self.train = [[masked(row, self.regime.prompt) for row in rows[each:]] for rows in topics]

    # ---- the product's phases -------------------------------------------------------------------------------------

    def context(self, inputs: Mapping[str, Path]) -> ShardContext:
        self.made += 1

        def no_trainer() -> TorchTrainer:
            raise AssertionError("phases never ask for a trainer")

        return ShardContext(
            inputs={"base": self.base, **inputs},
            seed=self.seed.to_bytes(32, "big"),
            output_dir=self.root / f"out-{self.made}",
            trainer_of=no_trainer,
            tell=lambda _fraction, _loss: None,
        )

    def stage(self, cell: Cell) -> StageSpec:
        params = dict(self.regime.params)
        params["learning_rate"] *= cell.rate
        if cell.kind != ROUNDS:
            # what the product takes for one shard a round, and better for data parallelism: 2.66 and not 2.70 at K=8
            # with what rounds take of the rate's end, 2.677 and not 2.681 with their second decay and weight decay
            alone = averaging.ALONE
            params |= {"final_rate": alone.final_rate, "beta2": alone.beta2}
            params |= {"warmup_steps": math.ceil(self.steps * alone.warmup)}
            params |= {"weight_decay": 0.0 if params.get("method") == "lora" else 0.1}
        plan = PlanSection(
            rounds=self.steps // cell.inner_steps, shards_per_round=cell.shards, inner_steps=cell.inner_steps
        )
        stage = StageSpec(
            name="bench",
            recipe=self.regime.recipe.kind,
            base_model="base" if self.regime.warm else None,
            eval_fraction=0.1,
            plan=plan,
            params={**params, "max_length": LENGTH, "batch_size": self.regime.batch},
        )
        return self.regime.recipe.freeze(stage, StageFacts(run_params=1_000_000, trained_params=1_000_000))

    def plan(self, stage: StageSpec, number: int, phase: str, artifacts: Mapping[str, str]) -> list[str]:
        given = PlanInput(
            job_id="bench",
            job_name="bench",
            stage=stage,
            round_number=number,
            phase=phase,
            facts=StageFacts(run_params=1, trained_params=1),
            artifacts=artifacts,
            numbers={},
        )
        return [shard.order_json for shard in self.regime.recipe.plan(given)]

    def first(self, stage: StageSpec) -> Path:
        recipe = self.regime.recipe
        order = InitOrder(tuning=recipe.tuning(stage.params), from_scratch=recipe.from_scratch(stage))
        return self.trainer.init(order, self.context({})).outputs["checkpoint"]

    def rows_for(self, cell: Cell) -> Path:
        """Rows in the order in which shards take them: iid, or each shard's from one topic."""
        each = cell.inner_steps * self.regime.batch
        ordered: list[Row] = []
        for round_ in range(self.steps // cell.inner_steps):
            for shard in range(cell.shards):
                rows = self.train[shard % len(self.train)]
                at = (round_ * -(-cell.shards // len(self.train)) + shard // len(self.train)) * each
                ordered += [rows[(at + number) % len(rows)] for number in range(each)]
        if cell.rows == "iid":
            random.Random(self.seed + 1).shuffle(ordered)
        self.made += 1
        return write_rows(self.root / f"out-{self.made}", {"rows": ordered})

    def evaluated(self, stage: StageSpec, rows: Path, checkpoint: Path, steps: Mapping[str, Path]) -> dict[str, float]:
        """Metrics of phase evaluate over these candidates; of none, only the checkpoint's own loss on test rows."""
        # the plan offers this job's candidates; those that were not written are left out
        known = {f"step-{name}": "" for name in self.regime.recipe.candidates(stage, {"eval": ""}, stage.plan.rounds)}
        order = EvaluateOrder.model_validate_json(
            self.plan(stage, stage.plan.rounds, "evaluate", {**known, "eval": ""})[0]
        )
        wanted = tuple(name for name in order.candidates if f"step-{name}" in steps)
        context = self.context({"checkpoint": checkpoint, "eval": rows, **steps})
        return dict(self.trainer.evaluate(order.model_copy(update={"candidates": wanted}), context).metrics)

    def loss(self, stage: StageSpec, rows: Path, checkpoint: Path) -> float:
        return self.evaluated(stage, rows, checkpoint, {})["before.test_loss"]

    def applied(self, checkpoint: Path, merged: Mapping[str, Path], candidate: str, order: ApplyOrder) -> Path:
        inputs = {"checkpoint": checkpoint, "step": merged[f"step-{candidate}"], "moments": merged["moments"]}
        return apply.compute(order, self.context(inputs)).outputs["checkpoint"]

    # ---- whole runs -----------------------------------------------------------------------------------------------

    def run(self, cell: Cell) -> Outcome:
        stage = self.stage(cell)
        first = self.first(stage)
        start = self.loss(stage, self.report, first)
        curve, bytes_, taken = [(0, self.loss(stage, self.held_out, first))], dict[str, int](), list[str]()
        if cell.kind in (PARALLEL, ALONE):
            last = self.straight(cell, stage, first, curve)
        else:
            last = self.rounds(cell, stage, first, curve, bytes_, taken)
        with open_checkpoint(last) as opened:
            params = sum(opened.weights[name].size for name in opened.weights)
        loss = self.loss(stage, self.report, last)
        for folder in self.root.glob("out-*"):
            shutil.rmtree(folder)
        return Outcome(start=start, loss=loss, curve=curve, bytes=bytes_, taken=" ".join(taken), trained_params=params)

    def straight(self, cell: Cell, stage: StageSpec, checkpoint: Path, curve: list[tuple[int, float]]) -> Path:
        """One uninterrupted run over all shards' rows a step, or over one shard's; in parts, which changes no bit."""
        machines = 1 if cell.kind == ALONE else cell.shards
        train, part = self.rows_for(cell), self.steps // POINTS
        planned = LearnOrder.model_validate_json(self.plan(stage, 1, "learn", {})[0])
        for start in range(0, self.steps, part):
            size = self.regime.batch * machines
            changes = {
                "start_step": start,
                "steps": part,
                "first_row": start * size,
                "batch_size": size,
                "micro_batch_size": size,
                "encoding": "fp32",
            }
            order = planned.model_copy(update=changes)
            delta = self.trainer.learn(order, self.context({"checkpoint": checkpoint, "train": train})).outputs["delta"]
            merging = MergeOrder(rule="mean", steps=part, weights=(1,), candidates=("mean",), encoding="fp32")
            merged = merge.compute(merging, self.context({"checkpoint": checkpoint, "delta-0": delta})).outputs
            checkpoint = self.applied(checkpoint, merged, "mean", ApplyOrder(steps=part, encoding="fp32"))
            curve.append((start + part, self.loss(stage, self.held_out, checkpoint)))
        return checkpoint

    def rounds(
        self,
        cell: Cell,
        stage: StageSpec,
        checkpoint: Path,
        curve: list[tuple[int, float]],
        bytes_: dict[str, int],
        taken: list[str],
    ) -> Path:
        """A whole job; adds to its curve, its bytes and the names of the steps it took."""
        train, outer, fetched = self.rows_for(cell), dict[str, Path](), size_of(checkpoint)
        for number in range(1, stage.plan.rounds + 1):
            deltas: dict[str, Path] = {}
            for index, plan in enumerate(self.plan(stage, number, "learn", {})):
                context = self.context({"checkpoint": checkpoint, "train": train})
                learned = self.trainer.learn(LearnOrder.model_validate_json(plan), context)
                deltas[f"delta-{index}"] = learned.outputs["delta"]
            known = dict.fromkeys(("eval", "checkpoint", *deltas), "")
            order = MergeOrder.model_validate_json(self.plan(stage, number, "merge", known)[0])
            merged = merge.compute(order, self.context({"checkpoint": checkpoint, **outer, **deltas})).outputs
            steps = {name: path for name, path in merged.items() if name.startswith("step-")}
            metrics = self.evaluated(stage, self.held_out, checkpoint, steps)
            choice = choose(metrics, order.candidates, metrics["before.test_loss"], 0)
            count(bytes_, "up", sum(map(size_of, deltas.values())))
            count(bytes_, "down", cell.shards * fetched)
            count(bytes_, "evaluate", sum(map(size_of, steps.values())) + fetched)
            fetched = 0  # after a roll-back it is held already
            taken.append("rolled-back" if choice.rolled_back else choice.candidate)
            if not choice.rolled_back:
                plan = self.plan(stage, number, "apply", {"checkpoint": "", "chosen_step": "", "new_moments": ""})[0]
                checkpoint = self.applied(checkpoint, merged, choice.candidate, ApplyOrder.model_validate_json(plan))
                outer = {"outer": merged["outer"]}
                # who holds the checkpoint before fetches what leads on from it
                fetched = size_of(merged[f"step-{choice.candidate}"]) + size_of(merged["moments"])
            curve.append((number * cell.inner_steps, metrics["before.test_loss"]))
            if not choice.rolled_back and choice.test_loss is not None:
                curve[-1] = (number * cell.inner_steps, choice.test_loss)
        return checkpoint


def count(bytes_: dict[str, int], way: str, more: int) -> None:
    bytes_[way] = bytes_.get(way, 0) + more


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def warm_base(corpus: Corpus, root: Path, skeleton: Path, trainer: TorchTrainer) -> Path:
    """A base model that has read prose and no code."""
    job = Job(
        root=root / "warming",
        name="scratch",
        base=skeleton,
        topics=[corpus.prose],
        seed=0,
        steps=WARM_STEPS,
        trainer=trainer,
    )
    # the small model's rate, as in regime "full"
    rate = REGIMES["full"].params["learning_rate"] / REGIMES["scratch"].params["learning_rate"]
    cell = Cell(regime="scratch", kind=PARALLEL, shards=SHARERS, rate=rate, seed=0, inner_steps=WARM_STEPS)
    stage = job.stage(cell)
    last = job.straight(cell, stage, job.first(stage), [])
    built = build(
        skeleton, REGIMES["scratch"].recipe.tuning({}), from_scratch=True, seed=bytes(32), device=torch.device("cpu")
    )
    load_weights(built, last)
    folder = root / "base"
    folder.mkdir()
    write_model(built.model, folder, skeleton)
    shutil.rmtree(job.root)
    return folder
