"""kill -9 of the coordinator while people answer: no answer that was acknowledged is lost, and each is paid once."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from shardwork.identity.keys import SigningKey
from shardwork_coordinator.people.signing import message

from .aims import AT_CLOSING, AT_PEOPLE
from .drill import Drill, drill

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]

JOB = """
name: which
recipe: people
data: rows.jsonl
params: {title: Which is better, pay_sats: 2, overlap: 1, least_seconds: 0, gold_share: 0, repeat_share: 0}
trust: {class: public}
budget: {max_sats: 500}
"""
ITEMS = 12


def call(stage: Drill, key: SigningKey, name: str, /, **body: object) -> dict[str, Any]:
    """A signed call, made again with the same body until it is answered, as the page does."""
    path, data = f"/people/api/{name}", json.dumps(body).encode()
    for _ in range(120):
        stamp = str(time.time_ns() // 1_000_000)
        signed = [key.public_key, key.sign(message("POST", path, stamp, data))]
        encoded = [base64.urlsafe_b64encode(one).decode().rstrip("=") for one in signed]
        headers = {"Shardwork-Key": encoded[0], "Shardwork-Time": stamp, "Shardwork-Signature": encoded[1]}
        try:
            answer = httpx.post(stage.world.processes.web + path, content=data, headers=headers, timeout=30)
        except httpx.HTTPError:
            time.sleep(0.25)
            continue
        assert answer.status_code in (200, 409), answer.text
        found: dict[str, Any] = answer.json()
        return found
    raise AssertionError(f"{name} was never answered; killed at {stage.coordinator.killed_at}")


def wait_asked(stage: Drill, job: str) -> None:
    asked = "select 1 from round where job_id = ? and phase = 'ask'"
    stage.world.until(lambda: bool(stage.world.rows(asked, job)), "people to be asked")


def asked(stage: Drill) -> str:
    """A job of which people may answer `ITEMS` items."""
    rows = [{"prompt": f"Say {n}.", "answers": [f"one {n}", f"two {n}"]} for n in range(ITEMS)]
    (stage.world.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (stage.world.folder / "which.yaml").write_text(JOB)
    job = stage.submit("which.yaml")
    wait_asked(stage, job)
    return job


def test_a_kill_whenever_somebody_answers_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with drill(tmp_path) as stage:
        job = asked(stage)
        stage.arm(AT_PEOPLE)
        key, answered = SigningKey(b"\7" * 32), list[str]()
        call(stage, key, "join", name="anna")
        for number in range(ITEMS):
            task = call(stage, key, "next", job=job, stage="people")["task"]
            answered.append(task["lease"])
            call(stage, key, "vote", lease=task["lease"], answer={"winner": "ab"[number % 2]}, ms=10)
        call(stage, key, "next", job=job, stage="people")
        stage.wait_killed()
        report = stage.world.finish(job)
        assert report["state"] == "succeeded", report["why"]
        votes = stage.world.rows("select id, state, price_msat from vote where job_id = ? order by number", job)
        assert votes == [(lease, "paid", 2_000) for lease in answered]
        stage.check_money(job)


def test_a_kill_as_the_asking_is_ended_goes_on_with_what_was_answered(tmp_path: Path) -> None:
    with drill(tmp_path) as stage:
        job = asked(stage)
        key = SigningKey(b"\7" * 32)
        call(stage, key, "join", name="anna")
        for _ in range(5):
            task = call(stage, key, "next", job=job, stage="people")["task"]
            call(stage, key, "vote", lease=task["lease"], answer={"winner": "a"}, ms=10)
        stage.arm(AT_CLOSING)
        done = stage.coordinator.persist("feedback", "close", job)
        assert done.returncode == 0, done.stdout
        stage.wait_killed()
        report = stage.world.finish(job)
        assert report["state"] == "succeeded", report["why"]
        votes = stage.world.rows("select state, price_msat from vote where job_id = ? and answer_json != ''", job)
        assert votes == [("paid", 2_000)] * 5
        kinds = [one["kind"] for one in stage.world.events(job)]
        assert kinds.count("people.closed") == kinds.count("people.ended") == 1
        stage.check_money(job)


GOOD, BAD = "a careful answer", "a careless answer"
TESTED = JOB.replace("gold_share: 0, repeat_share: 0", "gold_share: 0.4, repeat_share: 0.2")
ASKED, GOLDS = 24, 24
#: votes that lie in the store when the coordinator is killed: in probation, as people are cleared, when each is paid
KILLED_AT = (2, 5, 9, 14, 18, 22, 28, 34)
COUNTED = "select count(*) from vote where job_id = ? and answer_json != ''"


@dataclass(slots=True)
class Somebody:
    """A person at their own browser, who goes on until there is nothing left; `careful`: they read."""

    stage: Drill
    job: str
    seed: int
    careful: bool
    #: what they were told was taken down, by its lease: the winner in the order shown
    acknowledged: dict[str, str] = field(default_factory=dict[str, str])
    undone: int = 0

    def sit(self, over: threading.Event) -> None:
        key = SigningKey(bytes([self.seed]) * 32)
        call(self.stage, key, "join", name=f"number {self.seed}")
        while not over.is_set():
            given = call(self.stage, key, "next", job=self.job, stage="people")
            task = given.get("task")
            if task is None:
                if given["why"]["code"] in ("people.not_looking", "people.closed"):
                    return
                over.wait(0.25)
                continue
            if self._vote(key, task, self._winner(task)) and task["number"] % 5 == 0:
                self._change_their_mind(key, task)

    def _winner(self, task: dict[str, Any]) -> str:
        return "ab"[task["answers"].index(GOOD if self.careful else BAD)]

    def _vote(self, key: SigningKey, task: dict[str, Any], winner: str) -> bool:
        said = call(self.stage, key, "vote", lease=task["lease"], answer={"winner": winner}, ms=10)
        if "state" in said:
            self.acknowledged[task["lease"]] = winner
        return said.get("state") == "held"

    def _change_their_mind(self, key: SigningKey, task: dict[str, Any]) -> None:
        if call(self.stage, key, "undo", lease=task["lease"]).get("task") is None:
            return  # it counts already: the restart took longer than it could be taken back
        self.undone += 1
        del self.acknowledged[task["lease"]]
        self._vote(key, task, self._winner(task))


def test_kills_in_the_middle_of_a_crowd_lose_no_vote_and_pay_nobody_twice(tmp_path: Path) -> None:
    """Open tasks, votes on their way, held ones, ones that are taken back, people who are cleared and one who is
    stopped: whatever the coordinator was at, each goes on where it was."""
    with drill(tmp_path) as stage:
        rows = [row(number, gold=number >= ASKED) for number in range(ASKED + GOLDS)]
        (stage.world.folder / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
        (stage.world.folder / "which.yaml").write_text(TESTED)
        job = stage.submit("which.yaml")
        wait_asked(stage, job)
        people = [Somebody(stage, job, 1, True), Somebody(stage, job, 2, True), Somebody(stage, job, 3, False)]
        with seated(people):
            for votes in KILLED_AT:
                wait_votes(stage, job, votes)
                stage.coordinator.serving.clear()
                stage.coordinator.skip()
                stage.world.until(stage.coordinator.serving.is_set, "it to serve again")
            report = stage.world.finish(job)
        assert report["state"] == "succeeded", report["why"]
        assert sum(one.undone for one in people) > 0
        check_votes(stage, job, people)
        stage.check_money(job)


@contextlib.contextmanager
def seated(people: Sequence[Somebody]) -> Generator[None, None, None]:
    """All at once, until the block ends; what fails in anybody's place fails the test."""
    over = threading.Event()
    with ThreadPoolExecutor(len(people)) as pool:
        sitting = [pool.submit(one.sit, over) for one in people]
        try:
            yield
        finally:
            over.set()
        for one in sitting:
            one.result()


