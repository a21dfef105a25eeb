"""The overview page: what it says, that strangers' text stays text, its headers, its guard and its stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from sse_starlette import ServerSentEvent

from shardwork.clock import ManualClock
from shardwork.why import Why
from shardwork_coordinator.records import Event, JobState
from shardwork_coordinator.settings import Settings
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.tls import Authority
from shardwork_coordinator.web import Site, WebAddress, guard, live, rows, serve_web, server
from shardwork_coordinator.web.dashboard import pulse
from shardwork_coordinator.web.live import Live
from shardwork_coordinator.web.server import build

from .scene import COOKIE, HOSTILE_JOB, HOSTILE_WORKER, LONG_NAME, Scene, everything, facts, signed_in


@contextlib.asynccontextmanager
async def browser(scene: Scene, host: str = "localhost") -> AsyncGenerator[httpx.AsyncClient, None]:
    transport = httpx.ASGITransport(build(scene.engine))
    cookies = {COOKIE: await signed_in(scene)}
    try:
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}", cookies=cookies) as client:
            yield client
    finally:
        scene.store.close()


def authority(folder: Path) -> Authority:
    folder.mkdir(exist_ok=True, mode=0o700)
    return Authority.load_or_create(folder)


def cookie_of(address: WebAddress) -> str:
    return f"shardwork_{address.url.rpartition(':')[2]}"


async def page_of(scene: Scene) -> str:
    async with browser(scene) as client:
        return (await client.get("/overview")).text


class Tags(HTMLParser):
    """Every tag with its attributes, every piece of text, and whether each tag is closed."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID and tag not in ("polyline",):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "polyline":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


# ---- what it says ---------------------------------------------------------------------------------------------------


async def test_an_empty_coordinator_says_what_to_do_first() -> None:
    html = await page_of(Scene())
    for command in ("shardwork login JOIN", "shardwork job submit FILE", "shardwork-worker start JOIN"):
        assert f"<code>{command}</code>" in html
    assert "Nothing has happened yet." in html


async def test_a_paused_job_comes_first_with_its_reason_and_its_next_step() -> None:
    html = await page_of(await everything())
    names = re.findall(r"<h3><a [^>]*><bdi>(.*?)</bdi></a></h3>", html)
    assert names[0] == LONG_NAME
    assert "The training child was killed for memory." in html
    assert "<b>Next:</b> Lower params.batch_size" in html
    assert "<code>shardwork job resume</code>" in html
    assert "1 paused" in html


async def test_a_running_job_shows_loss_round_progress_hands_and_sats() -> None:
    html = await page_of(await everything())
    job = html[html.index('id="job-000000000001"') :].partition("</li>")[0]
    assert "7.6450 → <b>6.2000</b>" in " ".join(job.split())
    assert "round 4 of 6: learn" in job
    assert "1 worker is on the learn phase." in job
    # setup and three rounds of eight are done, and 42 % of the learning of the next
    assert 'value="54"' in job
    assert "42 %" in job
    assert "4.54 sat" in job
    assert "spent of 55.08 sat" in job


async def test_a_job_without_held_out_rows_shows_its_training_loss_as_such() -> None:
    scene = Scene()
    job = await scene.job("plain", JobState.RUNNING, rounds=1, losses=False)
    found = await scene.store.read(lambda tx: rows.overview(tx, facts(scene), []))
    assert found.jobs[0].id == job
    assert found.jobs[0].loss is None
    html = await page_of(scene)
    assert "held-out loss" not in html


async def test_workers_show_what_they_do_and_what_they_earned() -> None:
    scene = await everything()
    found = await scene.store.read(lambda tx: rows.overview(tx, facts(scene), scene.links.accepting()))
    shown = {worker.name: worker for worker in found.workers}
    assert (shown["alice"].state, shown["alice"].doing) == ("busy", "learn of news-7b-summaries, 42 %")
    assert (shown["alice"].accepted, shown["alice"].earned_msat) == (1, 3_000)
    assert shown["dora"].state == "paused"
    assert [worker.state for worker in found.workers][-1] == "offline"
    assert (found.attached, found.busy) == (3, 2)


