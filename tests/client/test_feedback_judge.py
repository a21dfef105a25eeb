"""An outside judge: both orders, flips, retries, a cap that no call passes, and runs that go on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardwork.client.feedback import endpoint as module
from shardwork.client.feedback.endpoint import Endpoint
from shardwork.errors import InvalidInput
from shardwork.feedback.votes import read

from .conftest import Run, error_of, json_of
from .fake_endpoint import FakeEndpoint, Judge

Endpoints = Callable[..., FakeEndpoint]
KEY = "sk-secret-of-the-requester"


def better(first: str, second: str) -> float:
    return 0.9 if first.startswith("good") else 0.1


def always_first(first: str, second: str) -> str:
    return "A"


def letters(first: str, second: str) -> str:
    return "A" if first.startswith("good") else " B\n"


def says(said: str) -> Judge:
    return lambda first, second: said


@pytest.fixture
def endpoint() -> Iterator[Endpoints]:
    made: list[FakeEndpoint] = []

    def make(judge: Judge = better, **more: Any) -> FakeEndpoint:
        made.append(FakeEndpoint(judge, **more))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return rows(tmp_path / "rows.jsonl", 5)


def rows(path: Path, count: int, bad: str = "bad") -> Path:
    lines = [
        {
            "prompt_id": f"p{number}",
            "prompt": f"{number}?",
            "answers": [{"model": "new", "text": f"good {number}"}, {"model": "old", "text": f"{bad} {number}"}],
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def command(answers: Path, out: Path, to: FakeEndpoint, *more: object) -> tuple[object, ...]:
    asked = ("feedback", "judge", answers, out, "--endpoint", to.url, "--model", "big", "--json")
    return (*asked, *(more or ("--max-tokens", "100000")))


def votes(out: Path) -> list[dict[str, Any]]:
    text = (out / "votes.jsonl").read_text()
    assert len(list(read(text.splitlines(), "votes.jsonl"))) == text.count("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_each_pair_is_asked_in_both_orders(run: Run, endpoint: Endpoints, answers: Path, tmp_path: Path) -> None:
    to = endpoint()
    told = json_of(run(*command(answers, tmp_path / "out", to)))
    assert (told["judged"], told["flips"], told["left"], told["calls"], told["tokens"]) == (5, 0, 0, 10, 1010)
    assert to.answered == 10
    found = votes(tmp_path / "out")
    assert sorted((one["prompt_id"], one["order"]) for one in found) == [
        (f"p{number}", order) for number in range(5) for order in ("ab", "ba")
    ]
    for one in found:
        won = one["model_a"] if one["winner"] == "a" else one["model_b"]
        assert won == "new" and one["confidence"] == 0.9 and one["source"] == "judge"
    assert {one["model_a"] for one in found} == {"new", "old"}
    items = [json.loads(line) for line in (tmp_path / "out" / "items.jsonl").read_text().splitlines()]
    assert {one["item"] for one in items} == {one["item"] for one in found}


def test_a_judge_that_likes_what_is_first_flips_and_makes_no_preference(
    run: Run, endpoint: Endpoints, answers: Path, tmp_path: Path
) -> None:
    to = endpoint(always_first)
    assert json_of(run(*command(answers, tmp_path / "out", to)))["flips"] == 5
    assert all(one["reasons"] == ["flip"] for one in votes(tmp_path / "out"))
    made = run("feedback", "export", tmp_path / "out", tmp_path / "p.jsonl", "--to", "preferences", "--json")
    assert (made.exit_code, error_of(made)["code"]) == (3, "feedback.no_preferences")
    assert not (tmp_path / "p.jsonl").exists()


@pytest.mark.parametrize("said", ["C", "", "A is better", "AB", "a", "**A**", "I choose A", "<|im_end|>A", "B.", "AA"])
def test_nothing_but_one_letter_is_a_verdict(
    said: str, run: Run, endpoint: Endpoints, answers: Path, tmp_path: Path
) -> None:
    told = json_of(run(*command(answers, tmp_path / "out", endpoint(says(said)))))
    assert (told["judged"], told["unreadable"], told["calls"]) == (0, 5, 10)
    assert votes(tmp_path / "out") == []


def test_letters_count_where_there_are_no_probabilities(
    run: Run, endpoint: Endpoints, answers: Path, tmp_path: Path
) -> None:
    to = endpoint(letters)
    more = ("--max-tokens", 10**6, "--no-logprobs")
    assert json_of(run(*command(answers, tmp_path / "out", to, *more)))["judged"] == 5
    assert all("logprobs" not in body for body in to.bodies)
    assert {one["confidence"] for one in votes(tmp_path / "out")} == {1.0}


def test_a_repeat_asks_nothing_again(run: Run, endpoint: Endpoints, answers: Path, tmp_path: Path) -> None:
    to = endpoint()
    first = json_of(run(*command(answers, tmp_path / "out", to)))
    assert json_of(run(*command(answers, tmp_path / "out", to))) == first
    assert to.answered == 10


def test_what_is_busy_is_asked_again_and_paid_once(
    run: Run, endpoint: Endpoints, answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_PAUSE_S", 0.0)
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.0)
    to = endpoint(failures=[429, 503, 500, 429])
    told = json_of(run(*command(answers, tmp_path / "out", to)))
    assert (told["judged"], told["calls"], to.answered) == (5, 10, 10)


def test_the_cap_is_counted_before_each_call(run: Run, endpoint: Endpoints, answers: Path, tmp_path: Path) -> None:
    """A server that charges all of what a call may cost can't be made to charge more than the cap."""
    to = endpoint(usage=False)
    for tokens in (1, 500, 3000):
        done = run(*command(answers, tmp_path / "out", to, "--max-tokens", tokens))
        assert done.exit_code == 6
        told = json_of(done)
        assert told["tokens"] <= tokens and told["left"] == 5 - told["judged"] > 0
        assert told["calls"] == to.answered == 2 * told["judged"]
    assert to.answered >= 2
    assert json_of(run(*command(answers, tmp_path / "out", to, "--max-tokens", 10**6)))["judged"] == 5
    assert to.answered == 10


