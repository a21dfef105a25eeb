"""What strangers try: others' ids, dead keys, cookies, large and slow bodies, odd names, forged cursors and hosts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.types import Message

from shardwork import api_key
from shardwork_coordinator.api import bodies, router
from shardwork_coordinator.api.contents import SENT_BYTES
from shardwork_coordinator.api.keys import BURST, KNOWN_S, WRONG_BURST
from shardwork_coordinator.artifacts.calls import Calls
from shardwork_coordinator.records import ApiKey, Party
from shardwork_coordinator.rpc import jobs
from shardwork_coordinator.web.server import Site, build

from .stand import ANNA, Stand, count_job, send, submit

V1 = "/api/v1"


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, str(answer.json()["error"]["code"])


async def test_another_ones_jobs_and_files_are_as_unknown_as_none(
    anna: httpx.AsyncClient, bert: httpx.AsyncClient
) -> None:
    job = await submit(anna)
    artifact = await send(anna, b"secret rows")
    for method, path in (
        ("GET", f"/jobs/{job}"),
        ("GET", f"/jobs/{job[:4]}"),
        ("GET", f"/jobs/{job}/report"),
        ("GET", f"/jobs/{job}/events"),
        ("GET", f"/jobs/{job}/events/stream"),
        ("GET", f"/jobs/{job}/preview?action=cancel"),
        ("POST", f"/jobs/{job}/pause"),
        ("POST", f"/jobs/{job}/cancel"),
        ("GET", f"/artifacts/{artifact}"),
        ("GET", f"/artifacts/{artifact}/tar"),
        ("GET", f"/artifacts/{artifact}/files/00000-text.txt"),
        ("DELETE", f"/artifacts/{artifact}"),
    ):
        answer = await bert.request(method, V1 + path)
        unknown = await bert.request(method, (V1 + path).replace(job, "0" * 12).replace(artifact, "0" * 64))
        assert answer.status_code == unknown.status_code == 404, path
        assert answer.json()["error"]["code"] == unknown.json()["error"]["code"]
    body = count_job(artifact)
    assert code(await bert.post(f"{V1}/jobs", json=body)) == (400, "job.input_missing")
    del body["facts"]
    assert code(await bert.post(f"{V1}/jobs", json=body)) == (404, "artifact.not_found")
    assert (await anna.get(f"{V1}/jobs/{job}")).json()["job"]["state"] == "running"


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer sk-shardwork-" + "A" * 43, "Bearer sk-" + "x" * 5_000]
)
async def test_without_a_good_key_nothing_is_told(stand: Stand, anna: httpx.AsyncClient, header: str) -> None:
    stranger = stand.client({"Authorization": header} if header else None)
    for method, path in (("GET", "/jobs"), ("POST", "/jobs"), ("GET", "/server"), ("POST", "/artifacts")):
        answer = await stranger.request(method, V1 + path)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"


async def test_a_key_in_a_cookie_or_in_the_query_is_no_key(stand: Stand, anna: httpx.AsyncClient) -> None:
    stranger = stand.client({"Cookie": f"Authorization=Bearer {stand.secrets[ANNA]}; shardwork_0=x"})
    assert code(await stranger.get(f"{V1}/jobs")) == (401, "api.no_key")
    assert code(await stranger.get(f"{V1}/jobs", params={"key": stand.secrets[ANNA]})) == (401, "api.no_key")


async def test_a_revoked_an_expired_and_a_revoked_owners_key_end_within_seconds(
    stand: Stand, anna: httpx.AsyncClient
) -> None:
    assert (await anna.get(f"{V1}/server")).status_code == 200
    await stand.change_key(ANNA, revoked=True)
    stand.clock.advance(KNOWN_S + 0.1)
    assert code(await anna.get(f"{V1}/server")) == (401, "api.bad_key")
    await stand.change_key(ANNA, revoked=False, expires_ms=stand.clock.now_ms() + 1_000)
    stand.clock.advance(KNOWN_S + 0.1)
    assert code(await anna.get(f"{V1}/server")) == (401, "api.bad_key")
    await stand.change_key(ANNA, expires_ms=0)

    def revoke(tx: Any) -> None:
        tx.put(replace(tx.get(Party, ANNA), revoked=True))

    await stand.store.write(revoke)
    stand.clock.advance(KNOWN_S + 0.1)
    assert code(await anna.get(f"{V1}/server")) == (403, "auth.revoked")


async def test_the_last_use_of_a_key_is_written_down_and_does_not_bring_a_revoked_one_back(
    stand: Stand, anna: httpx.AsyncClient
) -> None:
    await anna.get(f"{V1}/server")
    stand.clock.advance(61)
    await stand.change_key(ANNA, revoked=True)
    await anna.get(f"{V1}/server")
    digest = api_key.digest(stand.secrets[ANNA])
    key = (await stand.store.read(lambda tx: tx.find(ApiKey, secret_sha256=digest)))[0]
    assert key.revoked


async def test_a_stream_ends_with_the_key_that_opened_it(stand: Stand, anna: httpx.AsyncClient) -> None:
    job = await submit(anna)
    following = asyncio.create_task(anna.get(f"{V1}/jobs/{job}/events/stream"))
    while not stand.desk.jobs.watching:
        await asyncio.sleep(0)
    await stand.change_key(ANNA, revoked=True)
    stand.clock.advance(KNOWN_S + 0.1)
    said = (await following).text
    assert "job.running" in said and "job.end" not in said and not stand.desk.jobs.watching


async def test_one_stream_too_many_is_refused_before_it_begins(
    anna: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await submit(anna)
    monkeypatch.setattr(jobs, "MOST_WATCHES", 0)
    assert code(await anna.get(f"{V1}/jobs/{job}/events/stream")) == (429, "job.too_many_watches")


async def test_downloads_count_and_one_too_many_is_refused(stand: Stand, anna: httpx.AsyncClient) -> None:
    artifact = await send(anna)
    stand.desk.artifacts.calls = Calls(of_one_max=0)
    for path in ("tar", "files/00000-text.txt"):
        answer = await anna.get(f"{V1}/artifacts/{artifact}/{path}")
        assert code(answer) == (429, "artifact.too_many_calls")


async def test_a_reader_who_stops_reading_is_let_go(stand: Stand, anna: httpx.AsyncClient) -> None:
    artifact = await send(anna, b"x" * (3 << 20))
    stand.desk.artifacts.calls = Calls(of_one_max=1)
    stand.desk.artifacts.limits = replace(stand.desk.artifacts.limits, idle_s=0.0)
    sent: list[Message] = []

    async def nothing() -> Message:
        return await asyncio.Event().wait()  # type: ignore[return-value]

    async def send_one(message: Message) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    app = build(stand.desk.engine, Site(api=router(stand.desk)))
    headers = [(b"host", b"localhost"), (b"authorization", anna.headers["authorization"].encode())]
    path = f"{V1}/artifacts/{artifact}/tar"
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}
    await app(scope, nothing, send_one)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert len(sent[1]["body"]) <= SENT_BYTES
    stand.desk.artifacts.limits = replace(stand.desk.artifacts.limits, idle_s=60.0)
    assert (await anna.get(path)).status_code == 200


async def test_too_many_calls_are_told_when_to_come_back(stand: Stand, anna: httpx.AsyncClient) -> None:
    answers = [await anna.get(f"{V1}/server") for _ in range(BURST + 1)]
    assert {answer.status_code for answer in answers[:-1]} == {200}
    assert code(answers[-1]) == (429, "api.too_often") and answers[-1].headers["retry-after"] == "1"
    stand.clock.advance(1)
    assert (await anna.get(f"{V1}/server")).status_code == 200


async def test_guessing_keys_ends_soon_and_hurts_nobody_at_the_same_address(
    stand: Stand, anna: httpx.AsyncClient
) -> None:
    stranger = stand.client()
    headers = {"Authorization": f"Bearer {api_key.draw()}"}
    for _ in range(WRONG_BURST):
        assert (await stranger.get(f"{V1}/server", headers=headers)).status_code == 401
    assert (await stranger.get(f"{V1}/server", headers=headers)).status_code == 429
    assert (await anna.get(f"{V1}/server")).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b"\xff\xfe", None),
        (b'{"msat": NaN}', None),
        (b"[" * 100_000, None),
        (b'{"msat": ' + b"9" * 5_000 + b"}", None),
        (b'{"msat": -1}', "msat"),
        (b'{"msat": "x"}', "msat"),
        (b'{"msat": 1e400}', "msat"),
        (b'{"msat": 1.5}', "msat"),
        (b'{"idempotency_key": "\\ud800"}', None),
        (b'{"idempotency_key": "a\\u0000b"}', None),
        (b'{"idempotency_key": {"a": 1}}', "idempotency_key"),
        (b'{"msats": 1}', "msats"),
        (b'{"job_id": "another"}', "job_id"),
    ],
)
async def test_a_body_that_cannot_be_is_refused_with_its_field(
    anna: httpx.AsyncClient, body: bytes, param: str | None
) -> None:
    answer = await anna.post(f"{V1}/jobs/x/topup", content=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_body_that_is_too_large_ends_early_declared_or_not(stand: Stand, anna: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield b" " * (1 << 16)

    assert code(await anna.post(f"{V1}/jobs", content=endless())) == (413, "api.too_large")
    assert sent <= bodies.JSON_MAX_BYTES + (2 << 16)
    declared = await anna.post(f"{V1}/jobs", content=b"{}", headers={"Content-Length": str(1 << 40)})
    assert code(declared) == (413, "api.too_large")
    stand.desk.file_max_bytes = 1_000
    big = await anna.post(f"{V1}/artifacts", files={"file": ("a.txt", b"x" * (1 << 20))})
    assert code(big) == (413, "api.too_large")
    assert list(stand.desk.scratch.glob("form-*")) == []


async def test_a_body_that_comes_too_slowly_ends(
    stand: Stand, anna: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "IDLE_S", 0.0)

    async def stalled() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    assert code(await anna.post(f"{V1}/jobs", content=stalled())) == (408, "api.too_slow")


def form(*parts: bytes, end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end


FILE = b'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nrow'
FIELD = b'Content-Disposition: form-data; name="%d"\r\n\r\nx'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        form(),
        form(FILE, FILE),
        form(FILE, end=b""),
        form(FILE.replace(b'"file"', b'"other"')),
        form(FILE.replace(b"a.txt", b"..")),
        form(FILE.replace(b"a.txt", b"")),
        form(FILE.replace(b"row", b"")),
        form(*(FIELD % number for number in range(17)), FILE),
        form(FIELD % 1, FILE),
        form(b'Content-Disposition: form-data; name="1"\r\n\r\n' + b"x" * 5_000, FILE),
        form(b"X-A: " + b"y" * 9_000 + b"\r\n" + FILE),
        form(*[b"\r\n".join([b"X: y"] * 50) + b"\r\n" + FILE]),
        b"--c\r\n" + FILE,
    ],
)
async def test_a_form_that_is_none_leaves_nothing_behind(stand: Stand, anna: httpx.AsyncClient, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = await anna.post(f"{V1}/artifacts", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert list(stand.desk.scratch.glob("*")) == []
    assert (await anna.get(f"{V1}/artifacts")).json()["artifacts"] == []


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../x.jsonl", "x.jsonl"),
        ("..\\..\\x.jsonl", "x.jsonl"),
        ("/etc/passwd", "passwd"),
        ("a\x00b.txt", "a_b.txt"),
        ("a\u202egpj.exe", "a_gpj.exe"),
        ("x" * 400 + ".txt", "x" * 120 + ".txt"),
    ],
)
async def test_a_files_name_is_its_last_part_made_plain(anna: httpx.AsyncClient, sent: str, kept: str) -> None:
    part = FILE.replace(b"a.txt", sent.encode())
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = await anna.post(f"{V1}/artifacts", content=form(part), headers=headers)
    assert answer.status_code == 200, answer.text
    files = (await anna.get(f"{V1}/artifacts/{answer.json()['artifact_id']}")).json()["files"]
    assert [each["path"] for each in files] == [f"00000-{kept}"]


@pytest.mark.parametrize("path", ["..%2f..%2fetc%2fpasswd", "%00", "x/../../y", "00000-text.txt/", "%2e%2e"])
async def test_a_path_below_an_artifact_names_its_files_only(anna: httpx.AsyncClient, path: str) -> None:
    artifact = await send(anna)
    answer = await anna.get(httpx.URL(f"http://localhost{V1}/artifacts/{artifact}/files/{path}"))
    # a zero byte is refused before anything looks at the path
    assert answer.status_code == (400 if path == "%00" else 404)


@pytest.mark.parametrize("token", ["x", "1-", "-1-a", "9" * 30 + "-a", "1-a-b\x00", "１-a"])
async def test_a_forged_cursor_is_refused_or_shows_only_ones_own(
    anna: httpx.AsyncClient, bert: httpx.AsyncClient, token: str
) -> None:
    job = await submit(anna)
    answer = await bert.get(f"{V1}/jobs", params={"page_token": token})
    assert answer.status_code in (200, 400, 404) and job not in answer.text


async def test_another_host_or_another_sites_page_is_refused_also_with_a_key(
    stand: Stand, anna: httpx.AsyncClient
) -> None:
    key = anna.headers["authorization"]
    assert (await anna.get(f"{V1}/server", headers={"Host": "evil.example"})).status_code == 421
    forwarded = {"Host": "evil.example", "X-Forwarded-Host": "localhost", "Forwarded": "host=localhost"}
    assert (await anna.get(f"{V1}/server", headers=forwarded)).status_code == 421
    elsewhere = {"Authorization": key, "Sec-Fetch-Site": "cross-site"}
    assert (await stand.client(elsewhere).get(f"{V1}/server")).status_code == 403


async def test_an_uncaught_error_tells_nothing(
    stand: Stand, anna: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a secret of the operator")

    monkeypatch.setattr(stand.desk.engine.store, "read", broken)
    await asyncio.sleep(0)
    answer = await anna.get(f"{V1}/jobs")
    assert code(answer) == (500, "internal.unexpected") and "secret" not in answer.text