async def test_events_name_jobs_and_workers_instead_of_ids() -> None:
    html = await page_of(await everything())
    assert "learn shard 0 went to worker “alice”." in html
    assert '<a href="/jobs/000000000001"' in html


async def test_long_lists_are_cut_and_say_so() -> None:
    scene = Scene()
    for number in range(rows.MOST_ENDED_JOBS + 6):
        await scene.job(f"job {number}", JobState.SUCCEEDED)
    for number in range(rows.MOST_WORKERS + 2):
        await scene.worker(number + 1, f"worker {number}")
    html = await page_of(scene)
    assert len(re.findall("<h3>", html)) == rows.MOST_ENDED_JOBS
    assert '6 more are not shown: <a href="/jobs"' in html
    assert '2 more are not shown: <a href="/workers"' in html
    assert html.count("<li><time") == rows.MOST_EVENTS


async def test_the_page_is_well_formed_and_labels_what_it_shows() -> None:
    tags = Tags(await page_of(await everything()))
    assert tags.open == []
    identities = [attributes["id"] for _, attributes in tags.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    assert all(attributes.get("aria-label") for attributes in tags.of("progress") + tags.of("svg"))
    # a live swap gives the focus back to what has the same id
    swapped = [one for one in tags.of("a") if str(one["href"]).startswith("/jobs/")]
    assert swapped and all(attributes.get("id") for attributes in swapped)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (-5, "now"),
        (1_999, "now"),
        (12_000, "12 s ago"),
        (180_000, "3 min ago"),
        (7_200_000, "2 h ago"),
        (4 * 86_400_000, "4 d ago"),
    ],
)
def test_ages_are_said_in_the_largest_unit(milliseconds: int, text: str) -> None:
    assert rows.age(milliseconds) == text


def test_a_curve_falls_from_left_to_right_and_is_thinned_out() -> None:
    assert rows.curve([3.0]) == ""
    points = [tuple(map(float, point.split(","))) for point in rows.curve([float(9 - n) for n in range(10)]).split()]
    assert points[0] == (2.0, 2.0)
    assert points[-1] == (rows.CURVE_WIDTH - 2, rows.CURVE_HEIGHT - 2)
    assert len(rows.curve([float(number) for number in range(1_000)]).split()) == rows.MOST_POINTS


# ---- strangers' text ------------------------------------------------------------------------------------------------


async def test_names_that_are_markup_stay_text_everywhere() -> None:
    tags = Tags(await page_of(await everything()))
    scripts = [attributes.get("src") for attributes in tags.of("script")]
    assert scripts == ["/static/htmx.min.js", "/static/htmx-sse.min.js", "/static/page.js"]
    for _, attributes in tags.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    assert HOSTILE_JOB in tags.texts
    assert HOSTILE_WORKER in tags.texts
    assert any(attributes.get("aria-label") == f"Progress of {HOSTILE_JOB}" for attributes in tags.of("progress"))


async def test_backticks_in_a_reason_make_code_and_nothing_else() -> None:
    scene = Scene()
    why = Why(code="x", sentence="It said `<b>` and <i>.", next_step="Try `a` or `<script>`.")
    await scene.job("odd", JobState.PAUSED, why=why)
    html = await page_of(scene)
    assert "It said <code>&lt;b&gt;</code> and &lt;i&gt;." in html
    assert "Try <code>a</code> or <code>&lt;script&gt;</code>." in html


# ---- headers and guard ----------------------------------------------------------------------------------------------


async def test_every_answer_forbids_inline_and_foreign_content() -> None:
    async with browser(await everything()) as client:
        answers = [
            await client.get(path) for path in ("/overview", "/static/style.css", "/metrics", "/healthz", "/nothing")
        ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 404]
    assert answers[0].headers["cache-control"] == "no-store"
    assert answers[1].headers["cache-control"] == "no-cache"


