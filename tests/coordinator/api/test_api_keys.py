"""A requester's keys: made from a digest, listed, revoked; nobody else's are seen or ended."""

from __future__ import annotations

import pytest

from shardwork import api_key
from shardwork.errors import Conflict, InvalidInput, LimitExceeded, NotFound
from shardwork.identity.role import Role
from shardwork.v1 import api_keys_pb2 as pb
from shardwork_coordinator.records import ApiKey
from shardwork_coordinator.rpc import api_keys
from shardwork_coordinator.rpc.auth import Caller
from shardwork_coordinator.store import Store

ANNA, BERT = (Caller(name, b"\x01" * 32, Role.REQUESTER) for name in ("anna", "bert"))
DAY_MS = 24 * 3600 * 1000


async def made(store: Store, caller: Caller, secret: str = "", *, days: int = 0, now_ms: int = 1) -> pb.ApiKeyView:
    digest = api_key.digest(secret or api_key.draw())
    request = pb.CreateApiKeyRequest(name="n", secret_sha256=digest, expires_days=days)
    return (await store.write(lambda tx: api_keys.create_api_key(tx, request, caller, now_ms))).key


def test_a_drawn_secret_has_the_form_and_no_other_text_does() -> None:
    secret = api_key.draw()
    assert api_key.is_secret(secret) and secret != api_key.draw()
    assert not any(map(api_key.is_secret, ("", secret + "x", secret[:-1], "sk-" + secret[13:], secret[:-1] + "\n")))


async def test_the_same_secret_again_is_the_same_key(store: Store) -> None:
    secret = api_key.draw()
    first = await made(store, ANNA, secret, days=2)
    assert first.expires_unix_ms == 1 + 2 * DAY_MS
    assert await made(store, ANNA, secret, now_ms=9) == first
    with pytest.raises(Conflict, match="another requester"):
        await made(store, BERT, secret)
    rows = await store.read(lambda tx: tx.find(ApiKey))
    assert [secret in str(row) for row in rows] == [False]


async def test_a_revoked_key_stays_listed_and_another_ones_is_unknown(store: Store) -> None:
    key = await made(store, ANNA)
    request = pb.RevokeApiKeyRequest(id=key.id[:6])
    with pytest.raises(NotFound):
        await store.write(lambda tx: api_keys.revoke_api_key(tx, request, BERT))
    for _ in range(2):
        assert (await store.write(lambda tx: api_keys.revoke_api_key(tx, request, ANNA))).key.revoked
    listed = await store.read(lambda tx: api_keys.list_api_keys(tx, ANNA))
    assert [(each.id, each.revoked) for each in listed.keys] == [(key.id, True)]
    assert not (await store.read(lambda tx: api_keys.list_api_keys(tx, BERT))).keys


async def test_keys_that_ended_make_room_for_new_ones(store: Store) -> None:
    for number in range(api_keys.MOST_KEYS):
        await made(store, ANNA, days=1 if number else 0)
    with pytest.raises(LimitExceeded):
        await made(store, ANNA)
    await made(store, ANNA, now_ms=1 + DAY_MS)


@pytest.mark.parametrize(
    "wrong",
    [{"secret_sha256": "A" * 64}, {"secret_sha256": ""}, {"name": "x\n"}, {"name": "x" * 81}, {"expires_days": 10**6}],
    ids=["capitals", "no digest", "line break", "long name", "centuries"],
)
async def test_a_key_that_cannot_be_is_refused(store: Store, wrong: dict[str, str | int]) -> None:
    request = pb.CreateApiKeyRequest(secret_sha256="a" * 64, name="n")
    for field, value in wrong.items():
        setattr(request, field, value)
    with pytest.raises(InvalidInput):
        await store.write(lambda tx: api_keys.create_api_key(tx, request, ANNA, 1))
