"""Annotator: somebody who judges, as the people API knows them: a key, and calls that it signs.

The key stands in a file of its own that only its owner can read, as a browser keeps one; whoever has it has what it
earned. A call that got no answer is made again: every call is idempotent. Called by `shardwork feedback vote`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

from ...clock import Clock, SystemClock
from ...errors import Conflict, InvalidInput, NotAllowed, NotAuthenticated, NotFound, ShardworkError, Unreachable
from ...identity.keys import SigningKey, load_or_create

if TYPE_CHECKING:
    import httpx

DOMAIN = b"shardwork-people-v1"
TRIES, PAUSE_S, TIMEOUT_S = 4, 0.5, 30.0
MOST_BYTES = 8 << 20
_ERRORS: dict[int, type[ShardworkError]] = {
    401: NotAuthenticated,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where people are asked: the link that they are sent, in its parts."""

    web: str
    job: str
    stage: str
    invitation: str = ""


def place_of(where: str, stage: str, web: str) -> Place:
    """`where`: a link `…/people#JOB/STAGE`, with `?INVITATION` where there is one, or a job's id.

    Raises InvalidInput "feedback.bad_link".
    """
    parts = urlsplit(where if "://" in where else f"{web.rstrip('/')}/people#{where}/{stage}")
    path, _, invitation = parts.fragment.partition("?")
    named = [unquote(one) for one in (*path.split("/"), *([invitation] if invitation else []))]
    good = parts.scheme in ("http", "https") and parts.netloc and len(named) in (2, 3) and all(named[:2])
    if not good:
        raise InvalidInput(
            "feedback.bad_link",
            "That is no link to something to judge.",
            next_step="Give the link that you were sent, or a job, a stage and the coordinator's address as --web.",
        )
    return Place(web=f"{parts.scheme}://{parts.netloc}", job=named[0], stage=named[1], invitation=(*named[2:], "")[0])


class Annotator:
    def __init__(self, place: Place, key_file: Path, client: httpx.Client, clock: Clock | None = None) -> None:
        self.place = place
        self.clock = clock or SystemClock()
        self._key: SigningKey = load_or_create(key_file)
        self._client = client

    def join(self, name: str, payout: str = "") -> dict[str, Any]:
        given = {"name": name} | ({"payout": payout} if payout else {})
        return self.call("join", given | ({"invitation": self.place.invitation} if self.place.invitation else {}))

    def next(self) -> dict[str, Any]:
        return self.call("next", {"job": self.place.job, "stage": self.place.stage})

    def told(self) -> dict[str, Any] | None:
        """What is said of this stage before anybody begins; None where it is not open to this key."""
        for task in self.call("tasks", None)["tasks"]:
            if (task["job"], task["stage"]) == (self.place.job, self.place.stage):
                return cast("dict[str, Any]", task)
        return None

    def call(self, name: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """Raises the classes of `errors` with what the coordinator says, Unreachable "feedback.unreachable"."""
        import httpx

        method, path = "GET" if body is None else "POST", f"/people/api/{name}"
        data = b"" if body is None else json.dumps(body).encode()
        for tried in range(TRIES):
            if tried:
                time.sleep(PAUSE_S * 2**tried)
            try:
                answer = self._client.request(
                    method, self.place.web + path, content=data, headers=self._signed(method, path, data)
                )
            except httpx.HTTPError:
                continue
            if answer.status_code < 500:
                return _read(answer)
        raise Unreachable(
            "feedback.unreachable",
            "The coordinator's web server does not answer.",
            next_step="Check the address and try again: what you answered is kept.",
            address=self.place.web,
        )

    def _signed(self, method: str, path: str, body: bytes) -> dict[str, str]:
        at = str(self.clock.now_ms())
        digest = hashlib.sha256(body).hexdigest().encode()
        signature = self._key.sign(b"\n".join((DOMAIN, method.encode(), path.encode(), at.encode(), digest)))
        return {
            "Shardwork-Key": _text(self._key.public_key),
            "Shardwork-Time": at,
            "Shardwork-Signature": _text(signature),
        }


def _read(answer: httpx.Response) -> dict[str, Any]:
    try:
        value: Any = answer.json() if len(answer.content) <= MOST_BYTES else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InvalidInput(
            "feedback.no_people_here",
            "What answers there is not a coordinator's page for people.",
            next_step="Check the address.",
            status=answer.status_code,
        )
    said = cast("dict[str, Any]", value)
    if answer.status_code == 200:
        return said
    kind = _ERRORS.get(answer.status_code, InvalidInput)
    raise kind(str(said.get("code")), str(said.get("sentence")), next_step=str(said.get("next_step", "")))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
