"""Signing in to the dashboard: right and wrong passwords, locks, codes, roles, forms of others, and the first user."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any

import httpx
import pytest
from pyotp.totp import TOTP

from shardwork.errors import Conflict, InvalidInput, LimitExceeded
from shardwork_coordinator.accounts import codes, passwords, sessions, users
from shardwork_coordinator.records import AuditEntry, JobState, WebRole, WebSession, WebUser
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.web.dashboard import limiter
from shardwork_coordinator.web.server import Site, build

from .scene import Scene
from .visitor import COOKIE, act, token, visitor

PASSWORD = "four words of no sense"
KEPT = passwords.digest(PASSWORD)
PAGES = ("/overview", "/jobs", "/jobs/000000000001", "/users", "/account")


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def add(scene: Scene, name: str = "ada", role: WebRole = WebRole.OPERATOR, *, secret: str = "") -> None:
    def work(tx: Transaction) -> None:
        users.add(tx, name, role, KEPT, scene.clock.now_ms())
        users.set_totp(tx, name, secret)

    await scene.store.write(work)


async def sign_in(client: httpx.AsyncClient, password: str = PASSWORD, **fields: str) -> httpx.Response:
    return await client.post("/login", data={"name": "ada", "password": password, **fields})


async def test_nobody_sees_anything_without_signing_in(scene: Scene) -> None:
    async with visitor(scene.engine, None) as client:
        for path in PAGES:
            answer = await client.get(path)
            assert answer.status_code == 303 and answer.headers["location"].startswith("/login")
        for path in ("/live", "/pulse"):
            assert (await client.get(path)).status_code == 401
        assert (await client.post("/users/add", data={"name": "eve"})).headers["location"] == "/login"


async def test_a_right_password_opens_the_page_that_was_wanted(scene: Scene) -> None:
    await add(scene)
    async with visitor(scene.engine, None) as client:
        login = (await client.get("/jobs?state=paused")).headers["location"]
        assert 'name="next" value="/jobs?state=paused"' in (await client.get(login)).text
        answer = await sign_in(client, next="/jobs?state=paused")
        assert (answer.status_code, answer.headers["location"]) == (303, "/jobs?state=paused")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Secure" not in cookie
        assert (await client.get("/jobs")).status_code == 200
    (session,) = await scene.store.read(lambda tx: tx.find(WebSession))
    # what is stored opens nothing
    assert session.id not in cookie and sessions.digest(cookie.split("=", 1)[1].split(";")[0]) == session.id


async def test_the_cookie_goes_over_tls_only_where_there_is_tls(scene: Scene) -> None:
    await add(scene)
    async with visitor(scene.engine, None, site=Site(is_secure=True)) as client:
        answer = await sign_in(client)
        assert "Secure" in answer.headers["set-cookie"]
        assert "max-age" in answer.headers["strict-transport-security"]


@pytest.mark.parametrize(
    "wanted", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "/a\nb"]
)
async def test_the_way_back_leads_to_no_other_site(scene: Scene, wanted: str) -> None:
    await add(scene)
    async with visitor(scene.engine, None) as client:
        assert (await sign_in(client, next=wanted)).headers["location"] == "/overview"


async def test_wrong_passwords_say_the_same_whoever_it_is_and_lock_a_user(scene: Scene) -> None:
    await add(scene)
    async with visitor(scene.engine, None) as client:
        unknown = await client.post("/login", data={"name": "nobody", "password": "x"})
        wrong = await sign_in(client, "x")
        assert unknown.status_code == wrong.status_code == 401
        assert "Name, password or code is wrong." in unknown.text and "Name, password or code is wrong." in wrong.text
        for _ in range(users.FREE_FAILURES - 1):
            await sign_in(client, "x")
        locked = await sign_in(client)
        assert locked.status_code == 429 and "Too many wrong passwords" in locked.text
        scene.clock.advance(users.FIRST_LOCK_MS / 1000 + 1)
        assert (await sign_in(client)).status_code == 303
    (user,) = await scene.store.read(lambda tx: tx.find(WebUser))
    assert user.failures == 0


async def test_one_address_may_not_try_for_ever(scene: Scene) -> None:
    async with visitor(scene.engine, None) as client:
        seen = [(await client.post("/login", data={"name": f"u{n}", "password": "x"})).status_code for n in range(12)]
    assert seen == [401] * limiter.BURST + [429] * 2


async def test_a_stolen_session_has_no_more_tries_at_the_password_than_the_login(scene: Scene) -> None:
    await add(scene)
    async with visitor(scene.engine) as client:
        csrf = await token(client)
        fields = {"csrf": csrf, "password": "x", "new": PASSWORD + "!"}
        seen = [(await client.post("/account/password", data=fields)).status_code for _ in range(limiter.BURST + 1)]
        assert seen == [401] * limiter.BURST + [429]
        assert (await client.post("/account/codes", data=fields)).status_code == 429


async def test_a_form_that_is_cut_off_leaves_no_error_in_the_log(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    pieces = iter([{"type": "http.request", "body": b"name=", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(pieces)

    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost")]
    scope = {"type": "http", "method": "POST", "path": "/login", "query_string": b"", "headers": headers}
    await build(scene.engine)(scope, receive, send)
    assert sent[0]["status"] == 400 and caplog.records == []


def test_the_limiter_forgets_the_oldest_and_grows_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "MOST_ADDRESSES", 2)
    found = limiter.Limiter()
    for _ in range(limiter.BURST):
        found.take("a", 0.0)
    with pytest.raises(LimitExceeded):
        found.take("a", 0.0)
    found.take("a", 60.0 / limiter.PER_MINUTE)
    for address in ("b", "c"):
        found.take(address, 60.0)
    found.take("a", 60.0)


async def test_a_code_is_asked_for_and_counts_once(scene: Scene) -> None:
    secret = codes.new_secret()
    await add(scene, secret=secret)
    code = TOTP(secret).at(scene.clock.now_ms() // 1000)
    async with visitor(scene.engine, None) as client:
        asked = await sign_in(client)
        assert asked.status_code == 401 and 'name="code"' in asked.text
        assert (await sign_in(client, code="000000" if code != "000000" else "111111")).status_code == 401
        assert (await sign_in(client, code=code)).status_code == 303
        client.cookies.clear()
        assert (await sign_in(client, code=code)).status_code == 401
        scene.clock.advance(codes.STEP_MS / 1000)
        assert (await sign_in(client, code=TOTP(secret).at(scene.clock.now_ms() // 1000))).status_code == 303


async def test_a_session_ends_with_time_with_leaving_and_with_its_user(scene: Scene) -> None:
    async with visitor(scene.engine) as client:
        assert (await client.get("/overview")).status_code == 200
        scene.clock.advance(sessions.IDLE_MS / 1000 + 1)
        assert (await client.get("/overview")).status_code == 303
    async with visitor(scene.engine) as client:
        scene.clock.advance(sessions.IDLE_MS / 2000)
        assert (await client.get("/overview")).status_code == 200
        scene.clock.advance(sessions.IDLE_MS / 1500)
        assert (await client.get("/overview")).status_code == 200
        kept = client.cookies[COOKIE]
        assert (await client.post("/logout")).status_code == 303
        client.cookies.set(COOKIE, kept)
        assert (await client.get("/overview")).status_code == 303
    async with visitor(scene.engine, name="bob") as other, visitor(scene.engine, name="ada") as client:
        assert (await act(other, "/users/disable", name="ada")).status_code == 303
        assert (await client.get("/overview")).status_code == 303


async def test_a_viewer_sees_everything_and_does_nothing(scene: Scene) -> None:
    job = await scene.job("watched", JobState.RUNNING, rounds=1)
    async with visitor(scene.engine, WebRole.VIEWER) as client:
        page = (await client.get(f"/jobs/{job}")).text
        assert "watched" in page
        for path in (f"/jobs/{job}/cancel", "/users/add"):
            answer = await act(client, path, name="eve", role="operator", password=PASSWORD, reason="x")
            assert answer.status_code == 403 and "may look, but not act" in answer.text
        assert (await client.get("/users")).status_code == 403
    assert await scene.store.read(lambda tx: tx.find(AuditEntry)) == []


async def test_a_form_of_another_session_does_nothing(scene: Scene) -> None:
    async with visitor(scene.engine) as client, visitor(scene.engine, name="bob") as other:
        for csrf in (await token(other), "", "x"):
            fields = {"csrf": csrf, "name": "eve", "password": PASSWORD, "role": "operator"}
            answer = await client.post("/users/add", data=fields)
            assert answer.status_code == 403 and "another session" in answer.text
        too_much = await client.post("/users/add", content=b"x" * (70 << 10))
        assert too_much.status_code == 429
        for odd in (b"\xff\xfe", b"name=a%00b"):
            assert (await client.post("/users/add", content=odd)).status_code == 400
    assert await scene.store.read(lambda tx: tx.get(WebUser, "eve")) is None


async def test_people_are_let_in_and_out_with_an_entry_each(scene: Scene) -> None:
    async with visitor(scene.engine) as client:
        added = await act(client, "/users/add", name="eve", role="viewer", password=PASSWORD)
        assert added.status_code == 303
        assert "eve may sign in as viewer." in (await client.get("/users")).text
        # said once
        assert "eve may sign in as viewer." not in (await client.get("/users")).text
        assert (await act(client, "/users/add", name="eve", role="viewer", password=PASSWORD)).status_code == 409
        for fields in ({"name": "Eve!"}, {"role": "king"}, {"password": "short"}, {"password": "eve eve eve eve"}):
            wrong = {"name": "mallory", "role": "viewer", "password": PASSWORD} | fields
            wrong["name"] = "eve" if "eve eve" in wrong["password"] else wrong["name"]
            assert (await act(client, "/users/add", **wrong)).status_code == 400
        await act(client, "/users/disable", name="eve")
        await act(client, "/users/enable", name="eve")
        await act(client, "/users/password", name="eve", password=PASSWORD + "!")
    entries = await scene.store.read(lambda tx: tx.find(AuditEntry, order="id"))
    assert [(one.actor, one.action, one.subject) for one in entries] == [
        ("ada", f"user.{action}", "eve") for action in ("add", "disable", "enable", "password")
    ]


async def test_somebody_always_may_sign_in(scene: Scene) -> None:
    await add(scene)
    await add(scene, "bob", WebRole.VIEWER)

    def disable(tx: Transaction) -> None:
        users.set_disabled(tx, "ada", disabled=True)

    with pytest.raises(Conflict, match="only operator"):
        await scene.store.write(disable)
    await add(scene, "eve")
    await scene.store.write(disable)
    assert (await scene.store.read(lambda tx: users.named(tx, "ada"))).disabled


async def test_the_first_user_needs_the_address_that_serve_printed(scene: Scene) -> None:
    site = Site()
    async with visitor(scene.engine, None, site=site) as client:
        assert "Nobody may sign in yet" in (await client.get("/login")).text
        assert (await client.get("/setup?token=guessed")).status_code == 403
        fields = {"name": "ada", "password": PASSWORD}
        assert (await client.post("/setup", data={"token": "guessed", **fields})).status_code == 403
        assert (await client.get(f"/setup?token={site.setup_token}")).status_code == 200
        weak = await client.post("/setup", data={"token": site.setup_token, "name": "ada", "password": "short"})
        assert weak.status_code == 400 and "ten" in weak.text.lower()
        made = await client.post("/setup", data={"token": site.setup_token, **fields})
        assert made.headers["location"] == "/overview"
        assert (await client.get("/overview")).status_code == 200
        again = await client.post("/setup", data={"token": site.setup_token, "name": "eve", "password": PASSWORD})
        assert again.status_code == 403 and "There are users already" in again.text


async def test_ones_own_password_and_codes_need_the_present_password(scene: Scene) -> None:
    await add(scene)
    async with visitor(scene.engine) as client:
        assert (await act(client, "/account/password", password="x", new=PASSWORD + "!")).status_code == 401
        secret = codes.new_secret()
        code = TOTP(secret).at(scene.clock.now_ms() // 1000)
        assert (await act(client, "/account/codes", password="x", secret=secret, code=code)).status_code == 401
        for odd, typed in ((secret, "123"), ("!!!", code), ("A" * 8, code)):
            wrong = await act(client, "/account/codes", password=PASSWORD, secret=odd, code=typed)
            assert wrong.status_code == 400 and "account.wrong_code" in wrong.text
        assert (await act(client, "/account/codes", password=PASSWORD, secret=secret, code=code)).status_code == 303
        assert "asked for at each sign-in" in (await client.get("/account")).text
        assert (await act(client, "/account/password", password=PASSWORD, new=PASSWORD + "!")).status_code == 303
        # every session of the old one has ended, this one as well
        assert (await client.get("/account")).status_code == 303
    user = await scene.store.read(lambda tx: users.named(tx, "ada"))
    assert user.totp_secret == secret and await passwords.matches(PASSWORD + "!", user.password_hash)


async def test_old_sessions_give_way(scene: Scene) -> None:
    await add(scene)

    def begin(tx: Transaction) -> None:
        sessions.begin(tx, "ada", scene.clock.now_ms())

    for _ in range(sessions.MOST_SESSIONS + 3):
        await scene.store.write(begin)
        scene.clock.advance(1)
    found = await scene.store.read(lambda tx: tx.find(WebSession))
    assert sum(sessions.lives(one, scene.clock.now_ms()) for one in found) == sessions.MOST_SESSIONS


@pytest.mark.parametrize("password", ["", "short", "aaaaaaaaaaaaaaaa", "my name is ada", "x" * 300])
def test_weak_passwords_are_refused(password: str) -> None:
    with pytest.raises(InvalidInput):
        passwords.check_strength(password, "ada")


async def test_a_damaged_digest_opens_nothing() -> None:
    assert not await passwords.matches(PASSWORD, "")
    assert not await passwords.matches(PASSWORD, "$argon2id$nonsense")
    assert await passwords.matches(PASSWORD, KEPT)
    assert not await passwords.matches("x" * 5_000, KEPT)


async def test_a_lock_is_looked_at_again_when_many_try_at_once(scene: Scene) -> None:
    await add(scene)

    def lock(tx: Transaction) -> None:
        user = users.named(tx, "ada")
        tx.put(replace(user, locked_until_ms=scene.clock.now_ms() + 5_000))

    await scene.store.write(lock)
    with pytest.raises(LimitExceeded, match="try again in 5 s"):
        await users.sign_in(scene.store, users.Attempt(name="ada", password=PASSWORD), scene.clock.now_ms())
