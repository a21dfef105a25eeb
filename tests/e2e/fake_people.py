# pyright: standard
"""A stand-in for the coordinator's side of the annotator's page: its contract, in memory, behind the real guard.

Signatures are checked as the coordinator does; every call is written down for a test to read. A test says what goes
wrong: answers that get lost after they were heard, items that expire, an annotator who is stopped.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import shardwork_coordinator.web.guard as guard

WEB = Path(guard.__file__).parent
PAY_MSAT = 3_000
WINDOW_MS = 5 * 60 * 1000


class Refusal(Exception):
    def __init__(self, code: str, sentence: str, next_step: str = "", status: int = 409) -> None:
        super().__init__(sentence)
        self.status, self.body = status, {"code": code, "sentence": sentence, "next_step": next_step}


def task(number: int, **other: Any) -> dict[str, Any]:
    """An item as the browser gets it."""
    return {
        "lease": f"lease-{number}",
        "number": number,
        "practice": False,
        "kind": "compare",
        "prompt": f"Question {number}?",
        "answers": [f"First answer to {number}.", f"Second answer to {number}."],
        "scores": [],
        "reasons": [],
        "pay_msat": PAY_MSAT,
        "least_ms": 0,
        "expires_ms": now_ms() + 600_000,
    } | other


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class FakePeople:
    """What one stage asks, who came, and what they did."""

    items: list[dict[str, Any]]
    title: str = "Which answer is more helpful?"
    guideline: str = "Prefer the answer that is right.\nWhen both are right, the shorter one."
    asset: str = "simulated"
    cleared_at: int = 20
    #: so long an answer may be taken back
    undo_ms: int = 600_000
    why_stopped: str = ""
    #: sentences by lease: what practice answers
    practice: dict[str, tuple[bool, str]] = field(default_factory=dict)
    #: calls that are heard, done, and whose answer never arrives
    lost_answers: int = 0
    people: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: lease -> the newest vote of it
    votes: dict[str, dict[str, Any]] = field(default_factory=dict)
    taken_back: list[dict[str, Any]] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    #: (path, body), as they came and held
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    # ---- the calls

    def join(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        known = self.people.setdefault(key, {"name": body.get("name") or "somebody", "payout": body.get("payout", "")})
        return {"annotator": hashlib.sha256(key.encode()).hexdigest()[:12], **known}

    def tasks(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        one = {
            "job": "000000000001",
            "stage": "people",
            "title": self.title,
            "kind": self.items[0]["kind"] if self.items else "compare",
            "guideline": self.guideline,
            "pay_msat": PAY_MSAT,
            "asset": self.asset,
            "seconds": 25,
            "left": len(self._open()),
            "mine": self.standing(),
            "open": not self.why_stopped,
            "why": self._why() if self.why_stopped else None,
        }
        return {"tasks": [one], "me": self.me()}

    def next(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        standing, found = self.standing(), self._open()
        if self.why_stopped:
            return {"task": None, "why": self._why(), "progress": standing}
        if not found:
            why = {"code": "people.all_taken", "sentence": "Every item is judged.", "next_step": "Look again later."}
            return {"task": None, "why": why, "progress": standing}
        return {"task": found[0], "progress": standing}

    def vote(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.why_stopped:
            raise Refusal("people.not_looking", self.why_stopped, "Choose another task.", 403)
        item = self._item(body["lease"])
        if body["lease"] not in self.votes:
            if item["expires_ms"] < now_ms():
                raise Refusal("people.late", "This answer came too late.", "Take the next one.")
            self.votes[body["lease"]] = body
        until = now_ms() + self.undo_ms
        answer: dict[str, Any] = {"state": "held", "me": self.me(), "mine": self.standing(), "undo_until_ms": until}
        if item["practice"]:
            right, sentence = self.practice[body["lease"]]
            answer |= {"state": "practice", "practice": {"right": right, "sentence": sentence}}
        elif self.standing()["state"] == "cleared":
            answer["state"] = "paid"
        return answer

    def undo(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        if body["lease"] not in self.votes:
            raise Refusal("people.nothing_to_undo", "There is no answer to take back.")
        self.taken_back.append(self.votes.pop(body["lease"]))
        return {"task": self._item(body["lease"]), "progress": self.standing()}

    def skip(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        self.left[self._item(body["lease"])["lease"]] = "skipped"
        return {}

    def report(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        self.left[self._item(body["lease"])["lease"]] = body["reason"]
        return {}

    def history(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        state = "paid" if self.standing()["state"] == "cleared" else "held"
        votes = [
            {
                "lease": lease,
                "job": "000000000001",
                "stage": "people",
                "number": self._item(lease)["number"],
                "at_ms": 1_790_000_000_000 + at * 1000,
                "answer": vote["answer"],
                "state": state,
                "msat": PAY_MSAT,
                "why": None,
            }
            for at, (lease, vote) in enumerate(self.votes.items())
            if not self._item(lease)["practice"]
        ]
        before = int(body.get("before") or 1 << 60)
        older = [one for one in reversed(votes) if int(one["at_ms"]) < before]
        return {"votes": older[:50], "next": older[49]["at_ms"] if len(older) > 50 else None}

    def payout(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        if "@" not in body["address"]:
            raise Refusal("payout.bad_address", "This is no Lightning address.", "It looks like name@wallet.", 400)
        self.people[key]["payout"] = body["address"]
        return {"payout": body["address"]}

    def withdraw(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        if not self.people[key]["payout"]:
            raise Refusal("payout.no_address", "There is no address to pay to.", "Save one first.")
        msat, address = body["msat"] or self.me()["available_msat"], self.people[key]["payout"]
        made = {"id": "p1", "msat": msat, "state": "queued", "address": address}
        return {"payout": made, "me": self.me()}

    # ---- what they say

    def counted(self) -> int:
        return sum(1 for lease in self.votes if not self._item(lease)["practice"])

    def standing(self) -> dict[str, Any]:
        done = self.counted()
        state = "stopped" if self.why_stopped else "cleared" if done >= self.cleared_at else "probation"
        left = sum(1 for one in self._open() if one["practice"])
        found: dict[str, Any] = {"done": done, "cleared_at": self.cleared_at, "state": state, "practice_left": left}
        return found | ({"why": self._why()} if self.why_stopped else {})

    def me(self) -> dict[str, Any]:
        earned = self.counted() * PAY_MSAT
        is_paid = self.standing()["state"] == "cleared"
        paid, held = (earned, 0) if is_paid else (0, earned)
        return {"paid_msat": paid, "held_msat": held, "available_msat": paid, "votes": self.counted()}

    def _why(self) -> dict[str, str]:
        return {"code": "people.not_looking", "sentence": self.why_stopped, "next_step": "Choose another task."}

    def _open(self) -> list[dict[str, Any]]:
        done = self.votes.keys() | self.left.keys()
        return [one for one in self.items if one["lease"] not in done and one["expires_ms"] > now_ms()]

    def _item(self, lease: str) -> dict[str, Any]:
        return next(one for one in self.items if one["lease"] == lease)


def called(fake: FakePeople, name: str) -> Callable[[Request], Any]:
    async def handler(request: Request) -> Response:
        raw = await request.body()
        key = signed_by(request, raw)
        body = json.loads(raw) if raw else dict(request.query_params)
        if not key:
            return JSONResponse({"code": "people.bad_signature", "sentence": "Not signed.", "next_step": ""}, 401)
        try:
            if name != "join" and name != "tasks" and key not in fake.people:
                raise Refusal("people.not_joined", "This key has not joined yet.", "Join first.", 403)
            answer = getattr(fake, name)(key, body)
        except Refusal as refused:
            return JSONResponse(refused.body, refused.status)
        finally:
            fake.calls.append((name, body))
        if fake.lost_answers and name == "vote":
            fake.lost_answers -= 1
            return Response(status_code=502)
        return JSONResponse(answer)

    return handler


def signed_by(request: Request, body: bytes) -> str:
    """The key that signed the call; empty when none did."""
    key, moment = request.headers.get("shardwork-key", ""), request.headers.get("shardwork-time", "")
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    text = "\n".join(("shardwork-people-v1", request.method, path, moment, hashlib.sha256(body).hexdigest()))
    try:
        opened = Ed25519PublicKey.from_public_bytes(_decoded(key))
        opened.verify(_decoded(request.headers.get("shardwork-signature", "")), text.encode())
    except (InvalidSignature, ValueError):
        return ""
    return key if abs(int(moment) - now_ms()) <= WINDOW_MS else ""


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@contextlib.contextmanager
def served(fake: FakePeople) -> Generator[str, None, None]:
    """Its address, while it is served from a thread."""
    gets = dict.fromkeys(("tasks", "history"), "GET")
    posts = dict.fromkeys(("join", "next", "vote", "skip", "report", "undo", "payout", "withdraw"), "POST")
    calls = [Route(f"/people/api/{name}", called(fake, name), methods=[how]) for name, how in (gets | posts).items()]
    app = Starlette(
        routes=[
            *calls,
            Route("/people", lambda _: FileResponse(WEB / "static" / "people" / "index.html")),
            Mount("/static", StaticFiles(directory=WEB / "static")),
        ]
    )
    app.add_middleware(guard.Guard)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
