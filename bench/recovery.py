# pyright: standard
"""How much of synchronous data parallelism's gain the product's rounds recover, with the product's own phases.

`data parallel` is one machine that takes the same number of steps with K times the batch: the same rows, tokens, model
and learning rate. `rounds` is a job of K shards a round: learn, encode, merge, evaluate, choose, apply, all in this
process and through folders. `alone` is one of the K shards' share of the rows and nobody else. Recovered is

    (loss at the start - loss of rounds) / (loss at the start - loss of data parallel)

on held-out rows that chose nothing; `of_best` takes data parallelism at the better of two learning rates instead.
Text is this Python's own standard library, so nothing is fetched. By topic means that each shard reads one package;
iid means shuffled rows.

    python bench/recovery.py --quick             # the default: one seed, half the steps, minutes; prints only
    python bench/recovery.py --full              # three seeds, hours; adds to bench/results/recovery.json
    python bench/recovery.py --full --regimes lora --seeds 2
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import random
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from shardwork.dataset.vocabulary import train_vocabulary, write_tokenizer
from shardwork.jobs.spec import PlanSection, StageSpec
from shardwork.models.presets import preset_config
from shardwork.recipes.base import PlanInput, StageFacts
from shardwork.recipes.learning import AUTO_CANDIDATES, LearningRecipe
from shardwork.recipes.orders import ApplyOrder, EvaluateOrder, InitOrder, LearnOrder, MergeOrder
from shardwork.recipes.pretrain import Pretrain
from shardwork.recipes.sft import Sft
from shardwork.tensors.file import write_tensors
from shardwork_coordinator.aggregate import apply, merge
from shardwork_coordinator.machine.choice import choose
from shardwork_worker.child import ENVIRONMENT
from shardwork_worker.training.checkpoints import load_weights
from shardwork_worker.training.context import ShardContext
from shardwork_worker.training.model import build
from shardwork_worker.training.publish import write_model
from shardwork_worker.training.trainer import TorchTrainer

RESULT = Path(__file__).resolve().parent / "results" / "recovery.json"
VOCABULARY, LENGTH, BATCH, PRESET = 512, 64, 8, "tiny-1m"
#: the preset made smaller still: a step costs 14 ms of one core, so that three seeds take an hour and not a day
SMALLER = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "initializer_range": 0.0875,
}
#: packages of the standard library, about as much text in each
TOPICS = ("asyncio", "email", "multiprocessing", "unittest", "xml", "importlib", "http", "idlelib")
#: rows that choose a candidate, that judge a round, and that are only measured before the first and after the last
SELECTION, TEST, REPORT = 64, 64, 384
PROMPT = 16
WARM_STEPS = 600
#: data parallelism is measured at the product's rate and at this many times it: a larger batch may bear more
FASTER = 2.0
#: inner steps of a whole job, as in the measurements that the design rests on
STEPS: Mapping[str, int] = {"full": 200, "lora": 200, "scratch": 400}

Row = tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One job shape."""

    shards: int = 4
    rows: str = "iid"
    encoding: str = "int8"
    inner_steps: int = 10
    outer: str = "auto"

    @property
    def name(self) -> str:
        outer = "" if self.outer == "auto" else f", outer {self.outer}"
        return f"K={self.shards}, {self.rows}, {self.encoding}, H={self.inner_steps}{outer}"


SETTINGS = (
    Setting(),
    Setting(rows="by topic"),
    Setting(shards=8),
    Setting(shards=8, rows="by topic"),
    Setting(encoding="fp32"),
)
QUICK = (Setting(), Setting(rows="by topic"))
REGIMES: Mapping[str, tuple[LearningRecipe, Mapping[str, Any]]] = {
    # rates near the best of data parallelism: what `auto` takes is meant for models that are not this small, and a
    # baseline that learns too slowly is easily met (with it, 97 to 102 % were recovered)
    "full": (Sft(), {"method": "full", "learning_rate": 4e-3}),
    "lora": (Sft(), {"method": "lora", "learning_rate": 8e-3}),
    "scratch": (Pretrain(), {"preset": PRESET, "vocab_size": VOCABULARY, "learning_rate": 4e-3}),
}


