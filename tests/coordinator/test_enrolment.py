"""Enrolment: one proof for one nonce, one coordinator and one key; texts and roles checked; parties kept."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shardwork.clock import ManualClock
from shardwork.errors import InvalidInput, LimitExceeded, NotAllowed, NotAuthenticated, ShardworkError
from shardwork.identity.envelope import seal
from shardwork.identity.keys import SigningKey
from shardwork.identity.role import Role, role_to_proto
from shardwork.ids import party_id
from shardwork.protocol import ENROLMENT_TYPE
from shardwork.v1 import enrolment_pb2
from shardwork_coordinator.records import Party
from shardwork_coordinator.rpc.enrolment import (
    CHALLENGE_LIFETIME_S,
    Challenges,
    EnrolmentDesk,
    Newcomers,
    enrol,
    get_authority,
    get_challenge,
)
from tests.enrolment_stand import Stand

KEY = SigningKey(b"\x07" * 32)
VECTORS = Path(__file__).parent.parent / "shardwork" / "vectors" / "envelope.json"
SMALL_ORDER: list[str] = json.loads(VECTORS.read_text("utf-8"))["refused_public_keys"]

Change = Callable[[enrolment_pb2.Enrolment], object]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def stand(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Stand]:
    stand = Stand(tmp_path, clock)
    yield stand
    stand.store.close()


@pytest.fixture
def desk(stand: Stand) -> EnrolmentDesk:
    return stand.desk()


async def answer(
    desk: EnrolmentDesk, *changes: Change, key: SigningKey = KEY, role: Role = Role.WORKER, extra: bytes = b""
) -> enrolment_pb2.EnrolRequest:
    """A good answer to a new challenge, with `changes` and `extra` bytes made before it is signed."""
    challenge = await get_challenge(enrolment_pb2.GetChallengeRequest(public_key=key.public_key), desk)
    content = enrolment_pb2.Enrolment(
        nonce=challenge.nonce, role=role_to_proto(role), ca_sha256=desk.ca_sha256, protocol_versions=[1]
    )
    for change in changes:
        change(content)
    envelope = seal(key, ENROLMENT_TYPE, content.SerializeToString() + extra)
    return enrolment_pb2.EnrolRequest(envelope=envelope)


async def refused(desk: EnrolmentDesk, request: enrolment_pb2.EnrolRequest) -> ShardworkError:
    with pytest.raises(ShardworkError) as caught:
        await enrol(request, desk)
    return caught.value


async def party(stand: Stand, key: SigningKey = KEY) -> Party | None:
    return await stand.store.read(lambda tx: tx.get(Party, party_id(key.public_key)))


def setting(field: str, value: object) -> Change:
    def change(content: enrolment_pb2.Enrolment) -> None:
        setattr(content, field, value)

    return change


async def test_the_authority_is_told_to_anybody(stand: Stand, desk: EnrolmentDesk) -> None:
    told = await get_authority(enrolment_pb2.GetAuthorityRequest(), desk)
    assert told.ca_pem == stand.authority.ca_pem
    assert told.coordinator_public_key == stand.key.public_key
    assert list(told.protocol_versions) == [1]
    assert told.coordinator_version


async def test_a_good_answer_gets_a_token_and_is_kept(stand: Stand, desk: EnrolmentDesk, clock: ManualClock) -> None:
    request = await answer(desk, setting("name", "Ada"), setting("payout_address", "ada@example.org"))
    response = await enrol(request, desk)
    caller = stand.tokens.verify(response.token)
    assert (caller.party_id, caller.role) == (response.party_id, Role.WORKER)
    assert (response.protocol_version, response.expires_unix_ms) == (1, clock.now_ms() + 900_000)
    assert await party(stand) == Party(
        id=response.party_id,
        public_key=KEY.public_key,
        roles="worker",
        name="Ada",
        payout_address="ada@example.org",
        created_ms=clock.now_ms(),
        last_seen_ms=clock.now_ms(),
    )


async def test_enrolling_again_adds_the_role_and_keeps_what_is_left_empty(
    stand: Stand, desk: EnrolmentDesk, clock: ManualClock
) -> None:
    await enrol(await answer(desk, setting("name", "Ada"), setting("payout_address", "ada@example.org")), desk)
    first = await party(stand)
    clock.advance(60)
    await enrol(await answer(desk, role=Role.REQUESTER), desk)
    second = await party(stand)
    assert first is not None and second is not None
    assert (second.roles, second.name, second.payout_address) == ("requester,worker", "Ada", "ada@example.org")
    assert (second.created_ms, second.last_seen_ms) == (first.created_ms, clock.now_ms())


async def test_what_the_operator_decided_survives_enrolling_again(stand: Stand, desk: EnrolmentDesk) -> None:
    await enrol(await answer(desk), desk)
    known = await party(stand)
    assert known is not None
    trusted = replace(known, reference=True)
    await stand.store.write(lambda tx: tx.put(trusted))
    await enrol(await answer(desk), desk)
    again = await party(stand)
    assert again is not None and again.reference


async def test_an_answer_works_once(desk: EnrolmentDesk) -> None:
    request = await answer(desk)
    await enrol(request, desk)
    error = await refused(desk, request)
    assert isinstance(error, NotAuthenticated) and error.code == "enrolment.stale_nonce"


async def test_an_answer_works_for_a_minute(desk: EnrolmentDesk, clock: ManualClock) -> None:
    late, in_time = await answer(desk), await answer(desk)
    clock.advance(CHALLENGE_LIFETIME_S - 0.001)
    await enrol(in_time, desk)
    clock.advance(0.001)
    assert (await refused(desk, late)).code == "enrolment.stale_nonce"


async def test_a_challenge_is_for_one_key(desk: EnrolmentDesk) -> None:
    other = SigningKey.generate()
    challenge = await get_challenge(enrolment_pb2.GetChallengeRequest(public_key=other.public_key), desk)
    error = await refused(desk, await answer(desk, setting("nonce", challenge.nonce)))
    assert error.code == "enrolment.stale_nonce"


@pytest.mark.parametrize("nonce", [b"", bytes(32), b"\xff" * 32, b"\xff" * 33, b"\xff" * 15])
async def test_an_invented_challenge_is_refused(desk: EnrolmentDesk, nonce: bytes) -> None:
    assert (await refused(desk, await answer(desk, setting("nonce", nonce)))).code == "enrolment.stale_nonce"


async def test_a_challenge_does_not_outlive_its_process(stand: Stand, desk: EnrolmentDesk) -> None:
    assert (await refused(stand.desk(), await answer(desk))).code == "enrolment.stale_nonce"


async def test_a_proof_made_for_another_coordinator_is_refused(stand: Stand, desk: EnrolmentDesk) -> None:
    error = await refused(desk, await answer(desk, setting("ca_sha256", "cd" * 32)))
    assert isinstance(error, NotAuthenticated) and error.code == "enrolment.wrong_coordinator"
    assert await party(stand) is None


@pytest.mark.parametrize("key", SMALL_ORDER)
async def test_a_key_of_small_order_gets_no_challenge_and_no_token(desk: EnrolmentDesk, key: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await get_challenge(enrolment_pb2.GetChallengeRequest(public_key=bytes.fromhex(key)), desk)
    assert caught.value.code == "key.invalid_point"
    request = await answer(desk)
    request.envelope.public_key = bytes.fromhex(key)
    assert (await refused(desk, request)).code == "key.invalid_point"


async def test_no_byte_of_an_answer_may_change(stand: Stand, desk: EnrolmentDesk) -> None:
    good = await answer(desk)
    for field in ("payload_type", "payload", "public_key", "signature"):
        value = getattr(good.envelope, field)
        raw = value.encode() if isinstance(value, str) else value
        for position in range(len(raw)):
            changed = bytearray(raw)
            changed[position] ^= 0x01
            request = enrolment_pb2.EnrolRequest()
            request.CopyFrom(good)
            setattr(request.envelope, field, changed.decode() if isinstance(value, str) else bytes(changed))
            await refused(desk, request)
    assert await party(stand) is None
    await enrol(good, desk)


async def test_a_smuggled_field_is_refused(desk: EnrolmentDesk) -> None:
    error = await refused(desk, await answer(desk, extra=b"\x42\x01x"))
    assert isinstance(error, InvalidInput) and error.code == "wire.unknown_field"


@pytest.mark.parametrize("versions", [[], [0], [2, 3]])
async def test_another_protocol_is_refused_with_both_versions(desk: EnrolmentDesk, versions: list[int]) -> None:
    def change(content: enrolment_pb2.Enrolment) -> None:
        content.protocol_versions[:] = versions

    error = await refused(desk, await answer(desk, change))
    assert error.code == "protocol.no_common_version"
    assert error.why.evidence["coordinator"] == "1"
    assert error.why.evidence["client"] == (", ".join(map(str, versions)) or "none")


async def test_a_newer_client_that_still_speaks_ours_is_welcome(desk: EnrolmentDesk) -> None:
    def change(content: enrolment_pb2.Enrolment) -> None:
        content.protocol_versions[:] = [2, 1]

    assert (await enrol(await answer(desk, change), desk)).protocol_version == 1


@pytest.mark.parametrize("role", [0, 4, 99])
async def test_a_role_that_does_not_exist_is_refused(desk: EnrolmentDesk, role: int) -> None:
    assert (await refused(desk, await answer(desk, setting("role", role)))).code == "enrolment.unknown_role"


async def test_the_operator_is_one_key(stand: Stand, desk: EnrolmentDesk) -> None:
    error = await refused(desk, await answer(desk, role=Role.OPERATOR))
    assert isinstance(error, NotAllowed) and error.code == "enrolment.not_operator"
    assert await party(stand) is None
    response = await enrol(await answer(desk, key=stand.operator_key, role=Role.OPERATOR), desk)
    assert stand.tokens.verify(response.token).role is Role.OPERATOR


async def test_a_closed_role_is_refused_and_the_operator_still_enters(stand: Stand) -> None:
    desk = stand.desk(open_roles=frozenset({Role.REQUESTER}))
    error = await refused(desk, await answer(desk))
    assert isinstance(error, NotAllowed) and error.code == "enrolment.closed"
    await enrol(await answer(desk, role=Role.REQUESTER), desk)
    await enrol(await answer(desk, key=stand.operator_key, role=Role.OPERATOR), desk)


async def test_a_revoked_key_gets_no_token(stand: Stand, desk: EnrolmentDesk, clock: ManualClock) -> None:
    gone = Party(
        id=party_id(KEY.public_key),
        public_key=KEY.public_key,
        roles="worker",
        name="",
        revoked=True,
        created_ms=1,
        last_seen_ms=1,
    )
    await stand.store.write(lambda tx: tx.put(gone))
    assert (await refused(desk, await answer(desk))).code == "auth.revoked"
    assert await party(stand) == gone


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("name", "x" * 65),
        ("name", "two\nlines"),
        ("name", "\x1b[31mred"),
        ("name", "right\u202eleft"),
        ("payout_address", "x" * 321),
        ("software_version", "1" * 33),
    ],
)
async def test_a_text_that_would_harm_a_screen_is_refused(desk: EnrolmentDesk, field: str, text: str) -> None:
    error = await refused(desk, await answer(desk, setting(field, text)))
    assert (error.code, error.why.evidence["field"]) == ("enrolment.bad_text", field)


async def test_a_name_of_64_letters_in_any_script_is_welcome(stand: Stand, desk: EnrolmentDesk) -> None:
    await enrol(await answer(desk, setting("name", "ж" * 64)), desk)
    kept = await party(stand)
    assert kept is not None and kept.name == "ж" * 64


def test_asking_for_challenges_takes_no_memory_and_answering_a_bounded_one(clock: ManualClock) -> None:
    challenges = Challenges(clock, max_used=3)
    for nonce in [challenges.issue(KEY.public_key) for _ in range(1_000)][:3]:
        challenges.redeem(nonce, KEY.public_key)
    with pytest.raises(LimitExceeded) as caught:
        challenges.redeem(challenges.issue(KEY.public_key), KEY.public_key)
    assert caught.value.code == "enrolment.busy"
    clock.advance(CHALLENGE_LIFETIME_S)
    challenges.redeem(challenges.issue(KEY.public_key), KEY.public_key)


async def test_new_keys_come_at_a_bounded_rate_and_known_ones_always(
    stand: Stand, desk: EnrolmentDesk, clock: ManualClock
) -> None:
    """Each leaves a row for ever, and whoever wants makes a million keys."""
    few = replace(desk, newcomers=Newcomers(2))
    await enrol(await answer(few), few)
    await enrol(await answer(few, key=SigningKey.generate()), few)
    stranger = SigningKey.generate()
    error = await refused(few, await answer(few, key=stranger))
    assert error.code == "enrolment.too_many_new" and isinstance(error, LimitExceeded)
    assert await party(stand, stranger) is None
    await enrol(await answer(few), few)
    await enrol(await answer(few, key=stand.operator_key, role=Role.OPERATOR), few)
    clock.advance(60)
    await enrol(await answer(few, key=stranger), few)
    assert await party(stand, stranger) is not None
