"""An outside judge's server that lies, floods, stalls, sends elsewhere or echoes the key: it gets the cap at most."""

from __future__ import annotations

import gzip
import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from shardwork.client.feedback import endpoint as module
from shardwork.client.feedback.endpoint import Endpoint
from shardwork.errors import InvalidInput

from .conftest import Run, error_of, json_of

KEY = "sk-secret-of-the-requester-1234567890"
PAIRS = 3
#: what a server does with a call that it has read
Reply = Callable[[BaseHTTPRequestHandler], None]
GOOD: dict[str, Any] = {
    "choices": [{"message": {"content": "A"}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 1},
}


class Hostile:
    """A server on a port of its own."""

    def __init__(self, reply: Reply) -> None:
        self.calls: list[dict[str, str]] = []
        self.over = threading.Event()
        hostile = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                hostile.calls.append({name.lower(): value for name, value in self.headers.items()})
                try:
                    reply(self)
                except OSError:
                    self.close_connection = True

            do_GET = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def stop(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def hostile() -> Iterator[Callable[[Reply], Hostile]]:
    made: list[Hostile] = []

    def make(reply: Reply) -> Hostile:
        made.append(Hostile(reply))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MY_KEY", KEY)
    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": f"{at}?", "answers": [{"model": "m", "text": f"yes {at}"}, {"model": "n", "text": f"no {at}"}]}
        for at in range(PAIRS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(answers: Path, to: Hostile, *more: object) -> tuple[object, ...]:
    asked = ("feedback", "judge", answers, answers.parent / "out", "--endpoint", to.url, "--model", "big", "--json")
    return (*asked, "--key-env", "MY_KEY", *(more or ("--max-tokens", 10**6)))


def says(body: bytes, status: int = 200, **headers: str) -> Reply:
    def reply(to: BaseHTTPRequestHandler) -> None:
        to.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            to.send_header(name.replace("_", "-"), value)
        to.end_headers()
        to.wfile.write(body)

    return reply


def says_json(answer: Any, status: int = 200) -> Reply:
    return says(json.dumps(answer).encode(), status)


# ---- bodies ---------------------------------------------------------------------------------------------------------


def flood(to: BaseHTTPRequestHandler) -> None:
    to.send_response(200)
    to.end_headers()
    while True:
        to.wfile.write(b" " * 65536)


def drip(to: BaseHTTPRequestHandler) -> None:
    """A byte now and then, for ever: no read ever times out."""
    to.send_response(200)
    to.end_headers()
    while not threading.Event().wait(0.05):
        to.wfile.write(b" ")
        to.wfile.flush()


def early_hints(to: BaseHTTPRequestHandler) -> None:
    """Heads without an end before the real one."""
    while not threading.Event().wait(0.05):
        to.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        to.wfile.flush()


@pytest.mark.parametrize("reply", [flood, drip, early_hints])
def test_an_answer_without_an_end_is_given_up_and_counts_as_paid(
    reply: Reply, hostile: Callable[[Reply], Hostile], run: Run, answers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_S", 0.5)
    to = hostile(reply)
    told = json_of(run(*command(answers, to)))
    # the second order of a pair whose first was lost is asked all the same: it was counted with it
    assert (told["judged"], told["lost"], told["left"]) == (0, len(to.calls), 0)
    assert told["tokens"] > len(to.calls) * 500
    again = json_of(run(*command(answers, to)))
    assert again == told and len(to.calls) == told["lost"]


def test_what_is_packed_is_never_unpacked(hostile: Callable[[Reply], Hostile], run: Run, answers: Path) -> None:
    """A kilobyte may unpack to a gigabyte before anybody counts it."""
    packed = gzip.compress(json.dumps(GOOD).encode())
    to = hostile(says(packed, content_encoding="gzip"))
    told = json_of(run(*command(answers, to)))
    assert (told["judged"], told["unreadable"]) == (0, PAIRS)
    assert {call["accept-encoding"] for call in to.calls} == {"identity"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b'"A"',
        b"{}",
        b'{"choices": {}}',
        b'{"choices": []}',
        b'{"choices": [null]}',
        b'{"choices": [{"message": {"content": ["A"]}}]}',
        b'{"choices": [{"message": "A"}]}',
        b'{"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "A", "logprob": NaN}]}]}}]}',
        b'{"choices": [{"logprobs": {"content": [{"top_logprobs": {"A": 0}}]}}]}',
        b'{"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "A", "logprob": "0"}]}]}}]}',
        b'{"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "A", "logprob": -1e999}]}]}}]}',
        b'{"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "A", "logprob": '
        + b"9" * 400
        + b"}]}]}}]}",
        b'{"choices": [{"message": {"content": "' + b"A" * 5000 + b'"}}]}',
        b'{"error": {"message": "paid all the same"}}',
        b"[" * 100_000,
        b'{"usage": {"prompt_tokens": ' + b"9" * 5000 + b"}}",
    ],
)
def test_an_answer_that_cannot_be_read_is_no_verdict_and_counts_at_its_most(
    body: bytes, hostile: Callable[[Reply], Hostile], run: Run, answers: Path
) -> None:
    told = json_of(run(*command(answers, hostile(says(body)))))
    assert (told["judged"], told["unreadable"], told["calls"]) == (0, PAIRS, 2 * PAIRS)
    assert told["tokens"] > 2 * PAIRS * 500
    assert (answers.parent / "out" / "votes.jsonl").read_text() == ""


# ---- money ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [-1, True, "0", None, 0.5, [9], 2**63])
def test_a_count_of_tokens_that_is_none_counts_at_its_most(
    told: Any, hostile: Callable[[Reply], Hostile], run: Run, answers: Path
) -> None:
    lie = {**GOOD, "usage": {"prompt_tokens": told, "completion_tokens": 1}}
    assert json_of(run(*command(answers, hostile(says_json(lie)))))["tokens"] > 2 * PAIRS * 500


def test_a_server_that_charges_more_than_a_call_can_cost_is_asked_no_more(
    hostile: Callable[[Reply], Hostile], run: Run, answers: Path
) -> None:
    to = hostile(says_json({**GOOD, "usage": {"prompt_tokens": 10**5, "completion_tokens": 1}}))
    done = run(*command(answers, to, "--max-tokens", 10**6, "--parallel", 1))
    assert error_of(done)["code"] == "feedback.costs_more" and len(to.calls) == 1
    kept = [json.loads(line) for line in (answers.parent / "out" / "calls.jsonl").read_text().splitlines()]
    assert sum(row["tokens"] for row in kept if "answered" in row) == 10**5 + 1


def test_many_calls_at_once_stay_within_the_cap(hostile: Callable[[Reply], Hostile], run: Run, answers: Path) -> None:
    """As many as may be out are out before the first is answered, and each costs all that it can."""
    with answers.open("a") as sink:
        for at in range(40):
            sides = [{"model": "m", "text": f"more {at}"}, {"model": "n", "text": f"less {at}"}]
            sink.write(json.dumps({"prompt": f"{at}!", "answers": sides}) + "\n")
    together = threading.Barrier(3)

    def reply(to: BaseHTTPRequestHandler) -> None:
        with_others = len(box[0].calls) <= 3
        if with_others:
            together.wait(30)
        says_json({"choices": GOOD["choices"]})(to)

    box: list[Hostile] = []
    box.append(hostile(reply))
    done = run(*command(answers, box[0], "--max-tokens", 5000, "--parallel", 64))
    told = json_of(done)
    assert done.exit_code == 6 and told["tokens"] <= 5000
    assert len(box[0].calls) == told["calls"] >= 3


def test_a_gateway_that_stopped_waiting_may_have_been_paid(
    hostile: Callable[[Reply], Hostile], run: Run, answers: Path
) -> None:
    to = hostile(says(b"", 504))
    told = json_of(run(*command(answers, to)))
    assert told["lost"] == len(to.calls) == 2 * PAIRS and told["tokens"] > 2 * PAIRS * 500
    assert json_of(run(*command(answers, to))) == told and len(to.calls) == 2 * PAIRS


def test_who_is_busy_for_ever_is_given_up_and_nothing_is_paid(
    hostile: Callable[[Reply], Hostile], run: Run, answers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(module, "MOST_PAUSE_S", 0.0)
    to = hostile(says(b"", 429, retry_after="1e308"))
    done = run(*command(answers, to, "--max-tokens", 10**6, "--parallel", 1))
    assert error_of(done)["code"] == "feedback.unreachable" and len(to.calls) == module.TRIES
    rows = [json.loads(line) for line in (answers.parent / "out" / "calls.jsonl").read_text().splitlines()]
    assert [next(iter(row)) for row in rows] == ["about", "asked", "not_made"]


# ---- the key --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nobody_is_sent_to_another_server(
    status: int, hostile: Callable[[Reply], Hostile], run: Run, answers: Path
) -> None:
    elsewhere = hostile(says_json(GOOD))
    to = hostile(says(b"", status, location=f"{elsewhere.url}/chat/completions"))
    done = run(*command(answers, to))
    assert done.exit_code == 3 and error_of(done)["code"] == "feedback.refused"
    assert elsewhere.calls == [] and to.calls


@pytest.mark.parametrize(
    "echo", [KEY, "x" * 280 + KEY, KEY[:9] + "\u200b" + KEY[9:], "\x1b[31m" + KEY, KEY * 20], ids=str
)
@pytest.mark.parametrize("status", [400, 401, 418])
def test_a_key_that_is_said_back_is_shown_to_nobody(
    status: int, echo: str, hostile: Callable[[Reply], Hostile], run: Run, answers: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    bodies = [echo.encode(), json.dumps({"error": {"message": echo}}, ensure_ascii=False).encode()]
    to = hostile(lambda call: says(bodies[0], status)(call))
    for _ in range(2):
        done = run(*command(answers, to))
        assert done.exit_code in (3, 5)
        bodies.reverse()
        written = "".join(file.read_text() for file in answers.parent.rglob("*") if file.is_file())
        for text in (done.stdout, done.stderr, written, caplog.text):
            assert KEY[:12] not in text


@pytest.mark.parametrize("key", ["sk-a\nX-Other: 1", "sk-ä", "sk a", "sk-\u200b", "sk-\x00", "two\r\nlines"])
def test_a_key_that_no_header_can_carry_is_refused_before_anything_is_counted(
    key: str, hostile: Callable[[Reply], Hostile], run: Run, answers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = hostile(says_json(GOOD))
    with pytest.raises(InvalidInput, match="no header"):
        Endpoint(url=to.url, model="m", key=key).check()
    if "\x00" not in key:
        monkeypatch.setenv("MY_KEY", key)
        done = run(*command(answers, to))
        assert error_of(done)["code"] == "feedback.bad_key" and to.calls == []
        assert not (answers.parent / "out").exists() and key[:5] not in done.stderr


@pytest.mark.parametrize(
    "url", ["https://api.example.com/v1?api_key=sk-1", "https://k@example.com/v1", "ftp://x/v1", "https://x/v1#k", "x"]
)
def test_an_address_that_holds_a_secret_or_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Endpoint(url=url, model="m").check()
    assert caught.value.code == "feedback.bad_endpoint" and "sk-1" not in str(caught.value)
