"""The registry of recipes: this folder's kinds plus entry points named `shardwork.recipes`.

Used by the coordinator (plan, check), the worker's child (compute), and the client (Params, plan preview).
"""

from __future__ import annotations

import difflib
from functools import cache
from importlib.metadata import entry_points

from ..errors import InvalidInput
from .base import Recipe


@cache
def _registry() -> dict[str, Recipe]:
    from .alignment.consensus import Consensus
    from .alignment.dpo import Dpo
    from .alignment.generate import Generate
    from .alignment.grpo import Grpo
    from .alignment.judge import Judge
    from .alignment.people import People
    from .alignment.ppo import Ppo
    from .alignment.reward import Reward
    from .count import Count
    from .pretrain import Pretrain
    from .sft import Sft

    learning: tuple[Recipe, ...] = (Pretrain(), Sft(), Reward(), Dpo(), Ppo(), Grpo())
    mapping: tuple[Recipe, ...] = (Count(), Generate(), Judge(), People(), Consensus())
    found: dict[str, Recipe] = {recipe.kind: recipe for recipe in (*learning, *mapping)}
    for point in entry_points(group="shardwork.recipes"):
        found.setdefault(point.name, point.load()())
    return found


def kinds() -> list[str]:
    """Every known kind, sorted."""
    return sorted(_registry())


def recipe(kind: str) -> Recipe:
    """The recipe of this kind. Raises InvalidInput "recipe.unknown" that names the nearest one."""
    found = _registry().get(kind)
    if found is None:
        near = difflib.get_close_matches(kind, kinds(), 1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known recipes: {', '.join(kinds())}."
        raise InvalidInput("recipe.unknown", f"There is no recipe {kind!r}.", next_step=hint, recipe=kind)
    return found
