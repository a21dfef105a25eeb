"""The plan of a job: what was measured in its files, and the coordinator's price for it, before a sat moves.

`measure` is local and needs no coordinator; `price` asks for the quote and the wallet. `Plan.check_affordable` is the
one place that says no for money. Used by `asynchronous`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InvalidInput, NotEnoughFunds
from ..jobs.file import LoadedJob
from ..jobs.paths import StageFiles
from ..jobs.spec import BudgetSection, JobSpec
from ..models.hub import is_remote
from ..money import MSAT_PER_SAT, Msat, ceil_sats, sats, show, whole_sats
from ..session import Session
from ..v1 import jobs_pb2
from ..why import Why
from . import calls, received
from .facts import StageMeasure, measure_stages, placed, problem_why, with_other_method
from .hub import HubChoice
from .progress import OnProgress
from .results import Quote
from .validation import validate, validate_values

#: how a job may be given: a job file, its content as a mapping (flat or staged), or a JobSpec
JobSource = str | os.PathLike[str] | Mapping[str, object] | JobSpec


METHODS = ("lora", "partial", "full")
_WIDTH = {"int8": 1, "bf16": 2, "fp32": 4}

#: prices the job with these stages
Pricing = Callable[[tuple[StageMeasure, ...]], Awaitable[Quote]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A valid job with usable data."""

    loaded: LoadedJob
    stages: tuple[StageMeasure, ...]

    @property
    def spec(self) -> JobSpec:
        """As it will be sent."""
        return self.loaded.spec

    @property
    def budget_msat(self) -> Msat:
        return sats(self.loaded.spec.budget.max_sats)

    def capped(self, max_sats: int) -> Measured:
        """The same with another budget. Raises InvalidInput "amount.not_whole_sats"."""
        budget = BudgetSection(max_sats=whole_sats(max_sats) // MSAT_PER_SAT)
        spec = self.loaded.spec.model_copy(update={"budget": budget})
        return replace(self, loaded=replace(self.loaded, spec=spec))

    def facts(self) -> list[jobs_pb2.StageFacts]:
        return [stage.wire_facts() for stage in self.stages]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A measured job with its quote and the wallet's balance at that moment."""

    measured: Measured
    quote: Quote
    available_msat: int
    #: "simulated" or "bitcoin"
    asset: str
    #: what each method would cost, for stages with `method: auto`
    options: tuple[MethodOption, ...] = ()

    @property
    def spec(self) -> JobSpec:
        return self.measured.spec

    def options_of(self, stage: str) -> list[MethodOption]:
        """What each method would take in a stage with `method: auto`; empty for others."""
        return [option for option in self.options if option.stage == stage]

    @property
    def warnings(self) -> list[Why]:
        """From the job file, from the data and from the coordinator, in this order."""
        found = [problem_why(problem) for problem in self.measured.loaded.warnings]
        for stage in self.measured.stages:
            found += stage.warnings
        return found + list(self.quote.warnings)

    def _repr_html_(self) -> str:
        from .display.notebook import plan_html

        return plan_html(self)

    def check_affordable(self) -> None:
        """Raises InvalidInput "budget.below_plan" (exit 3), or NotEnoughFunds "wallet.below_plan" (exit 6)."""
        needed, budget = self.quote.reserve_msat, self.measured.budget_msat
        if budget < needed:
            raise InvalidInput(
                "budget.below_plan",
                f"The budget of {show(budget)} is below the {show(needed)} that the plan reserves.",
                next_step=f"Set budget.max_sats or --max-sats to {ceil_sats(Msat(needed))}, or plan less.",
                file=self.measured.loaded.file,
                key="budget.max_sats",
            )
        missing = needed - self.available_msat
        if missing > 0:
            raise NotEnoughFunds(
                "wallet.below_plan",
                f"Your wallet has {show(self.available_msat)}, and the plan reserves {show(needed)}.",
                next_step=f"Put the rest in:  shardwork wallet deposit {ceil_sats(Msat(missing))}",
                missing=show(missing),
            )


def read(job: JobSource) -> LoadedJob:
    """A valid job from whichever form it has. Raises JobFileInvalid.

    Relative paths of a job file are read from its folder, those of the other forms from the working directory.
    """
    if isinstance(job, str | os.PathLike):
        return validate(Path(job))
    values = job.model_dump(by_alias=True, mode="json", exclude_none=True) if isinstance(job, JobSpec) else job
    return validate_values(values, Path())


def measure(
    job: JobSource,
    *,
    max_sats: int | None = None,
    on_progress: OnProgress | None = None,
    hub: Mapping[str, HubChoice] | None = None,
) -> Measured:
    """Validates the job and measures every stage's data and model. Raises InvalidInput with all problems.

    `max_sats` replaces the job's own budget. `hub`: what `hub.resolve` answered, for a job that names hub models.
    """
    loaded = _with_hub(read(job), hub or {})
    if max_sats is not None:
        loaded = Measured(loaded=loaded, stages=()).capped(max_sats).loaded
    return _with_stages(loaded, tuple(measure_stages(loaded, on_progress=on_progress)))


def _with_stages(loaded: LoadedJob, stages: tuple[StageMeasure, ...]) -> Measured:
    """A length that had to fit the model, or a method that was chosen, is part of what is agreed to, so it travels."""
    spec = loaded.spec.model_copy(update={"stages": [each.stage for each in stages]})
    return Measured(loaded=replace(loaded, spec=spec), stages=stages)


def _with_hub(loaded: LoadedJob, hub: Mapping[str, HubChoice]) -> LoadedJob:
    """The job with every hub model pinned, and measured as if its folder lay here."""
    stages, files = list(loaded.spec.stages), dict(loaded.files)
    for position, stage in enumerate(stages):
        named = stage.base_model or ""
        if not is_remote(named):
            continue
        if named not in hub:
            raise InvalidInput(
                "hub.not_resolved",
                f"{named} was not looked up.",
                next_step="Give `measure` what `shardwork.client.hub.resolve` answers.",
                key="base_model",
            )
        stages[position] = stage.model_copy(update={"base_model": hub[named].pinned})
        files[stage.name] = replace(files.get(stage.name, StageFiles()), base_model=hub[named].folder)
    return replace(loaded, spec=loaded.spec.model_copy(update={"stages": stages}), files=files)


async def price(session: Session, measured: Measured) -> Plan:
    async def quoted(stages: tuple[StageMeasure, ...]) -> Quote:
        job = _with_stages(measured.loaded, stages)
        request = jobs_pb2.QuoteJobRequest(spec_json=job.spec.canonical_json(), facts=job.facts())
        try:
            return received.quote(await calls.quote(session, request))
        except InvalidInput as error:
            raise placed(error, measured.loaded, error.why.evidence.get("stage", "")) from None

    stages, options = await _weigh(measured.stages, measured.budget_msat, quoted)
    quote, balance = await quoted(stages), await calls.balance(session)
    return Plan(
        measured=_with_stages(measured.loaded, stages),
        quote=quote,
        options=options,
        available_msat=balance.available_msat,
        asset=balance.asset,
    )


# ---- method: auto ---------------------------------------------------------------------------------------------------


async def _weigh(
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
