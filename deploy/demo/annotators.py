"""Simulated annotators: each a key of its own that answers over the coordinator's real web API, signed call by call.

Most like kind answers and err now and then; one presses left whatever is shown. Called by `rlhf`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import manners

from shardwork.identity.keys import SigningKey

PREFIX = "/people/api"
#: how often somebody who likes one answer better says so
ACCURACY = 0.95
LOOK_EVERY_S = 1.0
#: (answers in shown order, chance) -> "a", "b", "tie" or "both_bad"
Opinion = Callable[[list[str], random.Random], str]


def kind(answers: list[str], chance: random.Random) -> str:
    """Likes the kinder answer, and no half ones."""
    first, second = (manners.liking(answer) for answer in answers)
    if first == second:
        return "tie" if first > -4 else "both_bad"
    better, worse = ("a", "b") if first > second else ("b", "a")
    return better if chance.random() < ACCURACY else worse


def left(answers: list[str], chance: random.Random) -> str:
    """Reads nothing."""
    return "a"


@dataclass(slots=True)
class Annotator:
    web: str
    name: str
    opinion: Opinion
    over: threading.Event
    key: SigningKey = field(default_factory=SigningKey.generate)
    votes: int = 0
    #: what the coordinator says of it
    me: dict[str, Any] = field(default_factory=dict[str, Any])

    def run(self) -> None:
        """Joins, and judges whatever is open until it is told to stop."""
        chance = random.Random(self.name)
        with httpx.Client(base_url=self.web, timeout=30) as client:
            self._call(client, "POST", "/join", {"name": self.name})
            while not self.over.is_set():
                judged = [self._judge(client, task, chance) for task in self._open(client)]
                if not any(judged):
                    self.over.wait(LOOK_EVERY_S)
            self.me = self._call(client, "GET", "/tasks").get("me", {})

    def _open(self, client: httpx.Client) -> list[dict[str, Any]]:
        return [task for task in self._call(client, "GET", "/tasks").get("tasks", []) if task["open"]]

    def _judge(self, client: httpx.Client, task: dict[str, Any], chance: random.Random) -> bool:
        """Judges one item; False where there is none for it."""
        given = self._call(client, "POST", "/next", {"job": task["job"], "stage": task["stage"]})
        item = given.get("task")
        if not item:
            return False
        time.sleep(item.get("least_ms", 0) / 1000)
        winner = self.opinion(item["answers"], chance)
        vote = {"lease": item["lease"], "answer": {"winner": winner}, "ms": max(item.get("least_ms", 0), 400)}
        self._call(client, "POST", "/vote", vote)
        self.votes += 1
        return True

    def _call(self, client: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer; an error as it is told, which stops nobody."""
        content = json.dumps(body).encode() if body is not None else b""
        now = str(int(time.time() * 1000))
        digest = hashlib.sha256(content).hexdigest()
        message = "\n".join(("shardwork-people-v1", method, PREFIX + path, now, digest)).encode()
        headers = {
            "Shardwork-Key": _plain(self.key.public_key),
            "Shardwork-Time": now,
            "Shardwork-Signature": _plain(self.key.sign(message)),
            "Content-Type": "application/json",
        }
        try:
            answer = client.request(method, PREFIX + path, content=content, headers=headers)
        except httpx.TransportError:
            # the coordinator stops, or is started again
            self.over.wait(LOOK_EVERY_S)
            return {}
        found: dict[str, Any] = answer.json()
        return found


def _plain(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
