"""Who may call, and what a call that comes twice, late, bent or from somebody else does."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from shardwork.ids import party_id
from shardwork_coordinator.api.limits import Buckets
from shardwork_coordinator.records import Annotator, Party, Standing, Vote, VoteState

from .stand import JOB, STAGE, Person, Stand, looks, person, rows


@pytest.fixture
async def anna(stand: Stand) -> Person:
    await stand.submit()
    found = person(stand, 1)
    await found.join()
    return found


async def test_a_key_joins_once_and_keeps_its_name_and_address(stand: Stand) -> None:
    anna = person(stand, 1)
    first = await anna.ok("join", name="Anna", payout="anna@example.org")
    assert first == {"annotator": party_id(anna.key.public_key), "name": "Anna", "payout": "anna@example.org"}
    assert await anna.ok("join", name="") == first
    rows_ = await stand.all(Party)
    assert [(one.id, one.roles, one.payout_address) for one in rows_] == [(anna.id, "annotator", "anna@example.org")]
    assert (await anna.ok("payout", address="other@example.org"))["payout"] == "other@example.org"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "a" * 65}, "people.bad_name"),
        ({"name": "a\nb"}, "people.bad_name"),
        ({"name": 5}, "people.bad_name"),
        ({"name": "a", "payout": "not an address"}, "people.bad_address"),
        ({"name": "a", "payout": ["a@b.c"]}, "people.bad_address"),
    ],
)
async def test_a_name_or_address_that_is_none_is_refused(stand: Stand, body: dict[str, object], code: str) -> None:
    answer = await person(stand, 1).post("join", **body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert await stand.all(Party) == []


async def test_nobody_gets_anything_before_joining(stand: Stand) -> None:
    await stand.submit()
    for call in ("next", "vote", "payout", "withdraw"):
        answer = await person(stand, 1).post(call, job=JOB, stage=STAGE, lease="x", address="", answer={})
        assert answer.status_code in (403, 404), call
    # to look at what is asked and paid is all that a stranger may do
    assert (await person(stand, 1).get("history")).json()["code"] == "people.not_joined"


@pytest.mark.parametrize("header", ["Shardwork-Key", "Shardwork-Time", "Shardwork-Signature"])
async def test_a_call_without_one_of_its_headers_is_refused(anna: Person, header: str) -> None:
    path, body = "/people/api/next", json.dumps({"job": JOB, "stage": STAGE}).encode()
    headers = anna.signed("POST", path, body)
    del headers[header]
    answer = await anna.stand.client.post(path, content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "people.unsigned")


async def test_a_signature_counts_for_its_method_path_query_time_and_body_only(anna: Person) -> None:
    client, body = anna.stand.client, b'{"job":"j"}'
    path, headers = "/people/api/next", anna.signed("POST", "/people/api/next", b'{"job":"j"}')
    later = {**headers, "Shardwork-Time": str(int(headers["Shardwork-Time"]) + 1)}
    other = {**headers, "Shardwork-Key": person(anna.stand, 2).signed("POST", path, body)["Shardwork-Key"]}
    bent = [
        await client.post(path, content=body + b" ", headers=headers),
        await client.post(path + "?a=1", content=body, headers=headers),
        await client.post("/people/api/vote", content=body, headers=headers),
        await client.post(path, content=body, headers=later),
        await client.post(path, content=body, headers=other),
        await client.get("/people/api/history?before=1", headers=anna.signed("GET", "/people/api/history", b"")),
    ]
    assert {(one.status_code, one.json()["code"]) for one in bent} == {(401, "people.bad_signature")}


@pytest.mark.parametrize("ahead_ms", [-301_000, 301_000])
async def test_a_call_from_another_time_is_refused(anna: Person, ahead_ms: int) -> None:
    headers = anna.signed("GET", "/people/api/tasks", b"", time_ms=anna.stand.clock.now_ms() + ahead_ms)
    answer = await anna.stand.client.get("/people/api/tasks", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "people.bad_time")


async def test_a_key_of_a_small_order_is_refused(stand: Stand) -> None:
    # the identity: (R = identity, s = 0) verifies for every message under it
    anna = person(stand, 1)
    headers = anna.signed("POST", "/people/api/join", b"{}")
    headers["Shardwork-Key"] = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    headers["Shardwork-Signature"] = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" + "A" * 43
    answer = await stand.client.post("/people/api/join", content=b"{}", headers=headers)
    assert answer.status_code == 401
    assert await stand.all(Party) == []


async def test_the_same_answer_twice_is_one_vote_and_another_one_is_refused(anna: Person) -> None:
    given = (await anna.next())["task"]
    anna.stand.clock.advance(5)
    answer = looks(given)
    first = await anna.ok("vote", lease=given["lease"], answer=answer, ms=5000)
    assert await anna.ok("vote", lease=given["lease"], answer=answer, ms=5999) == first
    other = {"winner": "a" if answer["winner"] == "b" else "b"}
    refused = await anna.post("vote", lease=given["lease"], answer=other)
    assert (refused.status_code, refused.json()["code"]) == (409, "people.answered")
    assert (await anna.get("tasks")).json()["me"]["votes"] == 1


async def test_a_task_that_is_open_is_given_again(anna: Person) -> None:
    first = await anna.next()
    assert await anna.next() == first
    assert len(await anna.stand.all(Vote)) == 1


async def test_nobody_answers_skips_or_takes_back_what_is_somebody_elses(anna: Person) -> None:
    lease = (await anna.next())["task"]["lease"]
    bert = person(anna.stand, 2)
    await bert.join()
    for call in ("vote", "skip", "report", "undo"):
        answer = await bert.post(call, lease=lease, answer={"winner": "a"}, reason="bad")
        assert (answer.status_code, answer.json()["code"]) == (404, "people.no_task"), call
    assert [one.state for one in await anna.stand.all(Vote)] == [VoteState.GIVEN]


@pytest.mark.parametrize(
    "answer",
    [{}, {"winner": "c"}, {"winner": ["a"]}, {"ranking": [0, 1]}, {"winner": "a", "x": 1}, "a", None, {"winner": None}],
)
async def test_an_answer_that_is_none_is_refused_and_the_task_stays(anna: Person, answer: object) -> None:
    lease = (await anna.next())["task"]["lease"]
    refused = await anna.post("vote", lease=lease, answer=answer)
    assert (refused.status_code, refused.json()["code"]) == (400, "people.bad_answer")
    assert [one.state for one in await anna.stand.all(Vote)] == [VoteState.GIVEN]


@pytest.mark.parametrize(
    "body", [b"[1]", b"{", b"\xff", b'{"lease":"\\u0000"}', b'{"lease":"\\ud800"}', b"[" * 100_000, b"1" * 300_000]
)
async def test_a_body_that_is_none_is_refused(anna: Person, body: bytes) -> None:
    path = "/people/api/vote"
    answer = await anna.stand.client.post(path, content=body, headers=anna.signed("POST", path, body))
    assert 400 <= answer.status_code < 500 and answer.json()["sentence"]


async def test_what_the_browser_gets_tells_neither_models_nor_tests_nor_other_votes(anna: Person) -> None:
    texts = list[str]()
    for _ in range(12):
        given = await anna.next()
        texts.append(json.dumps(given))
        assert set(given["task"]) == {
            *("lease", "number", "practice", "kind", "prompt", "answers", "scores", "reasons", "pay_msat"),
            *("least_ms", "expires_ms"),
        }
        anna.stand.clock.advance(5)
        texts.append(json.dumps(await anna.ok("vote", lease=given["task"]["lease"], answer=looks(given["task"]))))
        if (await anna.next())["task"] is None:
            break
    texts += [(await anna.get("history")).text, (await anna.get("tasks")).text]
    for secret in ("gold", "repeat", '"m0"', '"m1"', "shard", "#"):
        assert not [text for text in texts if secret in text.replace("number", "")], secret


async def test_a_script_in_texts_stays_text(stand: Stand) -> None:
    script = "<script>alert(1)</script>"
    data = rows(4, 4).replace("Say something", script)
    await stand.submit(data, guideline=script, title="a & b")
    anna = person(stand, 1)
    await anna.join()
    answer = await anna.get("tasks")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json()["tasks"][0]["guideline"] == script
    assert (await anna.next())["task"]["prompt"].startswith(script)


async def test_who_is_shut_out_gets_nothing_and_earns_nothing_more(anna: Person) -> None:
    for _ in range(5):
        await anna.do()
    lease = (await anna.next())["task"]["lease"]
    party = (await anna.stand.all(Party))[0]
    await anna.stand.put(replace(party, standing=Standing.QUARANTINED))
    for call in ("next", "vote", "undo", "skip", "join", "withdraw"):
        answer = await anna.post(call, lease=lease, answer={"winner": "a"}, job=JOB, stage=STAGE, name="a")
        assert (answer.status_code, answer.json()["code"]) == (403, "people.barred"), call
    await anna.stand.later()
    states = {one.state for one in await anna.stand.all(Vote)}
    assert states == {VoteState.PRACTICE, VoteState.REJECTED, VoteState.EXPIRED}
    await anna.stand.check_books()


async def test_one_person_judges_no_more_than_allowed(stand: Stand) -> None:
    await stand.submit(rows(20, 12), most_per_person=5)
    anna = person(stand, 1)
    await anna.join()
    assert await anna.work() == 3 + 5
    assert (await anna.next())["why"]["code"] == "people.enough"


async def test_only_the_invited_see_and_get_a_task_for_them(stand: Stand) -> None:
    await stand.submit(invitation="word-1")
    anna = person(stand, 1)
    await anna.join(invitation="word-2")
    assert (await anna.get("tasks")).json()["tasks"] == []
    assert (await anna.next())["why"]["code"] == "people.not_invited"
    await anna.join(invitation="word-1")
    assert [one["stage"] for one in (await anna.get("tasks")).json()["tasks"]] == [STAGE]
    assert (await anna.next())["task"]["practice"]


async def test_calls_of_one_key_and_joins_of_one_address_are_bounded(stand: Stand) -> None:
    await stand.submit()
    stand.desk.joins = Buckets(2, 0.01)
    answers = [await person(stand, number).post("join", name="a") for number in (1, 2, 3)]
    assert [one.status_code for one in answers] == [200, 200, 429]
    assert answers[2].headers["retry-after"]
    stand.desk.calls = Buckets(3, 0.01)
    codes = [(await person(stand, 1).get("tasks")).status_code for _ in range(4)]
    assert codes == [200, 200, 200, 429]
    stand.desk.wrong = Buckets(1, 0.01)
    forged = [await stand.client.get("/people/api/tasks", headers={"Shardwork-Key": "x"}) for _ in range(2)]
    assert [one.status_code for one in forged] == [401, 429]


async def test_a_stage_that_is_not_there_or_over_gives_no_task(stand: Stand, anna: Person) -> None:
    unknown = await anna.post("next", job="other", stage=STAGE)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "people.unknown")
    odd: list[dict[str, object]] = [{"job": 1, "stage": 2}, {}, {"job": [1], "stage": STAGE}]
    for body in odd:
        assert (await anna.post("next", **body)).json()["code"] == "people.no_stage"


async def test_history_is_ones_own_the_newest_first_in_the_order_shown(anna: Person) -> None:
    sent = list[tuple[str, str]]()
    for _ in range(6):
        given = (await anna.next())["task"]
        anna.stand.clock.advance(5)
        winner = looks(given)["winner"]
        sent.append((given["lease"], winner))
        await anna.ok("vote", lease=given["lease"], answer={"winner": winner})
    page = (await anna.get("history")).json()
    assert [(one["lease"], one["answer"]["winner"]) for one in page["votes"]] == sent[::-1]
    assert page["next"] is None
    older = (await anna.get(f"history?before={(await anna.stand.all(Vote, id=sent[3][0]))[0].given_ms}")).json()
    assert [one["lease"] for one in older["votes"]] == [lease for lease, _ in sent[2::-1]]
    assert (await anna.get("history?before=x")).json()["code"] == "people.bad_page"
    bert = person(anna.stand, 2)
    await bert.join()
    assert (await bert.get("history")).json()["votes"] == []


async def test_a_withdrawal_that_comes_twice_is_one(anna: Person) -> None:
    await anna.join(payout="anna@example.org")
    await anna.work()
    await anna.stand.later()
    me = (await anna.get("tasks")).json()["me"]
    assert me["available_msat"] >= 50_000
    path, body = "/people/api/withdraw", b'{"msat":20000}'
    headers = anna.signed("POST", path, body)
    both = [(await anna.stand.client.post(path, content=body, headers=headers)).json() for _ in range(2)]
    assert both[0]["payout"]["id"] == both[1]["payout"]["id"]
    assert both[0]["payout"]["msat"] == 20_000
    too_much = await anna.post("withdraw", msat=10**12)
    assert too_much.status_code in (200, 402)
    for msat in (-1, 1.5, "1"):
        assert (await anna.post("withdraw", msat=msat)).json()["code"] == "people.bad_amount"
    assert len(await anna.stand.all(Annotator)) == 1
