"""What providers may measure with, and the rates they are told."""

from __future__ import annotations

import pytest

from shardwork.clock import ManualClock
from shardwork.errors import InvalidInput, LimitExceeded
from shardwork.identity.role import Role
from shardwork.v1 import work_pb2
from shardwork_coordinator.money.pricing import RateCard
from shardwork_coordinator.rpc.auth import Caller
from shardwork_coordinator.rpc.measure import MOST_A_KEY, MOST_BYTES, MeasureDesk, get_rates, measure

WORKER = Caller("w", b"\x01" * 32, Role.WORKER)


def test_bytes_are_carried_both_ways_with_the_time() -> None:
    clock = ManualClock()
    desk = MeasureDesk(clock=clock, rates=RateCard(), asset="simulated")
    answer = measure(work_pb2.MeasureRequest(payload=b"x" * 10, answer_bytes=MOST_BYTES), WORKER, desk)
    assert (len(answer.payload), answer.now_unix_ms) == (MOST_BYTES, clock.now_ms())
    with pytest.raises(InvalidInput, match="at most"):
        measure(work_pb2.MeasureRequest(answer_bytes=MOST_BYTES + 1), WORKER, desk)


def test_a_key_gets_so_many_bytes_a_minute_and_others_theirs() -> None:
    clock = ManualClock()
    desk = MeasureDesk(clock=clock, rates=RateCard(), asset="simulated")
    whole = work_pb2.MeasureRequest(answer_bytes=MOST_BYTES)
    for _ in range(MOST_A_KEY // MOST_BYTES):
        measure(whole, WORKER, desk)
    with pytest.raises(LimitExceeded):
        measure(whole, WORKER, desk)
    assert measure(whole, Caller("other", b"", Role.WORKER), desk).payload
    clock.advance(60)
    assert measure(whole, WORKER, desk).payload


def test_rates_are_those_of_the_card() -> None:
    desk = MeasureDesk(clock=ManualClock(), rates=RateCard(msat_per_tera_unit=7, minimum_msat=9), asset="bitcoin")
    assert get_rates(desk) == work_pb2.GetRatesResponse(msat_per_tera_unit=7, minimum_msat=9, asset="bitcoin")
