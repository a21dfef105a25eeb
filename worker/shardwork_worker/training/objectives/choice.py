# pyright: standard
"""Which objective an order asks for. Called by `learn` and `measured`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shardwork.errors import InvalidInput
from shardwork.recipes.objectives import PolicyObjective, PreferenceObjective, RewardObjective
from shardwork.recipes.orders import EvaluateOrder, LearnOrder

from ..batches import TrainRows
from ..model import Built
from .item_learning import Arithmetic, ItemLearning
from .items import TrainItems
from .objective import Objective
from .policy import PolicyLearning
from .preference import Preference
from .reader import Reader
from .reward import Reward
from .rollouts import read_rollouts


def objective_of(order: LearnOrder, inputs: Mapping[str, Path], seed: bytes, built: Built) -> Objective:
    """Of an order that has one. Raises InvalidInput "objective.other_head" when the model has not the head for it."""
    wanted = order.objective
    _check_head(order, built)
    if isinstance(wanted, PolicyObjective):
        rollouts = read_rollouts(wanted, inputs, order.max_length, built.vocabulary)
        return PolicyLearning(reader_of(order, inputs["base"], built, rollouts.pad_token_id), order, rollouts, seed)
    rows = TrainRows(inputs["train"], order.max_length, built.vocabulary)
    arithmetic = arithmetic_of(order, reader_of(order, inputs["base"], built, rows.pad_token_id))
    return ItemLearning(arithmetic, order, TrainItems(rows, arithmetic.per_item))


def arithmetic_of(order: LearnOrder | EvaluateOrder, reader: Reader) -> Arithmetic:
    """Raises InvalidInput "objective.no_items" for a policy's, which learns from no prepared rows."""
    match order.objective:
        case RewardObjective():
            return Reward(reader, order.objective)
        case PreferenceObjective():
            return Preference(reader, order.objective, order.max_length)
        case _:
            raise InvalidInput(
                "objective.no_items",
                "A policy has no held-out loss: what its answers are worth is measured instead.",
                next_step="Report it: the order is not one that this recipe makes.",
            )


def reader_of(order: LearnOrder | EvaluateOrder, base: Path, built: Built, pad_token_id: int) -> Reader:
    scored = built.tuning.head == "score"
    return Reader(
        built=built,
        base=base,
        from_scratch=order.from_scratch,
        precision=order.precision,
        # a score is read at the last token that is no padding, by the model's own idea of it
        pad_token_id=built.config.get_text_config().pad_token_id if scored else pad_token_id,
    )


def _check_head(order: LearnOrder, built: Built) -> None:
    match order.objective:
        case RewardObjective():
            wanted = "score"
        case PolicyObjective(advantage="ppo"):
            wanted = "value"
        case _:
            wanted = ""
    if built.tuning.head != wanted:
        raise InvalidInput(
            "objective.other_head",
            "The order's objective and the head of its model do not belong together.",
            next_step="Report it: the order is not one that this recipe makes.",
            head=built.tuning.head or "none",
            wanted=wanted or "none",
        )