async def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    tags = Tags(await page_of(await everything()))
    links = [value for _, attributes in tags.tags for name, value in attributes.items() if name in ("src", "href")]
    assert links
    assert all(link is not None and link.startswith(("/", "#")) and not link.startswith("//") for link in links)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "127.0.0.1:1", "127.8.0.1", "[::1]", "[::1]:80", "LOCALHOST"]
)
def test_loopback_names_are_known(host: str) -> None:
    assert guard.is_loopback_name(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1:80",
        "[::2]",
        "::1",
        "localhost:x",
        "[localhost]",
        "2130706433",
    ],
)
def test_other_names_are_not(host: str) -> None:
    assert not guard.is_loopback_name(host)


async def test_a_foreign_host_name_gets_no_figures() -> None:
    async with browser(await everything(), "rebound.example") as client:
        for path in ("/overview", "/live", "/metrics", "/static/style.css"):
            answer = await client.get(path)
            assert answer.status_code == 421
            assert "news-7b" not in answer.text


@pytest.mark.parametrize("host", ["[2001:db8::1]", "[2001:db8::1]:7071", "[2001:DB8::1]"])
@pytest.mark.parametrize("named", ["2001:db8::1", "[2001:db8::1]"])
async def test_a_server_answers_to_its_own_ipv6_address(host: str, named: str) -> None:
    scene = await everything()
    transport = httpx.ASGITransport(build(scene.engine, Site(hosts=(named,))))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/healthz", headers={"Host": host})).status_code == 200
        assert (await client.get("/healthz", headers={"Host": "[2001:db8::2]:7071"})).status_code == 421
    scene.store.close()


async def test_an_address_that_no_database_takes_is_refused() -> None:
    async with browser(await everything()) as client:
        for path in ("/jobs/%00", "/workers/a%00", "/money/accounts/%00"):
            assert (await client.get(path)).status_code == 400


async def test_where_no_page_is_people_read_a_page_and_programs_get_json() -> None:
    person = {"Accept": "text/html,*/*"}
    async with browser(await everything()) as client:
        lost = await client.get("/nonsense", headers=person)
        assert lost.status_code == 404 and "There is no page at this address." in lost.text
        assert 'href="/jobs"' in lost.text
        assert (await client.get("/nonsense")).json() == {"detail": "Not Found"}
        # who reloads what a form answered is back on the page with the form
        for path, page in (
            ("/jobs/abc/pause", "/jobs/abc"),
            ("/policy/set", "/policy"),
            ("/account/sessions/end", "/account"),
        ):
            answer = await client.get(path, headers=person)
            assert (answer.status_code, answer.headers["location"]) == (303, page)
        assert (await client.get("/jobs/abc/pause")).status_code == 405
        refused = await client.post("/jobs/000000000001/pause", headers=person, data={"csrf": "old"})
        assert refused.status_code == 403 and '<a href="/jobs/000000000001">Back to where you were' in refused.text


async def test_another_sites_page_may_link_to_this_one_but_not_read_its_stream() -> None:
    async with browser(await everything()) as client:
        strange = {"Sec-Fetch-Site": "cross-site"}
        followed = strange | {"Sec-Fetch-Mode": "navigate"}
        assert (await client.get("/overview", headers=followed)).status_code == 200
        assert (await client.get("/overview", headers=strange)).status_code == 403
        assert (await client.get("/live", headers=strange)).status_code == 403
        assert (await client.post("/logout", headers=followed)).status_code == 403


# ---- the stream -----------------------------------------------------------------------------------------------------


async def until_beat(updates: AsyncIterator[ServerSentEvent]) -> list[ServerSentEvent]:
    found: list[ServerSentEvent] = []
    async with asyncio.timeout(20):
        async for event in updates:
            found.append(event)
            if event.event == "beat":
                break
    return found


