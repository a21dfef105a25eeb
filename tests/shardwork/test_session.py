"""Sessions against a real coordinator: trust before anything is sent, retries, renewal, restarts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shardwork import session
from shardwork.clock import ManualClock
from shardwork.errors import Conflict, InvalidInput, NotAllowed, NotAuthenticated, Unreachable
from shardwork.identity import authority
from shardwork.identity.keys import SigningKey
from shardwork.identity.role import Role
from shardwork.ids import party_id
from shardwork.protocol import TOKEN_LIFETIME_S, negotiate
from shardwork.session import JoinLine, Session, backoff_s
from shardwork.v1 import operator_pb2
from shardwork_coordinator.records import Party
from tests.enrolment_stand import Stand

KEY = SigningKey(b"\x04" * 32)
ASK = operator_pb2.CheckLedgerRequest()


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with Stand(tmp_path) as stand:
        yield stand


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "BACKOFF_S", 0.02)


async def test_a_party_enrols_and_calls(stand: Stand) -> None:
    async with await Session.open(stand.join, KEY, Role.WORKER, name="Ada's box", clock=stand.clock) as mine:
        assert mine.party_id == party_id(KEY.public_key)
        assert mine.coordinator_public_key == stand.key.public_key
        assert mine.protocol_version == 1
        answer = await mine.call(mine.operator.ListWorkers, operator_pb2.ListWorkersRequest())
        assert [worker.id for worker in answer.workers] == [mine.party_id]
    party = await stand.store.read(lambda tx: tx.get(Party, mine.party_id))
    assert party is not None
    assert (party.name, party.roles, party.public_key) == ("Ada's box", "worker", KEY.public_key)


async def test_one_key_may_play_several_roles_at_once(stand: Stand) -> None:
    async with await Session.open(stand.join, KEY, Role.REQUESTER, name="Ada", clock=stand.clock) as one:
        await one.call(one.operator.CheckLedger, ASK)
        async with await Session.open(stand.join, KEY, Role.WORKER, clock=stand.clock) as two:
            await two.call(two.operator.ListWorkers, operator_pb2.ListWorkersRequest())
    party = await stand.store.read(lambda tx: tx.get(Party, one.party_id))
    assert party is not None and (party.roles, party.name) == ("requester,worker", "Ada")


async def test_nothing_but_the_question_reaches_a_coordinator_with_the_wrong_fingerprint(stand: Stand) -> None:
    join = JoinLine(stand.join.host, stand.join.port, "ab" * 32)
    with pytest.raises(NotAuthenticated) as caught:
        await Session.open(join, KEY, Role.WORKER, clock=stand.clock)
    assert caught.value.code == "authority.wrong_fingerprint"
    assert caught.value.exit_code == 5
    assert caught.value.why.evidence["found"] == stand.authority.ca_sha256
    assert stand.enrolment.seen == ["GetAuthority"]


async def test_a_man_in_the_middle_who_shows_the_right_ca_gets_nothing_secret(stand: Stand, tmp_path: Path) -> None:
    async with Stand(tmp_path / "evil", stand.clock) as evil:
        genuine_pem = stand.authority.ca_pem
        evil.enrolment = type(evil.enrolment)(evil.desk())
        await evil.stop()
        evil.authority.ca_pem = genuine_pem
        await evil.start()
        join = JoinLine("127.0.0.1", evil.port, stand.authority.ca_sha256)
        with pytest.raises(NotAuthenticated) as caught:
            await Session.open(join, KEY, Role.WORKER, clock=stand.clock)
        assert caught.value.code == "authority.untrusted_certificate"
        assert evil.enrolment.seen == ["GetAuthority"]


async def test_a_closed_port_is_unreachable_and_named(stand: Stand) -> None:
    await stand.stop()
    with pytest.raises(Unreachable) as caught:
        await Session.open(stand.join, KEY, Role.WORKER, clock=stand.clock)
    assert (caught.value.code, caught.value.exit_code) == ("coordinator.unreachable", 7)
    assert caught.value.why.evidence["address"] == stand.join.address
    assert caught.value.why.next_step


async def test_an_unknown_host_is_unreachable() -> None:
    with pytest.raises(Unreachable) as caught:
        await Session.open(JoinLine("no-such-host.invalid", 1, "ab" * 32), KEY, Role.WORKER)
    assert caught.value.code == "coordinator.unreachable"


async def test_a_port_that_never_answers_is_unreachable_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        join = JoinLine("127.0.0.1", silent.getsockname()[1], "ab" * 32)
        with pytest.raises(Unreachable) as caught:
            await authority.fetch_ca(join, timeout_s=0.1)
    assert "0.1 s" in caught.value.why.evidence["reason"]


async def test_a_server_that_hangs_up_may_be_a_coordinator_that_is_full() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        join = JoinLine("127.0.0.1", server.sockets[0].getsockname()[1], "ab" * 32)
        with pytest.raises(Unreachable) as caught:
            await authority.fetch_ca(join)
    assert caught.value.code == "coordinator.hung_up"
    assert "try again" in caught.value.why.next_step


async def test_a_server_that_speaks_no_tls_is_not_a_coordinator() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        join = JoinLine("127.0.0.1", server.sockets[0].getsockname()[1], "ab" * 32)
        with pytest.raises(Unreachable) as caught:
            await authority.fetch_ca(join)
    assert caught.value.code == "coordinator.not_a_coordinator"


async def test_only_the_operators_key_becomes_operator(stand: Stand) -> None:
    with pytest.raises(NotAllowed) as caught:
        await Session.open(stand.join, KEY, Role.OPERATOR, clock=stand.clock)
    assert (caught.value.code, caught.value.exit_code) == ("enrolment.not_operator", 5)
    async with await Session.open(stand.join, stand.operator_key, Role.OPERATOR, clock=stand.clock) as boss:
        answer = await boss.call(boss.operator.GetOverview, operator_pb2.GetOverviewRequest())
        assert answer.paid_msat == 1


async def test_a_call_for_another_role_is_refused_with_both_roles_named(stand: Stand) -> None:
    async with await Session.open(stand.join, KEY, Role.REQUESTER, clock=stand.clock) as mine:
        with pytest.raises(NotAllowed) as caught:
            await mine.call(mine.operator.GetOverview, operator_pb2.GetOverviewRequest())
    assert caught.value.code == "auth.wrong_role"
    assert dict(caught.value.why.evidence) == {"role": "requester", "wanted": "operator"}


@pytest.mark.parametrize(("versions", "older"), [((7, 8), "client"), ((0,), "coordinator"), ((), "coordinator")])
async def test_without_a_common_version_both_are_named(stand: Stand, versions: tuple[int, ...], older: str) -> None:
    stand.enrolment.protocol_versions = versions
    with pytest.raises(Conflict) as caught:
        await Session.open(stand.join, KEY, Role.WORKER, clock=stand.clock)
    assert caught.value.code == "protocol.no_common_version"
    assert older in caught.value.why.next_step
    assert caught.value.why.evidence["client"] == "1"
    assert caught.value.why.evidence["coordinator"] == (", ".join(map(str, versions)) or "none")
    assert "Enrol" not in stand.enrolment.seen


def test_the_newest_common_version_is_chosen() -> None:
    assert negotiate((3, 2), (2, 1)) == 2
    assert negotiate((2, 1), (3, 2, 1)) == 2


async def test_a_token_is_renewed_before_it_ends(stand: Stand) -> None:
    clock = stand.clock
    assert isinstance(clock, ManualClock)
    async with await Session.open(stand.join, KEY, Role.WORKER, clock=clock) as mine:
        first = await mine.metadata()
        clock.advance(TOKEN_LIFETIME_S * 0.75)
        assert await mine.metadata() == first
        clock.advance(TOKEN_LIFETIME_S * 0.1)
        assert await mine.metadata() != first
        assert stand.enrolment.seen.count("Enrol") == 2


async def test_calls_that_find_an_old_token_together_enrol_once(stand: Stand) -> None:
    clock = stand.clock
    assert isinstance(clock, ManualClock)
    async with await Session.open(stand.join, KEY, Role.WORKER, clock=clock) as mine:
        clock.advance(TOKEN_LIFETIME_S)
        await asyncio.gather(*(mine.call(mine.operator.CheckLedger, ASK) for _ in range(10)))
    assert stand.enrolment.seen.count("Enrol") == 2


async def test_a_refused_token_is_replaced_once(stand: Stand) -> None:
    async with await Session.open(stand.join, KEY, Role.WORKER, clock=stand.clock) as mine:
        mine.accept_token("forged", stand.clock.now_ms() + 900_000)
        await asyncio.gather(*(mine.call(mine.operator.CheckLedger, ASK) for _ in range(10)))
    assert stand.enrolment.seen.count("Enrol") == 2


async def test_a_token_that_stays_refused_is_not_asked_for_without_end(stand: Stand) -> None:
    async with await Session.open(stand.join, KEY, Role.WORKER, clock=stand.clock) as mine:
        stand.gated.error = NotAuthenticated("auth.bad_token", "No.")
        with pytest.raises(NotAuthenticated):
            await mine.call(mine.operator.SetWorkerReference, operator_pb2.SetWorkerReferenceRequest())
    assert stand.enrolment.seen.count("Enrol") == 2


async def test_a_pushed_token_is_used(stand: Stand) -> None:
    async with await Session.open(stand.join, KEY, Role.WORKER, clock=stand.clock) as mine:
        pushed = stand.tokens.issue(KEY.public_key, Role.WORKER)
        mine.accept_token(pushed.text, pushed.expires_ms)
        assert await mine.metadata() == (("authorization", f"Bearer {pushed.text}"),)


@pytest.mark.parametrize("skew_s", [-7200, 7200])
async def test_a_machine_with_a_wrong_clock_works_and_does_not_enrol_at_every_call(stand: Stand, skew_s: int) -> None:
    clock = ManualClock(stand.clock.now_ms() + skew_s * 1000)
    async with await Session.open(stand.join, KEY, Role.WORKER, clock=clock) as mine:
        for _ in range(3):
            await mine.call(mine.operator.CheckLedger, ASK)
    assert stand.enrolment.seen.count("Enrol") == 1


async def test_a_call_is_tried_again_while_nothing_answers(stand: Stand) -> None:
    async with await Session.open(stand.join, KEY, Role.WORKER, clock=stand.clock) as mine:
        stand.gated.failures = 3
        assert (await mine.call(mine.operator.CheckLedger, ASK, retries=3)).balanced
    assert stand.gated.calls == 4


async def test_retries_are_bounded(stand: Stand) -> None:
    async with await Session.open(stand.join, KEY, Role.WORKER, clock=stand.clock) as mine:
        stand.gated.failures = 10
        with pytest.raises(Unreachable) as caught:
            await mine.call(mine.operator.CheckLedger, ASK, retries=2)
    assert stand.gated.calls == 3
    assert caught.value.why.evidence["address"] == stand.join.address


async def test_a_refusal_is_not_tried_again(stand: Stand) -> None:
    async with await Session.open(stand.join, KEY, Role.WORKER, clock=stand.clock) as mine:
        stand.gated.error = InvalidInput("job.bad", "Bad.", next_step="Mend it.", file="a.yaml", line=7)
        with pytest.raises(InvalidInput) as caught:
            await mine.call(mine.operator.SetWorkerReference, operator_pb2.SetWorkerReferenceRequest())
    assert caught.value.why == stand.gated.error.why


async def test_a_session_outlives_a_restart_with_its_token(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "BACKOFF_S", 0.25)
    async with await Session.open(stand.join, KEY, Role.WORKER, clock=stand.clock) as mine:
        await mine.call(mine.operator.CheckLedger, ASK)
        await stand.stop()
        call = asyncio.create_task(mine.call(mine.operator.CheckLedger, ASK, retries=30))
        with pytest.raises(Unreachable):
            await mine.call(mine.operator.CheckLedger, ASK, retries=0)
        await stand.start()
        assert (await call).balanced
    assert stand.enrolment.seen == []


@pytest.fixture
async def deputy(stand: Stand) -> AsyncIterator[Stand]:
    """Another coordinator of the stand's cluster."""
    twin = stand.twin()
    await twin.start()
    yield twin
    await twin.stop()


