"""Rules of the house: what each may be, how a change is written down, and which one counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shardwork.errors import Conflict, InvalidInput, NotFound, ShardworkError
from shardwork_coordinator.policy.changes import RESET, Wish, decide, history, in_force
from shardwork_coordinator.policy.house import House
from shardwork_coordinator.policy.rules import Value, parsed, rule, rules, shown
from shardwork_coordinator.records import AuditEntry, PolicyChange
from shardwork_coordinator.settings import Settings
from shardwork_coordinator.store import MemoryStore
from shardwork_coordinator.store.base import Transaction

SETTINGS = Settings(data_dir=Path("nowhere"), max_open_jobs=7)


def wish(name: str, value: str | None, **more: str) -> Wish:
    return Wish(name=name, value=value, **{"actor": "ada", "reason": "because", **more})


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore()
    made.start()
    return made


async def changed(store: MemoryStore, name: str, value: str | None, *, now_ms: int = 1_000, **more: str) -> Value:
    """What counts after the change."""
    await store.write(lambda tx: decide(tx, SETTINGS, wish(name, value, **more), now_ms))
    found: Value = getattr(await store.read(lambda tx: in_force(tx, SETTINGS)), name)
    return found


def test_every_rule_has_a_meaning_bounds_and_a_default_that_is_within_them() -> None:
    assert len(rules()) == 13
    for each in rules():
        assert each.meaning and each.bounds
        assert parsed(each.name, shown(each.default)) == each.default


@pytest.mark.parametrize(
    ("name", "text", "bounds"),
    [
        ("max_open_jobs", "0", "a whole number from 1 to 1,000,000"),
        ("max_open_jobs", "1.5", "a whole number from 1 to 1,000,000"),
        ("max_open_jobs", "", "a whole number from 1 to 1,000,000"),
        ("fee_basis_points", "5001", "a whole number from 0 to 5,000"),
        ("keep_days", "0", "a number above 0 and up to 36,500"),
        ("keep_days", "nan", "a number above 0 and up to 36,500"),
        ("owner_quota_gib", "inf", "a number above 0 and up to 1,048,576"),
        ("intake", "ajar", "open or closed"),
        ("public_page", "perhaps", "true or false"),
        ("hub_allow", "acme/*\nother", "patterns of ORG/NAME"),
        ("hub_allow", "<script>", "patterns of ORG/NAME"),
    ],
)
def test_a_bad_value_is_refused_with_its_bounds(name: str, text: str, bounds: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parsed(name, text)
    assert refused.value.code == "policy.bad_value" and bounds in refused.value.why.sentence


def test_a_mistyped_rule_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(NotFound, match="fee_basis_points"):
        rule("fee_basis_point")
    # settings that are no rules can't be changed while it runs
    with pytest.raises(NotFound):
        rule("listen")


async def test_a_change_counts_and_stands_in_history_and_audit_log(store: MemoryStore) -> None:
    assert await changed(store, "max_open_jobs", " 5 ") == 5
    assert await changed(store, "public_page", "false", now_ms=2_000) is False
    assert await changed(store, "keep_days", "2.5", now_ms=3_000) == 2.5
    assert await changed(store, "hub_allow", "acme/*  other/one", now_ms=4_000) == "acme/* other/one"
    (row,) = await store.read(lambda tx: history(tx, "max_open_jobs"))
    assert (row.old_json, row.new_json, row.actor, row.reason, row.at_ms) == ("7", "5", "ada", "because", 1_000)
    assert [one.name for one in await store.read(history)] == ["hub_allow", "keep_days", "public_page", "max_open_jobs"]
    (entry,) = await store.read(lambda tx: tx.find(AuditEntry, subject="max_open_jobs"))
    assert (entry.action, entry.actor, entry.reason) == ("policy.set", "ada", "because")
    assert entry.sentence == "max_open_jobs is 5 now, after 7."
    assert json.loads(entry.evidence_json) == {"old": "7", "new": "5"}


async def test_a_reset_lets_the_setting_count_again(store: MemoryStore) -> None:
    await changed(store, "max_open_jobs", "5")
    assert await changed(store, "max_open_jobs", None, now_ms=2_000) == 7
    with pytest.raises(Conflict, match="already"):
        await changed(store, "max_open_jobs", None, now_ms=3_000)
    # the setting's own value, said aloud, holds also when the setting changes
    assert await changed(store, "max_open_jobs", "7", now_ms=4_000) == 7
    other = SETTINGS.model_copy(update={"max_open_jobs": 9})
    assert (await store.read(lambda tx: in_force(tx, other))).max_open_jobs == 7


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"reason": " "}, "policy.no_reason"),
        ({"value": "7"}, "policy.unchanged"),
        ({"value": "0"}, "policy.bad_value"),
        ({"name": "listen"}, "policy.unknown_rule"),
        ({"seen_json": "8"}, "policy.changed_meanwhile"),
    ],
)
async def test_what_is_refused_leaves_nothing(store: MemoryStore, more: dict[str, str], code: str) -> None:
    await changed(store, "max_open_jobs", "7")
    before = await store.read(lambda tx: (tx.find(PolicyChange), tx.find(AuditEntry)))
    given = {"name": "max_open_jobs", "value": "5", "actor": "ada", "reason": "because", **more}
    with pytest.raises(ShardworkError) as refused:
        await store.write(lambda tx: decide(tx, SETTINGS, Wish(**given), 2_000))
    assert refused.value.code == code
    assert await store.read(lambda tx: (tx.find(PolicyChange), tx.find(AuditEntry))) == before


async def test_the_later_change_counts_although_its_clock_is_behind(store: MemoryStore) -> None:
    await changed(store, "fee_basis_points", "300", now_ms=9_000)
    assert await changed(store, "fee_basis_points", "100", now_ms=1_000) == 100
    assert await changed(store, "fee_basis_points", "150", now_ms=9_000) == 150


async def test_what_another_version_wrote_does_not_count(store: MemoryStore) -> None:
    def write(tx: Transaction) -> None:
        for number, (name, value) in enumerate((("gravity", "9.81"), ("max_open_jobs", "-3"), ("intake", "{"))):
            tx.insert(
                PolicyChange(id=f"{number}", at_ms=number, actor="later", name=name, old_json="1", new_json=value)
            )

    await store.write(write)
    assert await store.read(lambda tx: in_force(tx, SETTINGS)) == SETTINGS


async def test_every_coordinator_of_the_database_hears_of_it_once(store: MemoryStore) -> None:
    mine, other = House(store, SETTINGS), House(store, SETTINGS.model_copy(update={"fee_basis_points": 900}))
    heard: list[int] = []
    other.follow(lambda now: heard.append(now.max_open_jobs))
    await changed(store, "max_open_jobs", "5")
    assert await mine.refresh() and await other.refresh()
    assert not await other.refresh()
    assert (mine.now.max_open_jobs, other.now.max_open_jobs, heard) == (5, 5, [7, 5])
    # what nobody changed stays each one's own setting
    assert (mine.now.fee_basis_points, other.now.fee_basis_points) == (200, 900)
    await changed(store, "max_open_jobs", None, now_ms=2_000)
    await other.refresh()
    assert heard == [7, 5, 7]


def test_a_reset_is_no_value() -> None:
    assert json.loads(RESET) is None
