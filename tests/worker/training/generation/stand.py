# pyright: standard
"""Prompts, orders and runs for the tests of generation: sharp tiny models, so that a wrong state shows in a token."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shardwork.artifact import describe_folder
from shardwork.recipes.alignment.answers import Answers, Prompts, read_answers, read_prompts, write_prompts
from shardwork.recipes.alignment.auditing import check_claimed, judge_audit
from shardwork.recipes.alignment.orders import AuditOrder, GenerateOrder, Sampling
from shardwork.recipes.base import Reported
from shardwork_worker.training.trainer import TorchTrainer

from .. import tiny

#: <eos> of the tiny tokenizer, and another one
ENDS = (1, 7)
LONGEST = 16


def sharp_base(folder: Path, kind: str = "llama", **changes: Any) -> Path:
    """A base whose next token depends on what was read: probabilities far from each other."""
    spread = {"init_std": 0.3} if kind == "opt" else {"initializer_range": 0.3}
    return tiny.write_base(folder, kind, **spread, **changes)


def some_prompts(folder: Path, count: int = 6, *, end_tokens: Sequence[int] = ENDS) -> Path:
    """Of 1 to 11 tokens."""
    draw = np.random.default_rng(5)
    tokens = [draw.integers(10, 60, length).tolist() for length in draw.integers(1, 12, count)]
    folder.mkdir(parents=True)
    rows = [{"id": str(number), "prompt": "?"} for number in range(count)]
    write_prompts(folder, tokens, rows, pad_token_id=0, end_tokens=end_tokens)
    return folder


def order(*, sampling: Mapping[str, Any] | None = None, **changes: Any) -> GenerateOrder:
    """Three answers to each of six prompts."""
    settings: dict[str, Any] = {
        "tuning": None,
        "first_prompt": 2,
        "prompts": 6,
        "answers": 3,
        "sampling": Sampling(**{"max_new_tokens": 24, **(sampling or {})}),
        "max_length": LONGEST,
        "batch_size": 32,
        **changes,
    }
    return GenerateOrder(**settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """One base and its prompts, and a trainer."""

    trainer: TorchTrainer
    root: Path
    base: Path
    prompts: Path

    def folder(self) -> Path:
        """A new one."""
        return self.root / f"run-{sum(1 for _ in self.root.iterdir())}"

    def generate(self, of: GenerateOrder, **inputs: Path) -> tuple[Path, dict[str, float]]:
        given = {"base": self.base, "prompts": self.prompts, **inputs}
        done = self.trainer.generate(of, tiny.context(self.folder(), **given))
        return done.outputs["answers"], dict(done.metrics)

    def asked(self) -> Prompts:
        return read_prompts(self.prompts, max_length=LONGEST)

    def read(self, of: GenerateOrder, answers: Path) -> Answers:
        return read_answers(answers, of, self.asked())

    def audit(self, of: Any, rows: Sequence[int], **inputs: Path) -> dict[str, float]:
        asked = AuditOrder(of=of, seed=tiny.SEED.hex(), rows=tuple(rows))
        given = {"base": self.base, "prompts": self.prompts, **inputs}
        return dict(self.trainer.audit(asked, tiny.context(self.folder(), **given)).metrics)

    def verdict(self, of: Any, claimed: Mapping[str, float], rows: Sequence[int], **inputs: Path) -> str:
        """The code of why an audit refuses, "" when it does not."""
        found = self.audit(of, rows, **inputs)
        finding = judge_audit(AuditOrder(of=of, seed=tiny.SEED.hex(), rows=tuple(rows)), claimed, found)
        return "" if finding.why is None else finding.why.code


def change_index(folder: Path, **changes: Any) -> None:
    path = folder / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def checked(of: Any, name: str, folder: Path, metrics: Mapping[str, float]) -> str:
    """The code of why the coordinator refuses this result before any audit, "" when it does not."""
    made = describe_folder(folder)
    reported = Reported(
        outputs={name: made.id},
        output_bytes={name: made.total_bytes},
        output_files={name: {entry.path: entry.size for entry in made.files}},
        metrics=metrics,
    )
    why = check_claimed(of, reported, name, frozenset({"tokens"} if name == "verdicts" else ())).why
    return "" if why is None else why.code
