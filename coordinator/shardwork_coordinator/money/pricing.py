"""Prices: the operator's rate card x work units, what a phase must reserve, and a job's quote.

Work units are tokens x parameters, from the plan and never from a report. Integers only. Pure; called by the machine
(to price shards) and by the jobs RPC (to quote).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from shardwork.errors import InvalidInput
from shardwork.jobs.spec import JobSpec, StageSpec, model_input
from shardwork.money import share_ceil
from shardwork.recipes import recipe
from shardwork.recipes.alignment.people import beside_basis_points
from shardwork.recipes.base import (
    AGREED_PHASES,
    AUDIT_PHASE,
    EXECUTOR_PHASES,
    PEOPLE_PHASES,
    PlanInput,
    Recipe,
    RoundKind,
    ShardPlan,
    StageFacts,
    StageType,
)

TERA = 10**12
#: workers that must find the same fault before a result is refused, where so many are there: reserved for each audit
WITNESSES = 2
#: phases whose shards make nothing new: they check
VERIFYING = AGREED_PHASES | {AUDIT_PHASE}
BASIS_POINTS = 10_000
#: hidden and repeated items until somebody's standing is known
TESTS_OF_ONE = 14
#: msat or work units that fit into every column and message
MOST = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCard:
    """The operator's prices. Frozen into a job when it is submitted."""

    #: msat per 10^12 work units (tokens x parameters touched, twice for those run and once more for those trained)
    msat_per_tera_unit: int = 10
    #: no shard costs less
    minimum_msat: int = 1_000
    #: the house's share on top of each shard's price
    fee_basis_points: int = 200
    #: spare copies reserved per four shards of a phase, for stragglers
    backups_per_four: int = 1

    def price(self, work_units: int) -> int:
        """What an accepted result of this size earns, msat."""
        return max(self.minimum_msat, share_ceil(work_units, self.msat_per_tera_unit, TERA))

    def price_of(self, plan: ShardPlan) -> int:
        """What an accepted result of this shard earns: what its job says, or this card."""
        return self.price(plan.work_units) if plan.price_msat is None else plan.price_msat

    def fee(self, price_msat: int) -> int:
        return share_ceil(price_msat, self.fee_basis_points, BASIS_POINTS)

    def reserve(self, prices_msat: list[int], quorum: int) -> int:
        """What a phase reserves: each shard as often as keys must agree, and spare copies of the dearest."""
        if not prices_msat:
            return 0
        with_fees = [price + self.fee(price) for price in prices_msat]
        spares = self.backups_per_four * -(-len(with_fees) // 4)
        return sum(with_fees) * quorum + max(with_fees) * spares

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> RateCard:
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePrice:
    """How one phase's price comes about. The named shard is its largest."""

    stage: str
    phase: str
    rounds: int
    shards: int
    #: keys that must agree on each shard
    copies: int
    work_units: int
    price_msat: int
    fee_msat: int
    #: of all rounds, with fees and copies
    total_msat: int
    reserve_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LargestShard:
    """What one phase asks of a worker at most."""

    stage: str
    phase: str
    recipe: str
    work_units: int
    price_msat: int
    memory_bytes: int
    order_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuote:
    """What a job will cost, before a sat moves."""

    shards: int
    rounds: int
    compute_msat: int
    verification_msat: int
    fees_msat: int
    #: escrowed at submit, and the most that can ever be spent
    reserve_msat: int
    #: work units of the longest chain of shards, for the time estimate
    serial_units: int
    total_units: int
    #: of the three above, what stages cost that may turn out not to be needed
    gated_msat: int = 0
    #: these two are not kept with the job: they are only shown
    phases: tuple[PhasePrice, ...] = ()
    largest: tuple[LargestShard, ...] = ()

    @property
    def low_msat(self) -> int:
        return self.compute_msat + self.verification_msat + self.fees_msat - self.gated_msat

    def to_json(self) -> str:
        shown = {"phases", "largest"}
        return json.dumps({name: value for name, value in asdict(self).items() if name not in shown}, sort_keys=True)


def quote(spec: JobSpec, facts: Mapping[str, StageFacts], rates: RateCard) -> JobQuote:
    """Prices every shard the job will lease, by planning each round on placeholders. Raises InvalidInput."""
    compute = verification = fees = reserve = shards = rounds = serial = total = gated = 0
    phases: list[PhasePrice] = []
    largest: list[LargestShard] = []
    for stage in spec.stages:
        measured = facts.get(stage.name, StageFacts())
        frozen = recipe(stage.recipe).freeze(stage, measured)
        before = compute + verification + fees
        for times, phase, plans in _priced_phases(spec, frozen, measured):
            quorum = copies_of(phase, plans)
            prices = [rates.price_of(plan) for plan in plans]
            if phase in VERIFYING:
                verification += times * sum(prices) * quorum
            else:
                compute += times * sum(prices) * quorum
            fees += times * quorum * sum(rates.fee(price) for price in prices)
            beside = beside_msat(rates, phase, frozen, prices, quorum)
            reserve += times * (rates.reserve(prices, reserved_copies(phase, quorum)) + beside)
            shards += times * len(plans)
            serial += times * max(plan.work_units for plan in plans)
            total += times * sum(plan.work_units for plan in plans) * quorum
            phases.append(_phase_price(stage.name, phase, times, plans, rates, beside))
            largest.append(_largest_shard(stage, phase, plans, rates))
        rounds += recipe(stage.recipe).learn_rounds(frozen)
        if stage.run_if is not None:
            gated += compute + verification + fees - before
    if max(reserve, total, serial) > MOST:
        raise InvalidInput(
            "plan.too_large",
            "The plan is larger than any coordinator could run.",
            next_step="Plan fewer rounds, shards, inner steps or rows a step.",
            work_units=total,
        )
    return JobQuote(
        shards=shards,
        rounds=rounds,
        compute_msat=compute,
        verification_msat=verification,
        fees_msat=fees,
        reserve_msat=reserve,
        serial_units=serial,
        total_units=total,
        gated_msat=gated,
        phases=tuple(phases),
        largest=tuple(largest),
    )


def _largest_shard(stage: StageSpec, phase: str, plans: list[ShardPlan], rates: RateCard) -> LargestShard:
    plan = max(plans, key=lambda one: one.work_units)
    return LargestShard(
        stage=stage.name,
        phase=phase,
        recipe=stage.recipe,
        work_units=plan.work_units,
        price_msat=rates.price_of(plan),
        memory_bytes=max(one.memory_bytes for one in plans),
        order_json=plan.order_json,
    )


def _phase_price(
    stage: str, phase: str, times: int, plans: list[ShardPlan], rates: RateCard, beside: int
) -> PhasePrice:
    copies = copies_of(phase, plans)
    prices = [rates.price_of(plan) for plan in plans]
    largest = max(plan.work_units for plan in plans)
    price = max(prices)
    return PhasePrice(
        stage=stage,
        phase=phase,
        rounds=times,
        shards=len(plans),
        copies=copies,
        work_units=largest,
        price_msat=price,
        fee_msat=rates.fee(price),
        total_msat=times * copies * sum(one + rates.fee(one) for one in prices),
        reserve_msat=times * (rates.reserve(prices, reserved_copies(phase, copies)) + beside),
    )


def _priced_phases(spec: JobSpec, stage: StageSpec, facts: StageFacts) -> list[tuple[int, str, list[ShardPlan]]]:
    """(how often, phase, its shards) for each leased phase of a stage."""
    kind = recipe(stage.recipe)
    artifacts = _placeholders(stage)
    learn = RoundKind.LEARN if kind.stage_type is StageType.ROUNDS else RoundKind.MAP
    rounds = [(1, RoundKind.SETUP, 0), (kind.learn_rounds(stage), learn, 1)]
    if kind.stage_type is StageType.ROUNDS:
        rounds.append((1, RoundKind.PUBLISH, kind.learn_rounds(stage) + 1))
    found: list[tuple[int, str, list[ShardPlan]]] = []
    for times, round_kind, number in rounds:
        for phase in kind.phases(round_kind, artifacts):
            if phase in EXECUTOR_PHASES:
                continue
            given = PlanInput(
                job_id="quote",
                job_name=spec.name,
                stage=stage,
                round_number=number,
                phase=phase,
                facts=facts,
                artifacts=artifacts,
                numbers={"eval_rows": 512.0},
            )
            plans = list(kind.plan(given))
            found.append((times, phase, plans))
            if checks := audits_of(kind, phase, plans):
                found.append((times, AUDIT_PHASE, checks))
    return found


def reserved_copies(phase: str, copies: int) -> int:
    """Results of each shard that are reserved for: a second opinion on what an audit found fault with, as well."""
    return WITNESSES if phase == AUDIT_PHASE else copies


def copies_of(phase: str, plans: Sequence[ShardPlan]) -> int:
    """Accepted results of each shard."""
    return max([2 if phase in AGREED_PHASES else 1, *(plan.copies for plan in plans)])


def audits_of(kind: Recipe, phase: str, plans: Sequence[ShardPlan]) -> list[ShardPlan]:
    """What checking samples of these shards' results takes, whichever rows will be drawn."""
    found = (kind.audit(phase, plan, bytes(32), bytes(32)) for plan in plans)
    return [audit for audit in found if audit is not None]


def beside_msat(rates: RateCard, phase: str, stage: StageSpec, prices: Sequence[int], copies: int) -> int:
    """What a people phase reserves for hidden and repeated items: three times their shares, because newcomers see
    more of them, and at least what tells twice as many newcomers from guessers as judge one item."""
    share = beside_basis_points(stage) if phase in PEOPLE_PHASES else 0
    if not share or not prices:
        return 0
    with_fees = [price + rates.fee(price) for price in prices]
    shared = share_ceil(copies * sum(with_fees), 3 * share, BASIS_POINTS)
    return max(shared, 2 * copies * TESTS_OF_ONE * max(with_fees))


class _placeholders(dict[str, str]):
    """Artifacts that do not exist yet: any name reads as an empty id, so that a plan can be priced."""

    def __init__(self, stage: StageSpec) -> None:
        held_out = {"eval": ""} if stage.eval_data or stage.eval_fraction is not None else {}
        super().__init__({**held_out, **{model_input(name): "" for name in stage.models}})

    def __missing__(self, key: str) -> str:
        return ""
