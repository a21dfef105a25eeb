"""Cells: which runs are measured, in which order, and at which rates.

A cell is one run to its end: a job's rounds, data parallelism, or one of the shards alone. Rates are multiples of the
regime's own; `rounds` and `data parallel` take the best of the same grid, found with seed 0 and kept for other seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shardwork.recipes.learning import LearningRecipe
from shardwork.recipes.pretrain import Pretrain
from shardwork.recipes.sft import Sft

from .text import PRESET, PROMPT, VOCABULARY

ROUNDS, PARALLEL, ALONE = "rounds", "data parallel", "alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    recipe: LearningRecipe
    params: Mapping[str, Any]
    #: what the preset's config is changed to
    shape: Mapping[str, float]
    #: inner steps of a whole job
    steps: int
    #: rows a step of one shard
    batch: int = 8
    #: rows that choose a candidate, and as many that judge a round and make the curves
    held_out: int = 32
    prompt: int = PROMPT
    #: data parallelism did best at this multiple of the rate
    peer_rate: float = 2.0
    #: starts from a base that has read prose
    warm: bool = True


#: the preset made smaller: a step costs 14 ms of one core
SMALLER = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "initializer_range": 0.0875,
}
#: and larger: 3.1M parameters, a step of a shard costs 90 ms
LARGER = {
    "hidden_size": 256,
    "intermediate_size": 624,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "initializer_range": 0.0438,
}
REGIMES: Mapping[str, Regime] = {
    # rates near the best of data parallelism: what `auto` takes is meant for models that are not this small, and a
    # baseline that learns too slowly is easily met
    "full": Regime(recipe=Sft(), params={"method": "full", "learning_rate": 4e-3}, shape=SMALLER, steps=200),
    "lora": Regime(recipe=Sft(), params={"method": "lora", "learning_rate": 8e-3}, shape=SMALLER, steps=200),
    "scratch": Regime(
        recipe=Pretrain(),
        params={"preset": PRESET, "vocab_size": VOCABULARY, "learning_rate": 2.6e-3},
        shape=LARGER,
        steps=200,
        batch=4,
        held_out=16,
        prompt=0,
        peer_rate=1.0,
        warm=False,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run. `inner_steps` and `rows` of data parallelism are 10 and iid: its every step reads from every topic."""

    regime: str
    kind: str
    shards: int
    rate: float
    seed: int
    inner_steps: int = 10
    rows: str = "iid"

    @property
    def name(self) -> str:
        return f"{self.regime}, {self.kind}, K={self.shards}, H={self.inner_steps}, {self.rows}, x{self.rate:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A line of the table: a job shape, and the grid of rates of both sides with the best first."""

    regime: str
    shards: int
    inner_steps: int = 10
    rows: str = "iid"


FIRST = (
    *(Wanted(regime="full", shards=shards, inner_steps=steps) for shards in (8, 4) for steps in (10, 25)),
    *(Wanted(regime="lora", shards=shards) for shards in (8, 4)),
    *(Wanted(regime="scratch", shards=shards) for shards in (4, 8)),
)
THEN = (
    *(Wanted(regime="full", shards=shards, rows="by topic") for shards in (4, 8)),
    *(Wanted(regime="lora", shards=shards, rows="by topic") for shards in (4, 8)),
    *(Wanted(regime="full", shards=shards, inner_steps=25, rows="by topic") for shards in (4, 8)),
    *(Wanted(regime="scratch", shards=shards, rows="by topic") for shards in (4, 8)),
)
