"""Terms: what a worker asks, said the same to the coordinator and checked again on every offer."""

from __future__ import annotations

import pytest

from shardwork.v1 import work_pb2
from shardwork_worker.offer import FREE, Terms, terms_of
from shardwork_worker.settings import WorkerSettings

PICKY = Terms(minimum_msat=1_000, minimum_msat_per_tera_unit=20)


@pytest.mark.parametrize(
    ("terms", "price", "units", "code"),
    [
        (FREE, 0, 10**15, None),
        (PICKY, 999, 0, "worker.below_minimum"),
        (PICKY, 1_000, 0, None),
        (PICKY, 20_000, 10**15, None),
        (PICKY, 19_999, 10**15, "worker.below_minimum_rate"),
        (Terms(donates=True), 0, 10**15, None),
    ],
)
def test_an_offer_is_taken_at_the_asked_price_and_not_below(
    terms: Terms, price: int, units: int, code: str | None
) -> None:
    why = terms.refusal(price, units)
    assert (why.code if why else None) == code
    assert why is None or (why.next_step and why.evidence["price_msat"] == str(price))


def test_a_price_is_told_with_where_it_comes_from() -> None:
    lease = work_pb2.LeaseOffer(price_msat=10_000, work_units=10**15)
    assert "10 msat for 10^12" in FREE.price(lease)
    assert "gives its work" in Terms(donates=True).price(work_pb2.LeaseOffer(work_units=10**15))
    assert FREE.price(work_pb2.LeaseOffer(price_msat=1_000)) == "1 sat"


def test_who_donates_asks_for_nothing() -> None:
    asked = WorkerSettings(minimum_sats=5, minimum_msat_per_tera_unit=7)
    assert terms_of(asked) == Terms(minimum_msat=5_000, minimum_msat_per_tera_unit=7)
    assert terms_of(asked.model_copy(update={"donate": True})) == Terms(donates=True)
