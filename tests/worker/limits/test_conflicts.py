"""Limits that contradict each other or this machine are found before the first shard."""

from __future__ import annotations

from typing import Any

import pytest

from shardwork.errors import InvalidInput
from shardwork_worker.limits.conflicts import check_memory, conflicts
from shardwork_worker.settings import WorkerSettings

GIB = 1024**3


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"memory_share": 0.01}, "limits.memory_share_too_small"),
        ({"memory_share": 0.06}, "limits.memory_share_too_small"),
        ({"memory_share": 0.5, "sandbox": "off", "device": "cpu"}, "limits.memory_share_unheld"),
    ],
)
def test_memory_in_which_no_shard_could_succeed_is_refused(settings: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_memory(WorkerSettings(**settings), 16 * GIB)
    assert caught.value.code == code and "memory_share" in caught.value.why.next_step


def test_the_least_share_that_is_named_is_taken() -> None:
    with pytest.raises(InvalidInput) as caught:
        check_memory(WorkerSettings(memory_share=0.01), 16 * GIB)
    assert "163.8 MiB of" in str(caught.value) and "0.07 or more" in str(caught.value)
    check_memory(WorkerSettings(memory_share=0.07), 16 * GIB)
    # a small machine that is lent whole is its owner's to try
    check_memory(WorkerSettings(), GIB // 2)


@pytest.mark.parametrize(
    ("settings", "codes"),
    [
        ({}, []),
        ({"power_watts": 200}, ["limits.power_unused"]),
        ({"donate": True, "minimum_sats": 3}, ["limits.donates_for_a_price"]),
        ({"donate": True, "payout_address": "a@b"}, ["limits.donates_to_an_address"]),
        ({"keep_free_bytes": "2TiB"}, ["limits.keeps_whole_disk"]),
        ({"hours": "22:00-07:00", "keep_free_bytes": "1GB", "minimum_sats": 3, "payout_address": "a@b"}, []),
    ],
)
def test_what_the_owner_may_not_have_meant_is_told(settings: dict[str, Any], codes: list[str]) -> None:
    told = list(conflicts(WorkerSettings(**settings), "cpu", disk_bytes=1024 * GIB))
    assert [why.code for why in told] == codes and all(why.next_step for why in told)
    assert not list(conflicts(WorkerSettings(power_watts=200), "cuda:0", disk_bytes=GIB))


@pytest.mark.parametrize(
    "wrong",
    [{"minimum_sats": 10**20}, {"minimum_msat_per_tera_unit": 10**20}, {"payout_address": "not an address"}],
)
def test_what_could_not_be_sent_or_paid_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        WorkerSettings(**wrong)