def row(number: int, *, gold: bool) -> dict[str, Any]:
    """The better answer is at either place; hidden items say so."""
    good = number % 2
    texts = [GOOD, BAD] if good == 0 else [BAD, GOOD]
    answers = [{"model": f"m{at}", "text": text} for at, text in enumerate(texts)]
    known = {"gold": {"winner": "ab"[good]}} if gold else {}
    return {"prompt": f"Question {number}?", "answers": answers, **known}


def wait_votes(stage: Drill, job: str, votes: int) -> None:
    stage.world.until(lambda: int(stage.world.rows(COUNTED, job)[0][0]) >= votes, f"{votes} votes")


def check_votes(stage: Drill, job: str, people: Sequence[Somebody]) -> None:
    """Each acknowledged answer lies there as it was given; those of careful people are paid, once, the others' not."""
    columns = "id, state, phase, answer_json, shown, price_msat, shard_id, replica"
    votes = {one[0]: one[1:] for one in stage.world.rows(f"select {columns} from vote where job_id = ?", job)}
    paid_msat, states = 0, {True: set[str](), False: set[str]()}
    for somebody in people:
        for lease, winner in somebody.acknowledged.items():
            state, phase, answer, shown, msat, *_ = votes[lease]
            own = "ab"[[int(one) for one in shown.split(",")]["ab".index(winner)]]
            assert json.loads(answer)["answer"] == {"winner": own}, lease
            if phase != "practice":
                states[somebody.careful].add(state)
                paid_msat += msat if state == "paid" else 0
    assert states == {True: {"paid"}, False: {"rejected"}}
    posted = "select reference, msat from transfer where kind = 'post' and reason = 'shard' and reference like ?"
    pay = stage.world.rows(posted, f"{job}/%")
    assert len({reference for reference, _ in pay}) == len(pay), "one answer, one payment"
    assert sum(msat for _, msat in pay) == paid_msat