async def test_a_session_goes_on_at_another_coordinator_under_the_same_stubs(stand: Stand, deputy: Stand) -> None:
    join = JoinLine.of((stand.join.address, deputy.join.address), stand.join.ca_sha256)
    async with await Session.open(join, KEY, Role.WORKER, clock=stand.clock) as mine:
        check = mine.operator.CheckLedger
        await mine.call(check, ASK)
        await stand.stop()
        assert (await mine.call(check, ASK, retries=0)).balanced
        assert mine.join.addresses == (deputy.join.address, stand.join.address)
        # its token is good there too
        assert deputy.enrolment.seen == [] and deputy.gated.calls == 1


async def test_a_session_learns_where_to_go_from_the_coordinator_itself(stand: Stand, deputy: Stand) -> None:
    stand.addresses = [stand.join.address, deputy.join.address, "not an address"]
    async with await Session.open(stand.join, KEY, Role.WORKER, clock=stand.clock) as mine:
        assert list(mine.join.addresses) == [stand.join.address, deputy.join.address]
        # one that is away for a moment may be back when it is needed, so it stays, behind the others
        mine.know([stand.join.address, "c:1"])
        assert list(mine.join.addresses) == [stand.join.address, "c:1", deputy.join.address]
        mine.know([f"many:{number}" for number in range(1, 40)])
        assert len(mine.join.addresses) == 16 and mine.join.address == stand.join.address


