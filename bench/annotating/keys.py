# pyright: standard
"""Somebody at the web API: a key of its own that signs every call, with a habit of answering and of clumsiness.

A vote is sometimes sent twice at once, sometimes taken back and given again, and sometimes the line is lost while the
answer is on its way; then the call is made again, as the page does. What is pressed is `simulation.Person`'s.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from shardwork.feedback.votes import Winner
from shardwork.identity.keys import SigningKey
from tests.shardwork.feedback.simulation import Person

from .questions import BETTER, PLAIN

PREFIX = "/people/api"
TWICE, UNDOES, LOSES = 0.1, 0.05, 0.05
#: a line that is lost is lost after so long
LOST = httpx.Timeout(30.0, read=0.002)
AGAIN_S = 1.0
NOT_LOOKING = "people.not_looking"
CLUMSY = ("sent_twice", "undone", "line_lost", "told_to_wait", "calls")


@dataclass(slots=True)
class Somebody:
    client: httpx.AsyncClient
    person: Person
    over: asyncio.Event
    #: the job and stage that are answered
    stage: dict[str, str]
    key: SigningKey = field(default_factory=SigningKey.generate)
    #: those whose keys a copier may know
    others: Sequence[Somebody] = ()
    party: str = ""
    is_stopped: bool = False
    seen: Counter[str] = field(default_factory=Counter[str])
    chance: random.Random = field(init=False)
    #: calls whose answers differ though they were the same
    differing: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.chance = random.Random(f"clumsy {self.person.name}")

    async def sit(self) -> None:
        """Joins and answers until there is nothing more, or it is stopped."""
        while not self.party and not self.over.is_set():
            _, joined = await self.call("/join", {"name": self.person.name})
            self.party = joined.get("annotator", "")
        while not self.over.is_set() and not self.is_stopped:
            task = await self._next()
            if task is not None:
                await self._answer(task)

    async def _next(self) -> dict[str, Any] | None:
        _, given = await self.call("/next", self.stage)
        task: dict[str, Any] | None = given.get("task")
        why = (given.get("why") or {}).get("code", "")
        if task is None:
            self.is_stopped = why == NOT_LOOKING
            await asyncio.sleep(AGAIN_S)
        return task

    async def _answer(self, task: dict[str, Any]) -> None:
        await self._copying()
        shown: Sequence[str] = task["answers"]
        winner = self.person.press(Winner.A if shown[0] == BETTER else Winner.B, gold=task["prompt"].startswith(PLAIN))
        await self._think(task)
        vote = {"lease": task["lease"], "answer": {"winner": winner.value}, "ms": 5_000}
        if self.chance.random() < LOSES:
            await self._lost(vote)
        status, told = await self._voted(vote)
        if status == 200 and self.chance.random() < UNDOES:
            status, _ = await self.call("/undo", {"lease": task["lease"]})
            if status == 200:
                self.seen["undone"] += 1
                await self._think(task)
                status, told = await self._voted(vote)
        self.is_stopped = told.get("code") == NOT_LOOKING

    async def _copying(self) -> None:
        """A copier takes the keys of who is ahead, and waits for them."""
        done = self.person.pressed
        while self.others and not self.over.is_set() and len(self.person.copied) <= len(done):
            ahead = max(self.others, key=lambda one: len(one.person.pressed))
            self.person.copied = self.person.copied or ahead.person.pressed
            if len(self.person.copied) <= len(done):
                await asyncio.sleep(AGAIN_S)

    async def _think(self, task: dict[str, Any]) -> None:
        if not self.person.is_too_fast():
            await asyncio.sleep(task["least_ms"] / 1000 + self.chance.uniform(0.2, 1.5))

    async def _voted(self, vote: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.chance.random() >= TWICE:
            return await self.call("/vote", vote)
        self.seen["sent_twice"] += 1
        (status, told), (other, also) = await asyncio.gather(self.call("/vote", vote), self.call("/vote", vote))
        if (status == 200) != (other == 200) and NOT_LOOKING not in (told.get("code"), also.get("code")):
            self.differing.append(json.dumps([status, told, other, also]))
        return status, told

    async def _lost(self, vote: dict[str, Any]) -> None:
        """The call goes out, and the line is gone before the answer comes."""
        self.seen["line_lost"] += 1
        content = json.dumps(vote).encode()
        try:
            await self.client.post(
                PREFIX + "/vote", content=content, headers=self._signed("POST", "/vote", content), timeout=LOST
            )
        except httpx.TransportError:
            return

    async def call(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Again until it was answered; the coordinator may be gone for a while."""
        content = json.dumps(body).encode()
        while True:
            self.seen["calls"] += 1
            try:
                headers = self._signed("POST", path, content)
                answer = await self.client.post(PREFIX + path, content=content, headers=headers)
            except httpx.TransportError:
                if self.over.is_set():
                    return 0, {}
                await asyncio.sleep(AGAIN_S)
                continue
            if answer.status_code != 429:
                return answer.status_code, answer.json()
            self.seen["told_to_wait"] += 1
            await asyncio.sleep(float(answer.headers.get("Retry-After", AGAIN_S)) + self.chance.random())

    def _signed(self, method: str, path: str, content: bytes) -> dict[str, str]:
        now, digest = str(int(time.time() * 1000)), hashlib.sha256(content).hexdigest()
        message = "\n".join(("shardwork-people-v1", method, PREFIX + path, now, digest)).encode()
        return {
            "Shardwork-Key": _plain(self.key.public_key),
            "Shardwork-Time": now,
            "Shardwork-Signature": _plain(self.key.sign(message)),
            "Content-Type": "application/json",
        }


def _plain(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
