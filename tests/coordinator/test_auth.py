"""Tokens and the gate: what admits, what refuses, and what an unforeseen error may tell."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from shardwork.clock import ManualClock
from shardwork.errors import Conflict, Internal, NotAllowed, NotAuthenticated, ShardworkError
from shardwork.identity.authority import open_channel
from shardwork.identity.envelope import seal
from shardwork.identity.keys import SigningKey
from shardwork.identity.role import Role
from shardwork.ids import party_id
from shardwork.protocol import TOKEN_LIFETIME_S
from shardwork.session import Session
from shardwork.v1 import operator_pb2, operator_pb2_grpc, types_pb2
from shardwork.wire import error_from_rpc
from shardwork_coordinator.records import Party
from shardwork_coordinator.rpc.auth import PARTY_CACHE_S, TOKEN_TYPE, Caller, Context, FixedGate, TokenGate, Tokens
from shardwork_coordinator.store.base import Transaction
from tests.enrolment_stand import Stand

KEY = SigningKey(b"\x05" * 32)
COORDINATOR = SigningKey(b"\x06" * 32)
CA = "ab" * 32


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def tokens(clock: ManualClock) -> Tokens:
    return Tokens(COORDINATOR, CA, clock)


@pytest.fixture
async def stand(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Stand]:
    async with Stand(tmp_path, clock) as stand:
        yield stand


def refusal(tokens: Tokens, text: str) -> str:
    with pytest.raises(NotAuthenticated) as caught:
        tokens.verify(text)
    return caught.value.code


async def keep(stand: Stand, **changes: object) -> None:
    """Puts KEY's party as a requester and worker, with `changes`."""
    party = Party(
        id=party_id(KEY.public_key), public_key=KEY.public_key, roles="requester", name="", created_ms=1, last_seen_ms=1
    )

    def work(tx: Transaction) -> None:
        tx.put(replace(party, **changes))  # type: ignore[arg-type]

    await stand.store.write(work)


async def ask(stand: Stand, *metadata: tuple[str, str]) -> ShardworkError | None:
    """The error of an ungated-by-role call with this metadata; None when it is answered."""
    async with open_channel(stand.join, stand.authority.ca_pem) as channel:
        stub = operator_pb2_grpc.OperatorServiceStub(channel)
        try:
            await stub.CheckLedger(operator_pb2.CheckLedgerRequest(), metadata=metadata, timeout=10)
        except grpc.aio.AioRpcError as error:
            return error_from_rpc(error)
    return None


def bearer(stand: Stand, role: Role = Role.REQUESTER, key: SigningKey = KEY) -> tuple[str, str]:
    return ("authorization", f"Bearer {stand.tokens.issue(key.public_key, role).text}")


def test_a_token_names_its_party_key_and_role(tokens: Tokens, clock: ManualClock) -> None:
    token = tokens.issue(KEY.public_key, Role.WORKER)
    assert tokens.verify(token.text) == Caller(party_id(KEY.public_key), KEY.public_key, Role.WORKER)
    assert token.expires_ms == clock.now_ms() + 15 * 60 * 1000


def test_a_token_ends_on_time(tokens: Tokens, clock: ManualClock) -> None:
    token = tokens.issue(KEY.public_key, Role.WORKER)
    clock.advance(TOKEN_LIFETIME_S - 0.001)
    tokens.verify(token.text)
    clock.advance(0.001)
    assert refusal(tokens, token.text) == "auth.expired_token"


def test_a_token_outlives_a_restart_but_not_a_new_key(tokens: Tokens, clock: ManualClock) -> None:
    text = tokens.issue(KEY.public_key, Role.WORKER).text
    Tokens(COORDINATOR, CA, clock).verify(text)
    assert refusal(Tokens(SigningKey.generate(), CA, clock), text) == "auth.bad_token"


def test_a_token_for_another_coordinator_is_refused(tokens: Tokens, clock: ManualClock) -> None:
    other = Tokens(COORDINATOR, "cd" * 32, clock)
    assert refusal(tokens, other.issue(KEY.public_key, Role.WORKER).text) == "auth.bad_token"


def test_no_byte_of_a_token_may_change(tokens: Tokens) -> None:
    raw = base64.urlsafe_b64decode(tokens.issue(KEY.public_key, Role.WORKER).text)
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 0x01
        assert refusal(tokens, base64.urlsafe_b64encode(changed).decode()) == "auth.bad_token"


def test_a_token_signed_by_its_bearer_is_refused(tokens: Tokens) -> None:
    genuine = types_pb2.Envelope.FromString(base64.urlsafe_b64decode(tokens.issue(KEY.public_key, Role.OPERATOR).text))
    forged = seal(KEY, TOKEN_TYPE, genuine.payload)
    assert refusal(tokens, base64.urlsafe_b64encode(forged.SerializeToString()).decode()) == "auth.bad_token"


def test_another_envelope_of_the_coordinator_is_no_token(tokens: Tokens) -> None:
    lease = seal(COORDINATOR, "shardwork.lease.v1", b"{}")
    assert refusal(tokens, base64.urlsafe_b64encode(lease.SerializeToString()).decode()) == "auth.bad_token"