# ---- text -----------------------------------------------------------------------------------------------------------


def sources(package: str) -> list[str]:
    """The package's files, or with "" those of the library's top level, in a fixed order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = sorted((root / package).rglob("*.py")) if package else sorted(root.glob("*.py"))
    return [path.read_text("utf-8", errors="replace") for path in found if "test" not in path.parts]


def docstrings() -> list[str]:
    """English prose to warm a base up on; it shares words but no form with the code that is tuned on."""
    trees = [ast.parse(text) for text in sources("")]
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) for tree in trees for node in ast.walk(tree) if isinstance(node, holders)]
    return [text for text in texts if text and len(text) > 80]


@dataclass(slots=True)
class Corpus:
    """Packed rows by topic, and the skeleton (tokenizer and config) that made them."""

    skeleton: Path
    prose: list[list[int]]
    topics: list[list[list[int]]]


def read_corpus(root: Path) -> Corpus:
    code, prose = {topic: sources(topic) for topic in TOPICS}, docstrings()
    everything = [*prose, *(text for texts in code.values() for text in texts)]
    tokenizer = train_vocabulary(everything, VOCABULARY, total_bytes=sum(map(len, everything)))
    skeleton = root / "skeleton"
    skeleton.mkdir()
    config = preset_config(PRESET, vocab_size=VOCABULARY, context=LENGTH, eos_token_id=0, pad_token_id=1)
    write_tokenizer(tokenizer, skeleton, context=LENGTH)
    (skeleton / "config.json").write_text(json.dumps(config | SMALLER))

    def packed(texts: Sequence[str]) -> list[list[int]]:
        flat = [token for text in texts for token in [*tokenizer.encode(text).ids, 0]]
        return [flat[at : at + LENGTH] for at in range(0, len(flat) - LENGTH + 1, LENGTH)]

    return Corpus(skeleton, packed(prose), [packed(code[topic]) for topic in TOPICS])


def write_rows(folder: Path, parts: Mapping[str, Sequence[Row]]) -> Path:
    folder.mkdir(parents=True)
    for name, rows in parts.items():
        tensors: dict[str, np.ndarray[Any, Any]] = {
            "tokens": np.array([token for tokens, _ in rows for token in tokens], np.int32),
            "mask": np.array([bit for _, mask in rows for bit in mask], np.uint8),
            "offsets": np.cumsum([0, *(len(tokens) for tokens, _ in rows)], dtype=np.int64),
        }
        write_tensors(folder / f"{name}.safetensors", tensors)
    files = [{"name": f"{name}.safetensors", "rows": len(rows)} for name, rows in parts.items()]
    (folder / "index.json").write_text(json.dumps({"files": files, "pad_token_id": 1}))
    return folder


def masked(tokens: Sequence[int], regime: str) -> Row:
    """Tuning counts only what follows a prompt."""
    prompt = 0 if regime == "scratch" else PROMPT
    return tokens, [0] * prompt + [1] * (len(tokens) - prompt)


# ---- rounds ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Bench:
    """Where one regime runs with one seed: base, held-out rows and rows to learn from."""

    root: Path
    regime: str
    base: Path
    topics: list[list[list[int]]]
    seed: int
    steps: int
    trainer: TorchTrainer
    held_out: Path = field(init=False)
    report: Path = field(init=False)
    train: list[list[Row]] = field(init=False)
    made: int = 0

    def __post_init__(self) -> None:
        shuffle = random.Random(self.seed).shuffle
        topics = [list(rows) for rows in self.topics]
        for rows in topics:
            shuffle(rows)
        each = (SELECTION + TEST + REPORT) // len(topics)
        held = [masked(row, self.regime) for rows in topics for row in rows[:each]]
        shuffle(held)
        selection, test, report = held[:SELECTION], held[SELECTION : SELECTION + TEST], held[SELECTION + TEST :]
        self.held_out = write_rows(self.root / "held-out", {"selection": selection, "test": test})
        self.report = write_rows(self.root / "report", {"test": report})
        self.train = [[masked(row, self.regime) for row in rows[each:]] for rows in topics]

    def context(self, **inputs: Path) -> ShardContext:
        self.made += 1
        named = {name.replace("_", "-") if name[-1].isdigit() else name: path for name, path in inputs.items()}
        named = {name.replace("step_", "step-"): path for name, path in named.items()}

        def no_trainer() -> TorchTrainer:
            raise AssertionError("phases never ask for a trainer")

        return ShardContext(
            inputs={"base": self.base, **named},
            seed=self.seed.to_bytes(32, "big"),
            output_dir=self.root / f"out-{self.made}",
            trainer_of=no_trainer,
            tell=lambda _fraction, _loss: None,
        )

    def stage(self, setting: Setting) -> StageSpec:
        recipe, params = REGIMES[self.regime]
        size = 140_000
        stage = StageSpec(
            name="bench",
            recipe=recipe.kind,
            base_model=None if self.regime == "scratch" else "base",
            eval_fraction=0.1,
            plan=PlanSection(
                rounds=self.steps // setting.inner_steps,
                shards_per_round=setting.shards,
                inner_steps=setting.inner_steps,
            ),
            params={
                **params,
                "max_length": LENGTH,
                "batch_size": BATCH,
                "encoding": setting.encoding,
                "outer": setting.outer,
            },
        )
        return recipe.freeze(stage, StageFacts(run_params=size, trained_params=size))

    def plan(self, stage: StageSpec, number: int, phase: str, artifacts: Mapping[str, str]) -> list[str]:
        """The product's orders for a phase."""
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
        return [shard.order_json for shard in REGIMES[self.regime][0].plan(given)]

    def first(self) -> Path:
        recipe = REGIMES[self.regime][0]
        stage = self.stage(Setting())
        order = InitOrder(tuning=recipe.tuning(stage.params), from_scratch=recipe.from_scratch(stage))
        return self.trainer.init(order, self.context()).outputs["checkpoint"]

    def rows_for(self, setting: Setting) -> Path:
        """Rows in the order in which shards take them: iid, or each shard's from one topic."""
        draw = random.Random(self.seed + 1)
        each = setting.inner_steps * BATCH
        rounds = self.steps // setting.inner_steps
        by_topic: list[Row] = []
        for round_ in range(rounds):
            for shard in range(setting.shards):
                rows = self.train[shard % len(self.train)]
                at = (round_ * -(-setting.shards // len(self.train)) + shard // len(self.train)) * each
                by_topic += [rows[(at + number) % len(rows)] for number in range(each)]
        if setting.rows == "iid":
            draw.shuffle(by_topic)
        return write_rows(self.root / f"train-{self.made}", {"rows": by_topic})

    def loss(self, checkpoint: Path, stage: StageSpec) -> float:
        """On the report rows."""
        planned = self.plan(stage, 1, "evaluate", {f"step-{name}": "" for name in AUTO_CANDIDATES} | {"eval": ""})
        order = EvaluateOrder.model_validate_json(planned[0]).model_copy(update={"candidates": ()})
        context = self.context(checkpoint=checkpoint, eval=self.report)
        return self.trainer.evaluate(order, context).metrics["before.test_loss"]

    def straight(self, setting: Setting, *, machines: int, faster: float = 1.0) -> float:
        """Loss after one uninterrupted run."""
        return self.loss(self.one_run(setting, machines=machines, faster=faster), self.stage(setting))

    def one_run(self, setting: Setting, *, machines: int, faster: float = 1.0) -> Path:
        """One uninterrupted run over `machines` shards' rows a step: all of them is data parallel, one is alone."""
        stage, first = self.stage(setting), self.first()
        order = LearnOrder.model_validate_json(self.plan(stage, 1, "learn", {})[0])
        schedule = order.schedule.model_copy(update={"learning_rate": order.schedule.learning_rate * faster})
        order = order.model_copy(
            update={
                "steps": self.steps,
                "batch_size": BATCH * machines,
                "encoding": "fp32",
                "schedule": schedule,
            }
        )
        context = self.context(checkpoint=first, train=self.rows_for(setting))
        delta = self.trainer.learn(order, context).outputs["delta"]
        merging = MergeOrder(rule="mean", steps=self.steps, weights=(1,), candidates=("mean",), encoding="fp32")
        merged = merge.compute(merging, self.context(checkpoint=first, delta_0=delta)).outputs
        return self.applied(first, merged, "mean", ApplyOrder(steps=self.steps, encoding="fp32"))

    def applied(self, checkpoint: Path, merged: Mapping[str, Path], candidate: str, order: ApplyOrder) -> Path:
        context = self.context(checkpoint=checkpoint, step=merged[f"step-{candidate}"], moments=merged["moments"])
        return apply.compute(order, context).outputs["checkpoint"]

    def rounds(self, setting: Setting) -> tuple[float, list[str]]:
        """(loss after a whole job, what each round took)."""
        stage, checkpoint, train = self.stage(setting), self.first(), self.rows_for(setting)
        outer: dict[str, Path] = {}
        taken: list[str] = []
        for number in range(1, stage.plan.rounds + 1):
            plans = self.plan(stage, number, "learn", {})
            deltas: dict[str, Path] = {}
            for index, plan in enumerate(plans):
                context = self.context(checkpoint=checkpoint, train=train)
                learned = self.trainer.learn(LearnOrder.model_validate_json(plan), context)
                deltas[f"delta_{index}"] = learned.outputs["delta"]
            known = dict.fromkeys(("eval", "checkpoint", *(name.replace("_", "-") for name in deltas)), "")
            order = MergeOrder.model_validate_json(self.plan(stage, number, "merge", known)[0])
            merged = merge.compute(order, self.context(checkpoint=checkpoint, **outer, **deltas))
            if merged.metrics["num_kept"] < len(deltas):
                taken.append(f"kept {merged.metrics['num_kept']:.0f}:")
            choice = self.chosen(stage, number, checkpoint, merged.outputs)
            taken.append(choice or "rolled back")
            if choice:
                apply_order = ApplyOrder.model_validate_json(
                    self.plan(stage, number, "apply", {"checkpoint": "", "chosen_step": "", "new_moments": ""})[0]
                )
                checkpoint = self.applied(checkpoint, merged.outputs, choice, apply_order)
                outer = {"outer": merged.outputs["outer"]}
        return self.loss(checkpoint, stage), taken

    def chosen(self, stage: StageSpec, number: int, checkpoint: Path, merged: Mapping[str, Path]) -> str:
        steps = {name: path for name, path in merged.items() if name.startswith("step-")}
        plan = self.plan(stage, number, "evaluate", {**dict.fromkeys(steps, ""), "eval": ""})[0]
        order = EvaluateOrder.model_validate_json(plan)
        context = self.context(
            checkpoint=checkpoint, eval=self.held_out, **{k.replace("-", "_", 1): v for k, v in steps.items()}
        )
        metrics = self.trainer.evaluate(order, context).metrics
        choice = choose(metrics, order.candidates, metrics["before.test_loss"], 0)
        return "" if choice.rolled_back else choice.candidate


# ---- figures --------------------------------------------------------------------------------------------------------


def warm_base(corpus: Corpus, root: Path, trainer: TorchTrainer) -> Path:
    """A base model that has read prose and no code."""
    bench = Bench(
        root=root / "warming",
        regime="scratch",
        base=corpus.skeleton,
        topics=[corpus.prose],
        seed=0,
        steps=WARM_STEPS,
        trainer=trainer,
    )
    setting = Setting(inner_steps=WARM_STEPS)
    tuning = REGIMES["scratch"][0].tuning({})
    built = build(corpus.skeleton, tuning, from_scratch=True, seed=bytes(32), device=torch.device("cpu"))
    load_weights(built, bench.one_run(setting, machines=setting.shards))
    folder = root / "base"
    folder.mkdir()
    write_model(built.model, folder, corpus.skeleton)
    return folder


def run_seed(bench: Bench, settings: Sequence[Setting]) -> Iterator[dict[str, Any]]:
    """Figures of each setting with one seed, as they are found."""
    start = bench.loss(bench.first(), bench.stage(Setting()))
    alone = bench.straight(Setting(), machines=1)
    parallel: dict[int, tuple[float, float]] = {}
    for setting in settings:
        if setting.shards not in parallel:
            # of shuffled rows also where shards read by topic: its every step reads from every topic
            same, faster = (
                bench.straight(Setting(shards=setting.shards), machines=setting.shards, faster=rate)
                for rate in (1.0, FASTER)
            )
            parallel[setting.shards] = same, min(same, faster)
        loss, taken = bench.rounds(setting)
        same, best = parallel[setting.shards]
        yield {
            "regime": bench.regime,
            "setting": setting.name,
            "seed": bench.seed,
            "start": round(start, 4),
            "alone": round(alone, 4),
            "data_parallel": round(same, 4),
            "data_parallel_best": round(best, 4),
            "rounds": round(loss, 4),
            "recovered": round((start - loss) / (start - same), 4),
            "recovered_of_best": round((start - loss) / (start - best), 4),
            "alone_recovered": round((start - alone) / (start - same), 4),
            "taken": " ".join(taken),
        }


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By regime and setting: what was recovered, as mean and least over seeds, and beside it one shard alone."""
    found: dict[str, Any] = {}
    for regime, setting in dict.fromkeys((run["regime"], run["setting"]) for run in runs):
        these = [run for run in runs if (run["regime"], run["setting"]) == (regime, setting)]
        shares = [run["recovered"] for run in these]
        found.setdefault(regime, {})[setting] = {
            "recovered": round(mean(shares), 3),
            "least": min(shares),
            "of_best": round(mean(run["recovered_of_best"] for run in these), 3),
            "alone": round(mean(run["alone_recovered"] for run in these), 3),
            "seeds": len(these),
        }
    return found


def record(path: Path, run: Mapping[str, Any]) -> None:
    """Adds a run to the file, in place of an earlier one of the same name, and sums up again."""
    before = json.loads(path.read_text())["runs"] if path.exists() else []

    def key(one: Mapping[str, Any]) -> tuple[Any, ...]:
        return list(REGIMES).index(one["regime"]), one["setting"], one["seed"]

    runs = sorted([*(one for one in before if key(one) != key(run)), run], key=key)
    figures = {"machine": machine(), "steps": STEPS, "recovered": summary(runs), "runs": runs}
    path.write_text(json.dumps(figures, indent=2) + "\n")


def machine() -> dict[str, Any]:
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", action="store_true", help="one seed, two settings, half the steps, no file; the default"
    )
    size.add_argument("--full", action="store_true", help="every setting and seed; adds to bench/results/recovery.json")
    parser.add_argument("--regimes", nargs="+", default=list(REGIMES), choices=list(REGIMES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    given = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    torch.set_num_threads(1)
    settings, seeds, shorter = (SETTINGS, given.seeds, 1) if given.full else (QUICK, [0], 2)
    trainer = TorchTrainer("cpu")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        corpus = read_corpus(root)
        tuned = {"full", "lora"} & set(given.regimes)
        base = warm_base(corpus, root, trainer) if tuned else corpus.skeleton
        for regime, seed in ((regime, seed) for seed in seeds for regime in given.regimes):
            bench = Bench(
                root=root / f"{regime}-{seed}",
                regime=regime,
                base=corpus.skeleton if regime == "scratch" else base,
                topics=corpus.topics,
                seed=seed,
                steps=STEPS[regime] // shorter,
                trainer=trainer,
            )
            for run in run_seed(bench, settings):
                print(json.dumps(run), flush=True)
                if given.full:
                    record(RESULT, run)
            shutil.rmtree(bench.root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