async def test_a_coordinator_that_answers_is_never_left(stand: Stand, deputy: Stand) -> None:
    join = JoinLine.of((stand.join.address, deputy.join.address), stand.join.ca_sha256)
    async with await Session.open(join, KEY, Role.WORKER, clock=stand.clock) as mine:
        stand.gated.failures = 2
        await mine.call(mine.operator.CheckLedger, ASK)
        assert not await mine.move()
        assert (mine.join.address, deputy.gated.calls) == (stand.join.address, 0)


async def test_a_join_line_whose_first_coordinator_is_gone_is_good(stand: Stand, deputy: Stand) -> None:
    join = JoinLine.of((stand.join.address, deputy.join.address), stand.join.ca_sha256)
    await stand.stop()
    async with await Session.open(join, KEY, Role.WORKER, clock=stand.clock) as mine:
        assert mine.join.address == deputy.join.address


async def test_a_stranger_at_an_address_that_was_told_is_not_gone_to(stand: Stand, tmp_path: Path) -> None:
    async with Stand(tmp_path / "evil", stand.clock) as evil:
        stand.addresses = [stand.join.address, evil.join.address]
        async with await Session.open(stand.join, KEY, Role.WORKER, clock=stand.clock) as mine:
            await stand.stop()
            with pytest.raises(Unreachable):
                await mine.call(mine.operator.CheckLedger, ASK, retries=0)
            assert (evil.enrolment.seen, evil.gated.calls) == ([], 0)


async def test_the_channel_needs_no_cache_on_disk(stand: Stand, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    async with await Session.open(stand.join, KEY, Role.WORKER, clock=stand.clock):
        assert sorted(tmp_path.rglob("*")) == before


def test_waiting_doubles_up_to_a_cap_and_is_drawn_from_the_whole_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "BACKOFF_S", 0.25)
    assert [backoff_s(attempt, lambda: 1.0) for attempt in range(7)] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert backoff_s(3, lambda: 0.0) == 0.0