@pytest.mark.parametrize("text", ["", "x", "not base64!", "AAAA", "é", "A" * 100_000])
def test_text_that_is_no_token_is_refused(tokens: Tokens, text: str) -> None:
    assert refusal(tokens, text) == "auth.bad_token"


@pytest.mark.parametrize("metadata", [(), (("authorization", "Basic abc"),), (("authorization", "Bearer "),)])
async def test_a_call_without_a_token_is_refused(stand: Stand, metadata: tuple[tuple[str, str], ...]) -> None:
    error = await ask(stand, *metadata)
    assert isinstance(error, NotAuthenticated) and error.code == "auth.no_token"


async def test_an_expired_token_is_refused_over_the_wire(stand: Stand, clock: ManualClock) -> None:
    await keep(stand)
    header = bearer(stand)
    assert await ask(stand, header) is None
    clock.advance(TOKEN_LIFETIME_S)
    error = await ask(stand, header)
    assert isinstance(error, NotAuthenticated) and error.code == "auth.expired_token"


async def test_a_key_that_the_store_does_not_know_must_enrol_again(stand: Stand) -> None:
    error = await ask(stand, bearer(stand))
    assert isinstance(error, NotAuthenticated) and error.code == "auth.unknown_party"


async def test_a_revoked_key_is_refused_within_seconds(stand: Stand, clock: ManualClock) -> None:
    await keep(stand)
    assert await ask(stand, bearer(stand)) is None
    await keep(stand, revoked=True)
    clock.advance(PARTY_CACHE_S)
    error = await ask(stand, bearer(stand))
    assert isinstance(error, NotAllowed) and error.code == "auth.revoked"


async def test_a_party_is_not_read_again_at_every_call(stand: Stand) -> None:
    await keep(stand)
    assert await ask(stand, bearer(stand)) is None
    await keep(stand, revoked=True)
    assert await ask(stand, bearer(stand)) is None


async def test_an_operator_token_for_a_key_that_is_no_longer_the_operators_is_refused(stand: Stand) -> None:
    await keep(stand, roles="operator")
    error = await ask(stand, bearer(stand, Role.OPERATOR))
    assert isinstance(error, NotAllowed) and error.code == "auth.not_operator"


async def test_an_unforeseen_error_is_logged_and_its_text_kept(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    async with await Session.open(stand.join, KEY, Role.WORKER, clock=stand.clock) as mine:
        stand.gated.error = RuntimeError("the password is hunter2")
        with caplog.at_level(logging.ERROR), pytest.raises(Internal) as caught:
            await mine.call(mine.operator.SetWorkerReference, operator_pb2.SetWorkerReferenceRequest())
    assert caught.value.code == "internal.unexpected"
    assert "hunter2" not in str(caught.value)
    assert "hunter2" in caplog.text


async def test_the_fixed_gate_admits_its_caller_and_still_checks_the_role(stand: Stand) -> None:
    caller = Caller("f" * 16, KEY.public_key, Role.WORKER)
    await stand.stop()
    await stand.start(gate=FixedGate(caller))
    async with open_channel(stand.join, stand.authority.ca_pem) as channel:
        stub = operator_pb2_grpc.OperatorServiceStub(channel)
        answer = await stub.ListWorkers(operator_pb2.ListWorkersRequest(), timeout=10)
        assert [worker.id for worker in answer.workers] == [caller.party_id]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetOverview(operator_pb2.GetOverviewRequest(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_the_cache_of_parties_is_bounded(
    stand: Stand, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardwork_coordinator.rpc.auth.PARTY_CACHE_SIZE", 2)
    gate = TokenGate(stand.tokens, stand.store, clock, operator_public_key=COORDINATOR.public_key)
    for number in range(5):
        key = SigningKey(bytes([number + 1]) * 32)
        party = Party(
            id=party_id(key.public_key),
            public_key=key.public_key,
            roles="worker",
            name="",
            created_ms=1,
            last_seen_ms=1,
        )
        await stand.store.write(lambda tx, party=party: tx.put(party))  # type: ignore[misc]
        await gate.authenticate(stand.tokens.issue(key.public_key, Role.WORKER).text)
        assert len(gate._known) <= 2  # pyright: ignore[reportPrivateUsage]


async def test_a_stream_that_fails_half_way_ends_with_the_error_it_raised() -> None:
    gate = FixedGate(Caller("f" * 16, KEY.public_key, Role.WORKER))

    async def echo(words: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async with gate.admit(context, Role.WORKER):
            async for word in words:
                if word == b"stop":
                    raise Conflict("stream.stopped", "Stopped.", word=word.decode())
                yield word

    server = grpc.aio.server()
    calls: dict[str, Any] = {"Echo": grpc.stream_stream_rpc_method_handler(cast(Any, echo))}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Stream", calls),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = cast(Any, channel.stream_stream("/test.Stream/Echo"))()
        await call.write(b"go")
        assert await call.read() == b"go"
        await call.write(b"stop")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    await server.stop(None)
    error = error_from_rpc(caught.value)
    assert isinstance(error, Conflict) and error.why.evidence["word"] == "stop"
