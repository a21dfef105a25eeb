"""Keys and stores that coordinators on one database must share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shardwork.errors import Conflict, InvalidInput
from shardwork_coordinator.cluster.identity import check_identity, check_keys_folder, storage_id
from shardwork_coordinator.records import Cluster
from shardwork_coordinator.store import Store

OURS = Cluster(
    id="cluster", ca_sha256="ca", coordinator_key="signing", operator_key="operator", storage_id="store", created_ms=1
)


async def test_the_first_one_is_taken_and_the_same_again(store: Store) -> None:
    await check_identity(store, OURS)
    await check_identity(store, replace(OURS, created_ms=2))
    assert await store.read(lambda tx: tx.find(Cluster)) == [OURS]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ca_sha256": "x"}, "cluster.other_keys"),
        ({"coordinator_key": "x"}, "cluster.other_keys"),
        ({"operator_key": "x"}, "cluster.other_keys"),
        ({"storage_id": "x"}, "cluster.other_storage"),
    ],
)
async def test_another_is_refused_with_both_fingerprints(store: Store, change: dict[str, str], code: str) -> None:
    await check_identity(store, OURS)
    with pytest.raises(Conflict) as caught:
        await check_identity(store, replace(OURS, **change))  # type: ignore[arg-type]
    (name,) = change
    assert caught.value.code == code
    assert (caught.value.why.evidence["ours"], caught.value.why.evidence["database"]) == ("x", getattr(OURS, name))


def test_a_folder_keeps_its_name_and_another_has_another(tmp_path: Path) -> None:
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    assert storage_id(one) == storage_id(one) != storage_id(other)


def test_a_folder_without_all_keys_gets_no_new_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_keys_folder(tmp_path / "mistyped")
    assert caught.value.code == "keys.incomplete"
    assert caught.value.why.evidence["missing"] == "authority.pem, coordinator.key, operator.key"
    assert not (tmp_path / "mistyped").exists()
