"""Prices: integers, from the plan, and a reserve that covers whatever a phase may cost."""

from __future__ import annotations

import pytest

from shardwork.errors import InvalidInput
from shardwork.jobs.spec import PlanSection
from shardwork.recipes.base import StageFacts
from shardwork_coordinator.money.pricing import MOST, RateCard, quote

from .simulation import FACTS, count_job, sft_job

RATES = RateCard()


def test_a_price_is_rounded_up_and_never_below_the_least() -> None:
    assert RATES.price(0) == RATES.price(1) == RATES.minimum_msat
    assert RATES.price(10**15) == 10_000
    assert RATES.price(10**15 + 1) == 10_001


def test_the_fee_is_a_share_rounded_up() -> None:
    assert RATES.fee(1_000) == 20
    assert RATES.fee(1_001) == 21
    assert RateCard(fee_basis_points=0).fee(10**9) == 0


@pytest.mark.parametrize(("shards", "spares"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_a_phase_reserves_each_shard_per_key_and_spares_of_the_dearest(shards: int, spares: int) -> None:
    prices = [1_000] * (shards - 1) + [5_000]
    assert RATES.reserve(prices, 1) == (shards - 1) * 1_020 + 5_100 + spares * 5_100
    assert RATES.reserve(prices, 2) == 2 * ((shards - 1) * 1_020 + 5_100) + spares * 5_100
    assert RATES.reserve([], 2) == 0


def test_rates_survive_their_journey_through_a_job() -> None:
    card = RateCard(msat_per_tera_unit=7, minimum_msat=3, fee_basis_points=11, backups_per_four=2)
    assert RateCard.from_json(card.to_json()) == card


def test_a_quote_grows_with_rounds_and_its_parts_add_up() -> None:
    one = quote(sft_job(rounds=1), {"tune": FACTS}, RATES)
    two = quote(sft_job(rounds=2), {"tune": FACTS}, RATES)
    assert (one.rounds, two.rounds) == (1, 2)
    assert one.reserve_msat < two.reserve_msat and one.shards < two.shards
    assert one.low_msat == one.compute_msat + one.verification_msat + one.fees_msat <= one.reserve_msat


def test_larger_models_cost_more_and_whatever_was_declared_decides() -> None:
    small = quote(sft_job(), {"tune": FACTS}, RATES)
    large = quote(sft_job(), {"tune": StageFacts(run_params=10**12, trained_params=10**9)}, RATES)
    assert large.compute_msat > 100 * small.compute_msat


def test_a_map_stage_needs_no_second_key() -> None:
    assert quote(count_job(), {"words": FACTS}, RATES).verification_msat == 0


def test_a_plan_beyond_all_columns_is_refused() -> None:
    job = sft_job()
    plan = PlanSection(rounds=10_000, shards_per_round=2, inner_steps=10_000)
    stage = job.stages[0].model_copy(update={"plan": plan, "params": {"allow_large": True}})
    huge = job.model_copy(update={"stages": [stage]})
    with pytest.raises(InvalidInput) as refused:
        quote(huge, {"tune": StageFacts(run_params=10**13, trained_params=10**13)}, RATES)
    assert refused.value.code == "plan.too_large"
    assert quote(huge, {"tune": FACTS}, RATES).reserve_msat < MOST
