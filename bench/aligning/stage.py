# pyright: standard
"""Runs a whole stage in this process, as a coordinator and its workers would: the recipe's plans, the worker's phases,
the executor's merge and apply, the machine's choice between candidates, and what the recipe observes.

Artifacts are folders whose id is their path. Nothing is paid, signed or audited unless a `Meddler` asks for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from shardwork.ids import derive_seed
from shardwork.jobs.spec import StageSpec
from shardwork.recipes import prepare, recipe
from shardwork.recipes.base import Computed, Observed, PlanInput, RoundKind, ShardPlan, StageFacts
from shardwork.recipes.orders import ApplyOrder, EvaluateOrder, MergeOrder
from shardwork_coordinator.aggregate import apply, merge
from shardwork_coordinator.machine.choice import choose
from shardwork_worker.training.context import ShardContext
from shardwork_worker.training.trainer import TorchTrainer

#: shards of these phases give outputs of one name each; the round numbers them
NUMBERED = {"learn": "delta", "rollout": "answers", "score": "scores"}


class Meddler(Protocol):
    """Sees every order and result, and may put others in their place."""

    def order(self, phase: str, order_json: str) -> str: ...

    def result(self, phase: str, plan: ShardPlan, seed: bytes, computed: Computed) -> Computed: ...


@dataclass(slots=True)
class Place:
    """Where stages of one seed run; folders are made one after the other and removed with it."""

    root: Path
    trainer: TorchTrainer
    made: int = 0

    def context(self, inputs: Mapping[str, Path], seed: bytes) -> ShardContext:
        self.made += 1
        return ShardContext(
            inputs=inputs,
            seed=seed,
            output_dir=self.root / f"out-{self.made}",
            trainer_of=lambda: self.trainer,
            tell=lambda _fraction, _loss: None,
        )

    def folder(self, name: str) -> Path:
        self.made += 1
        return self.root / f"{name}-{self.made}"

    def clear(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


@dataclass(slots=True)
class Ran:
    """What a stage left."""

    artifacts: dict[str, str] = field(default_factory=dict[str, str])
    numbers: dict[str, float] = field(default_factory=dict[str, float])
    #: what was shown of each round
    rounds: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    stopped: str = ""

    @property
    def model(self) -> Path:
        return Path(self.artifacts["model"])


@dataclass(slots=True)
class Stage:
    """One stage, from its inputs (base, data, eval_data, model-<role>) to its model."""

    place: Place
    spec: StageSpec
    inputs: Mapping[str, Path]
    facts: StageFacts
    seed: int
    meddler: Meddler | None = None
    ran: Ran = field(init=False)

    def __post_init__(self) -> None:
        self.spec = recipe(self.spec.recipe).freeze(self.spec, self.facts)
        self.ran = Ran(artifacts={name: str(path) for name, path in self.inputs.items()})

    def run(self) -> Ran:
        rounds = self.spec.plan.rounds
        self._round(0, RoundKind.SETUP)
        number = 0
        while number < rounds and not self.ran.stopped:
            number += 1
            self._round(number, RoundKind.LEARN)
        self._round(number + 1, RoundKind.PUBLISH)
        return self.ran

    def _round(self, number: int, kind: RoundKind) -> None:
        found: dict[str, str] = {}
        self.ran.rounds.append({})
        for phase in recipe(self.spec.recipe).phases(kind, self.ran.artifacts):
            if phase == "apply" and "chosen_step" not in found:
                found["chosen_step"] = next(path for name, path in found.items() if name.startswith("step-"))
            metrics = self._phase(phase, number, found)
            self._observe(phase, number, kind, metrics)
            if phase == "evaluate" and not self._choose(number, metrics[0], found):
                return
            self._keep(phase, metrics, found)
        if kind is RoundKind.LEARN:
            self._next_checkpoint(found)

    # ---- phases ---------------------------------------------------------------------------------------------------

    def plans(self, phase: str, number: int, found: Mapping[str, str]) -> Sequence[ShardPlan]:
        given = PlanInput(
            job_id=f"bench-{self.seed}",
            job_name="bench",
            stage=self.spec,
            round_number=number,
            phase=phase,
            facts=self.facts,
            artifacts={**self.ran.artifacts, **found, **_for_apply(phase, found)},
            numbers=self.ran.numbers,
        )
        return recipe(self.spec.recipe).plan(given)

    def _phase(self, phase: str, number: int, found: dict[str, str]) -> list[Mapping[str, float]]:
        metrics: list[Mapping[str, float]] = []
        for plan in self.plans(phase, number, found):
            seed = derive_seed(f"bench-{self.seed}", self.spec.name, number, phase, plan.index)
            inputs = {name: Path(path) for name, path in plan.inputs.items()}
            order_json = self.meddler.order(phase, plan.order_json) if self.meddler else plan.order_json
            computed = self._computed(phase, order_json, self.place.context(inputs, seed))
            if self.meddler is not None:
                computed = self.meddler.result(phase, plan, seed, computed)
            metrics.append(computed.metrics)
            for output, path in computed.outputs.items():
                name = f"{NUMBERED[phase]}-{plan.index}" if phase in NUMBERED else output
                found["new_checkpoint" if phase == "apply" else name] = str(path)
        return metrics

    def _computed(self, phase: str, order_json: str, context: ShardContext) -> Computed:
        match phase:
            case "prepare":
                return prepare.compute(phase, order_json, context)
            case "merge":
                return merge.compute(MergeOrder.model_validate_json(order_json), context)
            case "apply":
                return apply.compute(ApplyOrder.model_validate_json(order_json), context)
            case _:
                return recipe(self.spec.recipe).compute(phase, order_json, context)

    # ---- after a phase --------------------------------------------------------------------------------------------

    def _observe(self, phase: str, number: int, kind: RoundKind, metrics: Sequence[Mapping[str, float]]) -> None:
        ran = self.ran
        seen = recipe(self.spec.recipe).observe(
            Observed(stage=self.spec, round_number=number, kind=kind, phase=phase, metrics=metrics, numbers=ran.numbers)
        )
        ran.numbers |= dict(seen.numbers)
        ran.rounds[-1] |= dict(seen.measures)
        if seen.is_best:
            ran.artifacts["best_checkpoint"] = ran.artifacts["checkpoint"]
        if seen.stop is not None:
            ran.stopped = seen.stop.code

    def _choose(self, number: int, metrics: Mapping[str, float], found: dict[str, str]) -> bool:
        """Whether the round goes on."""
        candidates = EvaluateOrder.model_validate_json(self.plans("evaluate", number, found)[0].order_json).candidates
        ran, before = self.ran, metrics["before.test_loss"]
        best = min(before, ran.numbers.get("best_loss", before))
        choice = choose(metrics, candidates, best, int(ran.numbers.get("rollbacks_in_a_row", 0)))
        told = {"loss": before if choice.rolled_back else choice.test_loss or before}
        told |= {
            name: metrics[f"{choice.candidate}.{name}"]
            for name in ("accuracy", "calibration_error")
            if f"{choice.candidate}.{name}" in metrics
        }
        ran.rounds[-1] |= {**told, "rolled_back": float(choice.rolled_back)}
        ran.numbers["rollbacks_in_a_row"] = ran.numbers.get("rollbacks_in_a_row", 0) + 1 if choice.rolled_back else 0
        ran.stopped = choice.why.code if choice.stop else ran.stopped
        if choice.rolled_back:
            return False
        found["chosen_step"] = found[f"step-{choice.candidate}"]
        return True

    def _keep(self, phase: str, metrics: Sequence[Mapping[str, float]], found: Mapping[str, str]) -> None:
        ran = self.ran
        if phase in ("prepare", "init", "publish"):
            ran.artifacts |= {name: path for name, path in found.items() if name != "skeleton"}
        if phase == "prepare":
            ran.numbers |= dict(metrics[0])

    def _next_checkpoint(self, found: Mapping[str, str]) -> None:
        ran = self.ran
        ran.artifacts |= {
            "parent_checkpoint": ran.artifacts["checkpoint"],
            "step": found["chosen_step"],
            "moments": found["moments"],
            "checkpoint": found["new_checkpoint"],
            "outer": found["outer"],
        }
        loss, best = ran.rounds[-1].get("loss"), ran.numbers.get("best_loss")
        if "is_measured" not in ran.numbers and (loss is None or best is None or loss < best):
            ran.artifacts["best_checkpoint"] = found["new_checkpoint"]
            ran.numbers |= {} if loss is None else {"best_loss": loss}


def _for_apply(phase: str, found: Mapping[str, str]) -> dict[str, str]:
    return {"new_moments": found["moments"]} if phase == "apply" else {}


def spec(name: str, kind: str, params: Mapping[str, Any], plan: Mapping[str, int], **more: Any) -> StageSpec:
    return StageSpec.model_validate(
        {"name": name, "recipe": kind, "base_model": "base", "params": dict(params), "plan": dict(plan), **more}
    )
