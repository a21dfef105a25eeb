"""Somebody who judges in a terminal, against the real routes: keys become votes, and are paid as the page's are."""

from __future__ import annotations

import asyncio
import json
import shlex
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from shardwork.client.feedback import annotator as module
from shardwork.client.feedback.annotator import Annotator, Place, place_of
from shardwork.errors import InvalidInput, NotFound, ShardworkError
from shardwork_client.feedback import answering, voting
from shardwork_coordinator.records import JobState, Vote, VoteState

from .stand import BETTER, JOB, STAGE, Stand, person, rows


class Through:
    """httpx's blocking client, as the voter uses it, over the stand's: calls are made on its event loop."""

    def __init__(self, stand: Stand, loop: asyncio.AbstractEventLoop) -> None:
        self.stand, self._loop = stand, loop
        self.paths: list[str] = []
        #: calls whose answer is lost on the way
        self.loses: set[int] = set()

    def request(self, method: str, url: str, **more: Any) -> httpx.Response:
        self.paths.append(url)
        asked: Awaitable[httpx.Response] = self.stand.client.request(method, url, **more)
        answer = asyncio.run_coroutine_threadsafe(cast("Any", asked), self._loop).result(30)
        if len(self.paths) in self.loses:
            raise httpx.ReadError("cut")
        return cast("httpx.Response", answer)


