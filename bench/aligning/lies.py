# pyright: standard
"""Workers that lie: about the answers that they drew, and about what answers are worth; and whoever looks again.

A liar holds place 0 of each round. It hands in answers that it made up instead of drawing them, with the numbers of an
honest shard ("forged") or with what the policy really gives them ("fitted"), or scores turned round. Every result of an
audited phase is audited as the coordinator would, and what the audit found is counted; where `believed`, the shard is
done again by an honest worker, else the lie is learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from shardwork.ids import derive_seed
from shardwork.recipes import recipe
from shardwork.recipes.alignment.answers import (
    Answers,
    flat,
    read_answers,
    read_prompts,
    read_scores,
    write_answers,
    write_scores,
)
from shardwork.recipes.alignment.orders import GenerateOrder, ScoreOrder
from shardwork.recipes.base import Computed, ShardPlan
from shardwork.recipes.orders import LearnOrder
from shardwork_worker.training.checkpoints import load_weights
from shardwork_worker.training.model import build

from . import first
from .stage import Place

Lie = Literal["", "forged", "fitted", "scores"]
#: so far off that nothing is left out for its log-probabilities
ANY_DRIFT = 1e9
PHASES: Mapping[str, str] = {"forged": "rollout", "fitted": "rollout", "scores": "score"}


@dataclass(slots=True)
class Liar:
    """A `Meddler`. `texts` says what is handed in as the answer to a prompt, as tokens without the end."""

    place: Place
    kind: str
    lie: Lie
    texts: Callable[[list[int], int], list[int]]
    believed: bool
    leaves_out: bool = True
    #: audits of lies and of honest shards, and how many of either were refused
    lies: int = 0
    caught: int = 0
    honest: int = 0
    accused: int = 0
    #: answers that were left out when shards learned
    left_out: float = 0.0

    def order(self, phase: str, order_json: str) -> str:
        if phase != "learn" or self.leaves_out:
            return order_json
        order = LearnOrder.model_validate_json(order_json)
        assert order.objective is not None
        wanted = order.objective.model_copy(update={"drift": ANY_DRIFT})
        return order.model_copy(update={"objective": wanted}).canonical_json()

    def result(self, phase: str, plan: ShardPlan, seed: bytes, computed: Computed) -> Computed:
        if phase == "learn":
            self.left_out += computed.metrics["left_out"]
        if phase not in ("rollout", "score"):
            return computed
        if phase != PHASES.get(self.lie) or plan.index != 0:
            self.honest += 1
            self.accused += not self._audited(phase, plan, seed, computed)
            return computed
        lied = self._scores(plan, computed) if phase == "score" else self._answers(plan, computed)
        self.lies += 1
        is_caught = not self._audited(phase, plan, seed, lied)
        self.caught += is_caught
        return computed if is_caught and self.believed else lied

    def _audited(self, phase: str, plan: ShardPlan, seed: bytes, computed: Computed) -> bool:
        """Whether it is accepted."""
        kind = recipe(self.kind)
        audit = kind.audit(phase, plan, seed, derive_seed("draw", seed.hex()))
        assert audit is not None
        inputs = {name: Path(path) for name, path in plan.inputs.items()} | dict(computed.outputs)
        found = kind.compute("audit", audit.order_json, self.place.context(inputs, seed))
        return kind.audited(audit.order_json, computed.metrics, found.metrics).accepted

    # ---- lies -----------------------------------------------------------------------------------------------------

    def _scores(self, plan: ShardPlan, computed: Computed) -> Computed:
        order = ScoreOrder.model_validate_json(plan.order_json)
        turned = -read_scores(computed.outputs["scores"], order.of.rows)
        folder = self._folder()
        write_scores(folder, turned)
        return Computed(
            outputs={"scores": folder}, metrics={f"score.{row}": float(one) for row, one in enumerate(turned)}
        )

    def _answers(self, plan: ShardPlan, computed: Computed) -> Computed:
        order = GenerateOrder.model_validate_json(plan.order_json)
        prompts = read_prompts(Path(plan.inputs["prompts"]), max_length=order.max_length)
        told = read_answers(computed.outputs["answers"], order, prompts)
        asked = [prompts.of_row(order, row).tolist() for row in range(order.rows)]
        made = [[*self.texts(tokens, row), first.EOS] for row, tokens in enumerate(asked)]
        logprobs = [np.resize(told.logprobs_of(row), len(tokens)) for row, tokens in enumerate(made)]
        peaks = [computed.metrics[f"peak.{row}"] for row in range(order.rows)]
        if self.lie == "fitted":
            logprobs, peaks = self._fitted(order, plan, asked, made)
        tokens, offsets = flat(made)
        folder = self._folder()
        ended = np.ones(len(made), np.uint8)
        lied = Answers(tokens=tokens, offsets=offsets, logprobs=np.concatenate(logprobs), ended=ended)
        write_answers(folder, lied)
        metrics = {"rows": float(len(made)), "tokens": float(len(tokens)), "ended": float(len(made))}
        metrics |= {f"sum.{row}": float(one.sum(dtype=np.float64)) for row, one in enumerate(logprobs)}
        metrics |= {f"peak.{row}": peak for row, peak in enumerate(peaks)}
        return Computed(outputs={"answers": folder}, metrics=metrics)

    def _fitted(
        self, order: GenerateOrder, plan: ShardPlan, asked: list[list[int]], made: list[list[int]]
    ) -> tuple[list[np.ndarray], list[float]]:
        """What the policy gives these tokens, and the mean of its largest logits beside them."""
        assert order.tuning is not None
        base, cpu = Path(plan.inputs["base"]), torch.device("cpu")
        built = build(base, order.tuning, from_scratch=False, seed=b"", device=cpu)
        load_weights(built, Path(plan.inputs["checkpoint"]))
        found: list[np.ndarray] = []
        peaks: list[float] = []
        with torch.inference_mode():
            for prompt, answer in zip(asked, made, strict=True):
                logits = built.model(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0]
                before = logits[len(prompt) - 1 : -1].float()
                told = before.log_softmax(-1)
                peaks.append(float(before.max(-1).values.double().mean()))
                found.append(np.minimum(told[torch.arange(len(answer)), torch.tensor(answer)].numpy(), 0))
        return found, peaks

    def _folder(self) -> Path:
        folder = self.place.folder("lie")
        folder.mkdir(parents=True)
        return folder