async def test_a_new_listener_gets_every_part_and_then_only_what_changed() -> None:
    scene = await everything()
    updates = Live(scene.engine, quiet_s=0.0, refresh_s=0.05).updates()
    first = await until_beat(updates)
    assert [event.event for event in first] == [*live.PARTS, "beat"]
    assert int(str(first[-1].data)) == scene.clock.now_ms()
    assert first[-1].retry == live.RETRY_MS
    # time alone is no change: ages move on in the browser
    scene.clock.advance(3.0)
    assert [event.event for event in await until_beat(updates)] == ["beat"]

    def note(tx: Transaction) -> None:
        tx.insert(Event(job_id="1", at_ms=scene.clock.now_ms(), kind="x", subject="1", sentence="A new line."))

    await scene.put(note)
    changed = await until_beat(updates)
    assert [event.event for event in changed] == ["events", "beat"]
    assert "A new line." in str(changed[0].data)
    await updates.aclose()
    scene.store.close()


async def test_many_listeners_share_one_look() -> None:
    scene = await everything()
    shared = Live(scene.engine, quiet_s=60.0)
    looks = await asyncio.gather(*(shared.now() for _ in range(20)))
    assert {look.number for look in looks} == {1}
    scene.store.close()


async def test_a_commit_ends_the_wait_for_the_next_look() -> None:
    scene = await everything()
    shared = Live(scene.engine, quiet_s=0.0, refresh_s=60.0)
    waiting = asyncio.create_task(shared.after(await shared.now()))
    await asyncio.sleep(0)
    await scene.job("another", JobState.RUNNING)
    async with asyncio.timeout(10):
        assert "another" in (await waiting).parts["jobs"]
    scene.store.close()


async def test_a_listener_too_many_is_sent_away_and_a_place_comes_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = await everything()
    monkeypatch.setattr(live, "MOST_LISTENERS", 1)
    shared = Live(scene.engine, quiet_s=0.0)
    first = shared.updates()
    await anext(first)
    assert shared.listeners == 1
    assert [event async for event in shared.updates("bob")] == []
    await first.aclose()
    assert shared.listeners == 0
    again = shared.updates()
    assert (await anext(again)).event == "figures"
    await again.aclose()
    scene.store.close()


async def test_one_person_can_not_take_all_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = await everything()
    monkeypatch.setattr(live, "MOST_OF_ONE", 2)
    shared = Live(scene.engine, quiet_s=0.0)
    mine = [shared.updates("vic") for _ in range(2)]
    for one in mine:
        await anext(one)
    assert shared.is_full("vic") and [event async for event in shared.updates("vic")] == []
    others = shared.updates("ada")
    assert (await anext(others)).event == "figures"
    for one in (*mine, others):
        await one.aclose()
    assert not shared.is_full("vic") and shared.listeners == 0
    scene.store.close()


async def test_the_stream_is_server_sent_events_on_a_real_port_and_ends_with_the_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    scene = await everything()
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"))
    events: dict[str, Any] = {}
    secret = await signed_in(scene)
    async with httpx.AsyncClient() as client:
        async with serve_web(
            Site(settings=settings), scene.engine, authority(tmp_path_factory.mktemp("keys"))
        ) as address:
            cookies = {"Cookie": f"{cookie_of(address)}={secret}"}
            async with client.stream("GET", f"{address.url}/live", headers=cookies) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                assert "content-security-policy" in answer.headers
                async with asyncio.timeout(20):
                    lines = answer.aiter_lines()
                    async for line in lines:
                        if line.startswith("event: "):
                            events[line.removeprefix("event: ")] = (await anext(lines)).removeprefix("data: ")
                        if "beat" in events:
                            break
            stopping = time.monotonic()
        assert time.monotonic() - stopping < 5
        with pytest.raises(httpx.ConnectError):
            await client.get(address.url)
    assert list(events) == [*live.PARTS, "beat"]
    assert json.loads(events["beat"]) == scene.clock.now_ms()
    scene.store.close()