def test_dollars_are_capped_as_tokens_are(run: Run, endpoint: Endpoints, answers: Path, tmp_path: Path) -> None:
    to = endpoint()
    prices = ("--usd-in", "2.50", "--usd-out", "10")
    told = json_of(run(*command(answers, tmp_path / "out", to, "--max-usd", "1", *prices)))
    assert told["usd"] == pytest.approx(10 * (100 * 2.5 + 10) / 1e6) and told["judged"] == 5
    less = run(*command(answers, tmp_path / "2", to, "--max-usd", "0.000001", *prices))
    assert less.exit_code == 6 and json_of(less)["calls"] == 0 and to.answered == 10


def test_a_call_whose_answer_never_came_is_counted_and_not_made_again(
    run: Run, endpoint: Endpoints, answers: Path, tmp_path: Path
) -> None:
    to = endpoint(breaks={3})
    first = json_of(run(*command(answers, tmp_path / "out", to, "--max-tokens", 10**6, "--parallel", 1)))
    assert (first["judged"], first["lost"], first["left"]) == (4, 1, 0)
    assert first["tokens"] > 9 * 101  # the lost one at its most
    asked = len(to.texts)
    again = json_of(run(*command(answers, tmp_path / "out", to, "--max-tokens", 10**6, "--parallel", 1)))
    assert again == first and len(to.texts) == asked


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_goes_on_and_pays_nothing_twice(
    how: signal.Signals, run: Run, endpoint: Endpoints, tmp_path: Path, home: Path
) -> None:
    gate = threading.Event()
    to, data = endpoint(gate=gate), rows(tmp_path / "many.jsonl", 12)
    words = [str(one) for one in command(data, tmp_path / "out", to, "--max-tokens", 10**6, "--parallel", 2)]
    process = subprocess.Popen(
        [sys.executable, "-m", "shardwork_client.cli", *words],
        env={**os.environ, "SHARDWORK_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    for _ in range(2):
        assert to.arrived.acquire(timeout=60)
    process.send_signal(how)
    if how is signal.SIGKILL:
        process.wait(30)
    gate.set()
    process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if how is signal.SIGKILL else 130)
    told = json_of(run(*command(data, tmp_path / "out", to, "--max-tokens", 10**6)))
    assert len(to.texts) == len(set(to.texts)) <= 24
    if how is signal.SIGKILL:
        assert (told["judged"], told["lost"]) == (10, 2)
    else:
        assert (told["judged"], told["lost"], len(to.texts)) == (12, 0, 24)


def test_the_key_goes_to_the_endpoint_and_nowhere_else(
    run: Run, endpoint: Endpoints, answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    to = endpoint()
    done = run(*command(answers, tmp_path / "out", to, "--max-tokens", 10**6, "--key-env", "MY_KEY"))
    assert to.keys == {f"Bearer {KEY}"}
    said = done.stdout + done.stderr
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(KEY in text for text in (said, *written))
    refusing = endpoint(failures=[400])
    refused = run(*command(answers, tmp_path / "2", refusing, "--max-tokens", 10**6, "--key-env", "MY_KEY"))
    assert refused.exit_code == 3 and error_of(refused)["code"] == "feedback.refused"
    assert KEY not in refused.stderr and "***" in refused.stderr
    assert KEY not in repr(Endpoint(url="https://x/v1", model="m", key=KEY))


def test_a_key_that_is_missing_refused_or_would_be_readable_is_told(
    run: Run, endpoint: Endpoints, answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    to = endpoint(failures=[401])
    more = ("--max-tokens", 10**6, "--key-env", "MY_KEY")
    missing = run(*command(answers, tmp_path / "out", to, *more))
    assert missing.exit_code == 5 and error_of(missing)["code"] == "feedback.no_key"
    monkeypatch.setenv("MY_KEY", KEY)
    refused = run(*command(answers, tmp_path / "out", to, *more, "--parallel", 1))
    assert refused.exit_code == 5 and error_of(refused)["code"] == "feedback.key_refused"
    with pytest.raises(InvalidInput, match="unencrypted"):
        Endpoint(url="http://judge.example.com/v1", model="m", key=KEY).check()
    # what was refused was not paid: it is asked when the key is right
    assert json_of(run(*command(answers, tmp_path / "out", to, *more)))["judged"] == 5


def test_answers_of_another_judge_are_not_mixed_in(
    run: Run, endpoint: Endpoints, answers: Path, tmp_path: Path
) -> None:
    to = endpoint()
    assert run(*command(answers, tmp_path / "out", to)).exit_code == 0
    other = run(*command(answers, tmp_path / "out", to, "--max-tokens", 10**6, "--seed", 7))
    assert other.exit_code == 1 and error_of(other)["code"] == "feedback.other_judge"
    assert to.answered == 10


def test_a_line_that_was_not_finished_is_no_call(run: Run, endpoint: Endpoints, answers: Path, tmp_path: Path) -> None:
    to = endpoint()
    first = json_of(run(*command(answers, tmp_path / "out", to)))
    with (tmp_path / "out" / "calls.jsonl").open("ab") as sink:
        sink.write(b'{"asked": ["x", "a')
    assert json_of(run(*command(answers, tmp_path / "out", to))) == first


def test_without_a_cap_nothing_is_asked(run: Run, endpoint: Endpoints, answers: Path, tmp_path: Path) -> None:
    to = endpoint()
    for more in (("--parallel", 1), ("--max-usd", "1"), ("--max-usd", "much", "--usd-in", "1", "--usd-out", "1")):
        done = run(*command(answers, tmp_path / "out", to, *more))
        assert done.exit_code == 2 and error_of(done)["code"] == "usage"
    assert to.texts == []
