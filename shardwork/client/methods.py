"""What each tuning method would cost: the table that a plan shows where a stage says `method: auto`.

Asks the coordinator for a quote of each method that the model and the job's keys allow, and goes back to the cheapest
when the chosen one does not fit the budget. Used by `plan`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from ..errors import InvalidInput
from ..money import Msat, show
from .facts import StageMeasure, with_other_method
from .results import Quote

METHODS = ("lora", "partial", "full")
_WIDTH = {"int8": 1, "bf16": 2, "fp32": 4}

#: prices the job with these stages
Pricing = Callable[[tuple[StageMeasure, ...]], Awaitable[Quote]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodOption:
    """One way to tune a stage, by the job's other settings."""

    stage: str
    method: str
    is_chosen: bool
    #: why it can't be chosen; empty when it can, and then the figures hold
    closed: str = ""
    trained_params: int = 0
    #: of all parameters
    share: float = 0.0
    #: a worker needs about so much for weights, gradients and moments
    memory_bytes: int = 0
    #: of one shard; what comes down includes the base once
    up_bytes: int = 0
    down_bytes: int = 0
    #: the low estimate and the reserve of the whole job
    cost_msat: int = 0
    reserve_msat: int = 0


async def weigh(
    stages: tuple[StageMeasure, ...], budget_msat: int, price: Pricing
) -> tuple[tuple[StageMeasure, ...], tuple[MethodOption, ...]]:
    """The stages with affordable methods, and what each method of a stage with `method: auto` would cost."""
    options: list[MethodOption] = []
    for at, stage in enumerate(stages):
        if stage.choice is None:
            continue
        found = [await _option(stages, at, method, price) for method in METHODS]
        chosen = _within(found, str(stages[at].stage.params["method"]), budget_msat)
        if chosen != stage.choice.method:
            stages = (*stages[:at], _cheaper(stage, chosen, budget_msat), *stages[at + 1 :])
        options += [replace(option, is_chosen=option.method == chosen) for option in found]
    return stages, tuple(options)


async def _option(stages: tuple[StageMeasure, ...], at: int, method: str, price: Pricing) -> MethodOption:
    name, choice = stages[at].stage.name, stages[at].choice
    closed = choice.closed.get(method, "") if choice else ""
    if closed:
        return MethodOption(stage=name, method=method, is_chosen=False, closed=closed)
    try:
        other = with_other_method(stages[at], method)
    except InvalidInput as error:
        return MethodOption(stage=name, method=method, is_chosen=False, closed=error.why.sentence)
    quote = await price((*stages[:at], other, *stages[at + 1 :]))
    run, trained = other.facts.run_params, other.facts.trained_params
    sent = 3 * _WIDTH.get(str(other.stage.params.get("encoding", "int8")), 1) * trained
    return MethodOption(
        stage=name,
        method=method,
        is_chosen=False,
        trained_params=trained,
        share=trained / max(run, 1),
        memory_bytes=4 * run + 16 * trained,
        up_bytes=sent,
        down_bytes=sent + 4 * run,
        cost_msat=quote.estimate_low_msat,
        reserve_msat=quote.reserve_msat,
    )


def _within(options: list[MethodOption], chosen: str, budget_msat: int) -> str:
    """The chosen method, or the cheapest open one when only that fits the budget."""
    open_ones = {option.method: option for option in options if not option.closed}
    if chosen not in open_ones or open_ones[chosen].reserve_msat <= budget_msat:
        return chosen
    fitting = [option for option in open_ones.values() if option.reserve_msat <= budget_msat]
    return min(fitting, key=lambda option: option.reserve_msat).method if fitting else chosen


def _cheaper(stage: StageMeasure, method: str, budget_msat: int) -> StageMeasure:
    """The stage by the method that the budget allows, its factor of resources saying so."""
    changed = with_other_method(stage, method)
    if stage.choice is None:
        return changed
    budget = f"The budget of {show(Msat(budget_msat))} holds {method}, not {stage.choice.method}."
    factors = tuple((name, f"{text} {budget}" if name == "resources" else text) for name, text in stage.choice.factors)
    return replace(changed, choice=replace(stage.choice, method=method, factors=factors))