@pytest.mark.parametrize("stream", ["/live", "/pulse"])
async def test_an_open_page_does_not_hold_up_the_end_and_leaves_no_traceback(
    stream: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # longer than the server waits for anybody
    monkeypatch.setattr(pulse, "QUIET_S", 60.0)
    scene = await everything()
    is_open = asyncio.Event()

    secret = await signed_in(scene)

    async def watch(address: WebAddress) -> bytes:
        cookies = {"Cookie": f"{cookie_of(address)}={secret}"}
        found = b""
        async with httpx.AsyncClient(headers=cookies) as client, client.stream("GET", address.url + stream) as answer:
            async for part in answer.aiter_bytes():
                found += part
                is_open.set()
        return found

    async with serve_web(
        Site(settings=Settings(data_dir=tmp_path)), scene.engine, authority(tmp_path / "keys")
    ) as address:
        watching = asyncio.create_task(watch(address))
        await is_open.wait()
        # it was told of a change, and rests
        scene.engine.wake()
        await asyncio.sleep(0)
    assert b"event: beat" in await watching
    assert "Traceback" not in capsys.readouterr().err
    scene.store.close()


async def test_health_says_when_the_store_is_gone() -> None:
    scene = Scene()
    async with browser(scene) as client:
        assert (await client.get("/healthz")).text == "ok\n"
        scene.store.close()
        answer = await client.get("/healthz")
        assert answer.status_code == 503
        assert "the store does not answer" in answer.text


async def test_health_says_when_the_disk_is_full_and_metrics_how_much_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene()
    app = server.build(scene.engine, server.Site(folder=tmp_path))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        free = [server.LEAST_FREE_BYTES]

        def usage(_: object) -> SimpleNamespace:
            return SimpleNamespace(free=free[-1], total=1 << 40)

        monkeypatch.setattr(shutil, "disk_usage", usage)
        assert (await client.get("/healthz")).status_code == 200
        assert "shardwork_disk_free_bytes 1.6777216e+07" in (await client.get("/metrics")).text
        free.append(server.LEAST_FREE_BYTES - 1)
        answer = await client.get("/healthz")
        assert answer.status_code == 503 and "full" in answer.text
    scene.store.close()


async def test_many_paused_jobs_do_not_hide_the_running_ones() -> None:
    scene = Scene()
    for number in range(rows.MOST_LIVE_JOBS + 5):
        await scene.job(f"stuck {number}", JobState.PAUSED, why=Why(code="a.b", sentence="It waits."))
    for number in range(3):
        await scene.job(f"busy {number}", JobState.RUNNING)
    html = await page_of(scene)
    names = re.findall(r"<h3><a [^>]*><bdi>(.*?)</bdi></a></h3>", html)
    assert len(names) == rows.MOST_LIVE_JOBS and names[0] == "stuck 24"
    assert names[-3:] == ["busy 2", "busy 1", "busy 0"]


async def test_a_name_written_from_right_to_left_turns_nothing_else_round() -> None:
    scene = Scene()
    job = await scene.job("שלום", JobState.RUNNING, rounds=1)
    await scene.learning(job, await scene.worker(1, "مرحبا"), number=2, position=0, progress=0.3)
    html = await page_of(scene)
    assert "<bdi>שלום</bdi>" in html and "<bdi>مرحبا</bdi>" in html
    assert "learn of \u2068שלום\u2069, 30 %" in html and "“\u2068مرحبا\u2069”" in html


async def test_a_worker_that_is_attached_and_not_heard_is_called_silent() -> None:
    clock = ManualClock()
    scene = Scene(clock)
    await scene.worker(1, "laptop")
    clock.advance(rows.SILENT_HEARTBEATS * 2.0 + 4)
    html = await page_of(scene)
    assert '<span class="state silent">silent</span>' in html and "not heard, seen" in html and "14 s ago" in html
