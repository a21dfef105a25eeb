"""kill -9 of the coordinator while people answer: no answer that was acknowledged is lost, and each is paid once."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from shardwork.identity.keys import SigningKey
from shardwork_coordinator.people.signing import message

from .aims import AT_PEOPLE
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
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found
    raise AssertionError(f"{name} was never answered; killed at {stage.coordinator.killed_at}")


def test_a_kill_whenever_somebody_answers_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with drill(tmp_path) as stage:
        rows = [{"prompt": f"Say {n}.", "answers": [f"one {n}", f"two {n}"]} for n in range(ITEMS)]
        (stage.world.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (stage.world.folder / "which.yaml").write_text(JOB)
        job = stage.submit("which.yaml")
        counted = "select 1 from round where job_id = ? and phase = 'ask'"
        stage.world.until(lambda: bool(stage.world.rows(counted, job)), "the items to be counted")
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