@pytest.fixture
async def through(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> Through:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    return Through(stand, asyncio.get_running_loop())


def voter(through: Through, tmp_path: Path, stage: str = STAGE) -> Annotator:
    place, key = Place(web="http://localhost", job=JOB, stage=stage), tmp_path / "keys" / "annotator.key"
    return Annotator(place, key, cast("httpx.Client", through), through.stand.clock)


def keys_of(stand: Stand, shown: list[dict[str, Any]], *first: str) -> Callable[[], str]:
    """These keys, and then those of somebody who reads."""
    given: Iterator[str] = iter(first)

    def press() -> str:
        stand.clock.advance(5.0)
        known = next(given, None)
        return known or ("1" if shown[-1]["answers"][0].startswith(BETTER) else "2")

    return press


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(voting, "_show", found.append)
    return found


async def test_keys_become_votes_that_are_paid(
    stand: Stand, through: Through, shown: list[dict[str, Any]], tmp_path: Path
) -> None:
    await stand.submit()
    other, one = person(stand, 1), voter(through, tmp_path)
    await other.join()
    await asyncio.to_thread(one.join, "terminal")
    done = await asyncio.to_thread(voting.sit, one, keys_of(stand, shown, "x", "s"))
    assert await other.work() > 6
    for _ in range(2):
        await stand.later()
    await asyncio.to_thread(voting.sit, one, keys_of(stand, shown))
    for _ in range(2):
        await stand.later()
    await stand.effects()
    assert (await stand.job()).state is JobState.SUCCEEDED
    await stand.check_books()
    assert done.skipped == 1 and done.votes > 6
    mine = [vote for vote in await stand.all(Vote, state=VoteState.PAID) if vote.annotator != other.id]
    assert mine and all(vote.ms == 5000 for vote in mine)
    rows = await stand.artifact("rows", "preferences.jsonl")
    assert all(row["chosen"].startswith("a long") for row in rows)


ROWS = {
    "rank": {"prompt": "Which?", "answers": [{"model": name, "text": f"text {name}"} for name in ("x", "y", "z")]},
    "score": {"prompt": "How?", "completion": "text x"},
    "review": {"prompt": "Keep?", "completion": "text x"},
}


@pytest.mark.parametrize(
    "case",
    [
        ("rank", ["3", "3", "4", "\x7f", "2", "1", "3"], {"ranking": ["second", "first", "third"]}),
        ("score", ["9", "5", "-", "4", "2"], {"scores": {"clear": 4, "true": 2}}),
        ("review", ["1", "k"], {"verdict": "keep"}),
        ("review", ["d"], {"verdict": "discard"}),
        ("review", ["e", "e"], {"verdict": "edit", "text": "text y"}),
    ],
)
async def test_every_kind_of_task_is_answered(
    case: tuple[str, list[str], dict[str, Any]],
    stand: Stand,
    through: Through,
    shown: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    kind, keys, answer = case
    more: dict[str, Any] = (
        {"answers": 3} if kind == "rank" else {"scores": ["clear", "true"]} if kind == "score" else {}
    )
    await stand.submit(json.dumps(ROWS[kind]) + "\n", kind=kind, repeat_share=0, consensus="majority", **more)
    one = voter(through, tmp_path)
    await asyncio.to_thread(one.join, "terminal")
    edits = iter(["text x ", "text y"])  # the first changes nothing, and is not sent
    done = await asyncio.to_thread(voting.sit, one, keys_of(stand, shown, *keys, "q"), lambda _: next(edits))
    assert done.votes == 1
    (vote,) = [vote for vote in await stand.all(Vote) if vote.answer_json]
    found = json.loads(vote.answer_json)["answer"]
    if kind == "rank":
        screen = [["first", "second", "third"][vote.shown.split(",").index(str(one))] for one in found["ranking"]]
        found = {"ranking": screen}
    assert found == answer


def test_a_row_is_mended_in_the_editor_that_somebody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.delenv("VISUAL", raising=False)
    script = (
        "import pathlib, sys; file = pathlib.Path(sys.argv[1]); file.write_text(file.read_text() + ' indeed' + chr(10))"
    )
    monkeypatch.setenv("EDITOR", shlex.join([sys.executable, "-c", script]))
    assert answering.mended("so") == "so indeed"
    for broken in ("/nowhere/editor", shlex.join([sys.executable, "-c", "raise SystemExit(1)"]), "'"):
        monkeypatch.setenv("EDITOR", broken)
        assert answering.mended("so") is None


async def test_a_command_lets_go_of_what_was_typed_before_it(
    stand: Stand, through: Through, shown: list[dict[str, Any]], tmp_path: Path
) -> None:
    await stand.submit(json.dumps(ROWS["rank"]) + "\n", kind="rank", answers=3, repeat_share=0)
    one = voter(through, tmp_path)
    await asyncio.to_thread(one.join, "terminal")
    done = await asyncio.to_thread(voting.sit, one, keys_of(stand, shown, "2", "1", "u", "1", "2", "s", "q"))
    assert (done.votes, done.skipped) == (0, 1)


async def test_an_answer_is_taken_back_and_given_again(
    stand: Stand, through: Through, shown: list[dict[str, Any]], tmp_path: Path
) -> None:
    await stand.submit()
    one = voter(through, tmp_path)
    await asyncio.to_thread(one.join, "terminal")
    for _ in range(3):  # practice counts for nothing and is not undone
        await asyncio.to_thread(voting.sit, one, keys_of(stand, shown, "1", "q"))
    begun = len(shown)
    wrong = "2" if shown[-1]["answers"][0].startswith(BETTER) else "1"
    done = await asyncio.to_thread(voting.sit, one, keys_of(stand, shown, "u", wrong, "u", "b", "q"))
    assert (done.undone, done.votes) == (1, 1)
    again = [task["lease"] for task in shown[begun:]]
    assert again[3] == again[1]
    (vote,) = [vote for vote in await stand.all(Vote) if vote.id == again[1]]
    assert "both_bad" in vote.answer_json


async def test_a_call_that_gets_no_answer_is_made_again_and_counts_once(
    stand: Stand, through: Through, shown: list[dict[str, Any]], tmp_path: Path
) -> None:
    await stand.submit()
    one = voter(through, tmp_path)
    through.loses = {1, 4}
    await asyncio.to_thread(one.join, "terminal")
    done = await asyncio.to_thread(voting.sit, one, keys_of(stand, shown, "1", "q"))
    assert done.votes == 1 and len([vote for vote in await stand.all(Vote) if vote.answer_json]) == 1


async def test_the_key_is_its_owners_alone_and_is_kept(stand: Stand, through: Through, tmp_path: Path) -> None:
    await stand.submit()
    first = await asyncio.to_thread(voter(through, tmp_path).join, "terminal")
    file = tmp_path / "keys" / "annotator.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (await asyncio.to_thread(voter(through, tmp_path).join, "terminal"))["annotator"] == first["annotator"]


HOSTILE = "Prefer care.\n\x1b]0;mine\x07\x1b[2J<script>alert(1)</script> [red]"


async def test_the_guideline_is_shown_first_and_drives_no_terminal(
    stand: Stand, through: Through, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = rows(4, 4).replace("Say something", json.dumps(HOSTILE)[1:-1])
    await stand.submit(data, guideline=HOSTILE, title="Which is [bold]better[/bold]?")
    one = voter(through, tmp_path)
    await asyncio.to_thread(one.join, "terminal")
    await asyncio.to_thread(voting.introduce, one)
    introduced = capsys.readouterr()
    await asyncio.to_thread(voting.sit, one, lambda: "q")
    seen = capsys.readouterr()
    assert "Which is [bold]better[/bold]? · 10 sat an answer · 4 items left" in introduced.err
    for told in (introduced.err, seen.err):
        lines = [line.strip("│ ") for line in told.splitlines()]
        assert "Prefer care." in lines, "its lines are kept"
        assert any(line.startswith("?]0;mine??[2J<script>alert(1)</script> [red]") for line in lines)
        assert "\x1b" not in told and "\x07" not in told
    assert introduced.out + seen.out == ""


async def test_what_the_coordinator_refuses_is_said_in_its_words(
    stand: Stand, through: Through, tmp_path: Path
) -> None:
    await stand.submit()
    one = voter(through, tmp_path, "nothing")
    await asyncio.to_thread(one.join, "terminal")
    with pytest.raises(ShardworkError) as caught:
        await asyncio.to_thread(one.next)
    assert isinstance(caught.value, NotFound) and caught.value.why.sentence.endswith(".")


def test_a_link_says_where() -> None:
    for link in ("https://c.example/people#6b61/ask?word", "https://c.example/people#6b61/ask/word"):
        assert place_of(link, "", "") == Place(web="https://c.example", job="6b61", stage="ask", invitation="word")
    assert place_of("6b61", "ask", "http://127.0.0.1:80/") == Place(web="http://127.0.0.1:80", job="6b61", stage="ask")
    for wrong in (("6b61", "", "http://x"), ("6b61", "ask", ""), ("ftp://x/people#a/b", "", ""), ("http://x", "", "")):
        with pytest.raises(InvalidInput):
            place_of(*wrong)
