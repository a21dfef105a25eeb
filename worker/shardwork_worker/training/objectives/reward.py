# pyright: standard
"""A reward model: from pairs (Bradley-Terry), or from scores of single answers (squared error).

Pairs: -log sigmoid(r(x, chosen) - r(x, rejected)), Ouyang et al. (arXiv 2203.02155), eq. 1 for K = 2; with `centre`
times (r(x, chosen) + r(x, rejected))^2 of Eisenstein et al. (arXiv 2312.09244), section 3. Called by
`item_learning` and `measured`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardwork.recipes.objectives import RewardObjective

from .items import Item, Referred, Shared, laid
from .reader import Reader
from .verdicts import Verdicts, bradley_terry, values_of


@dataclass(frozen=True, slots=True)
class Reward:
    """The arithmetic, for learning and measuring alike."""

    reader: Reader
    objective: RewardObjective

    @property
    def measures(self) -> tuple[str, ...]:
        return ("accuracy", "margin") if self.per_item == 2 else ()

    @property
    def per_item(self) -> int:
        return 2 if self.objective.data == "pairs" else 1

    def referred(self, batches: Sequence[Sequence[Item]], size: int) -> list[list[Referred]]:
        """A reward has no reference."""
        return [[Referred(item) for item in items] for items in batches]

    def shared(self, batch: Sequence[Referred], size: int) -> Shared:
        return Shared(len(batch))

    def verdicts(self, these: Sequence[Referred], shared: Shared, *, learning: bool) -> Verdicts:
        items = [one.item for one in these]
        scores = self.reader.scores(laid(items), learning=learning)
        values = values_of([item.value for item in items], scores)
        if self.objective.data == "scores":
            return Verdicts((scores - values) ** 2)
        chosen, rejected = scores.chunk(2)
        losses = bradley_terry(chosen - rejected, values)
        if self.objective.centre:
            losses = losses + self.objective.centre * (chosen + rejected) ** 2
        return Verdicts(losses, chosen - rejected)
