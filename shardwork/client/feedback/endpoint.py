"""Endpoint: one question to an OpenAI-compatible server, and the one letter or the probabilities that come back.

The requester's key goes to the server that they named and nowhere else: not into a file, a message or an error. What
the server says is a stranger's: bounded, and read for a letter, two probabilities and a count of tokens. Called by
`judging`.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from ...errors import InvalidInput, NotAuthenticated, Unreachable
from ...recipes.alignment.phases.question import FIRST, SECOND

if TYPE_CHECKING:
    import httpx

MOST_ANSWER_BYTES = 1 << 20
TIMEOUT_S, CONNECT_S = 120.0, 10.0
#: of a whole call: a server that sends a byte now and then never lets the read time out
MOST_S = 180.0
#: answers that say "later": nothing was computed, and nothing is paid
LATER = frozenset({408, 409, 425, 429, 500, 502, 503, 529})
#: a gateway that stopped waiting for a server that may have computed all the same
GATEWAY_TIMEOUT = 504
TRIES, FIRST_PAUSE_S, MOST_PAUSE_S = 6, 1.0, 60.0
_HERE = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    #: up to and with /v1
    url: str
    model: str
    key: str = field(default="", repr=False)
    #: some servers refuse to be asked for them
    logprobs: bool = True
    answer_tokens: int = 1

    def check(self) -> None:
        """Raises InvalidInput "feedback.bad_endpoint", "feedback.bad_key", "feedback.key_in_clear"."""
        parts = urlsplit(self.url)
        more = parts.username or parts.password or parts.query or parts.fragment
        if parts.scheme not in ("http", "https") or not parts.hostname or more:
            raise InvalidInput(
                "feedback.bad_endpoint",
                "The endpoint is no plain http or https address, or has a password or a query in it.",
                next_step="Give its address up to /v1, and the name of the variable with the key as --key-env.",
            )
        if not all("!" <= letter <= "~" for letter in self.key):
            raise InvalidInput(
                "feedback.bad_key",
                "The key holds a space, a line break or a letter that no header can carry.",
                next_step="Copy the key again into the variable that --key-env names.",
            )
        if self.key and parts.scheme == "http" and parts.hostname not in _HERE:
            raise InvalidInput(
                "feedback.key_in_clear",
                "The key would travel unencrypted.",
                next_step="Use an https address.",
                host=parts.hostname,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What came back, and was paid for. `first`: the probability that the answer shown first is better; None: it named
    neither letter."""

    first: float | None
    #: of question and answer as the server counts them; None: it does not say
    tokens_in: int | None
    tokens_out: int | None


class Lost(Exception):
    """The question was sent and no answer came: it may have been paid for, and nobody can know."""


async def ask(client: httpx.AsyncClient, endpoint: Endpoint, text: str) -> Said:
    """Raises Lost; NotAuthenticated, InvalidInput "feedback.refused", Unreachable "feedback.unreachable"."""
    import httpx

    pause, told = FIRST_PAUSE_S, ""
    for tried in range(TRIES):
        if tried:
            await asyncio.sleep(pause)
            pause = min(2 * pause, MOST_PAUSE_S)
        try:
            async with asyncio.timeout(MOST_S):
                status, headers, body = await _sent(client, endpoint, text)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            told = type(error).__name__  # it never left: nothing is paid
            continue
        except (httpx.HTTPError, TimeoutError) as error:
            raise Lost(type(error).__name__) from error
        if status == GATEWAY_TIMEOUT:
            raise Lost("the gateway stopped waiting")
        if status in LATER:
            told, pause = f"HTTP {status}", _wanted_pause(headers, pause)
            continue
        if status != 200:
            raise _refused(endpoint, status, body)
        return _read(body)
    raise Unreachable(
        "feedback.unreachable",
        f"The endpoint did not answer {TRIES} times ({told}).",
        next_step="Run the same command again later: what was paid for is kept.",
    )


async def _sent(client: httpx.AsyncClient, endpoint: Endpoint, text: str) -> tuple[int, Mapping[str, str], bytes]:
    asked: dict[str, Any] = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": endpoint.answer_tokens,
    }
    if endpoint.logprobs:
        asked |= {"logprobs": True, "top_logprobs": 20}
    headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    headers["Accept-Encoding"] = "identity"  # some bytes that unpack to gigabytes do so before they can be counted
    url = endpoint.url.rstrip("/") + "/chat/completions"
    async with client.stream("POST", url, json=asked, headers=headers) as response:
        body = b""
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > MOST_ANSWER_BYTES:
                raise Lost("the answer is too long")
        return response.status_code, response.headers, body


def _wanted_pause(headers: Mapping[str, str], pause: float) -> float:
    try:
        wanted = float(headers.get("retry-after", ""))
    except ValueError:
        return pause
    return min(max(wanted, pause), MOST_PAUSE_S) if math.isfinite(wanted) else pause


def _refused(endpoint: Endpoint, status: int, body: bytes) -> Exception:
    said = body.decode("utf-8", "replace")
    try:
        said = str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    said = "".join(letter for letter in said if letter.isprintable())
    if endpoint.key:  # before it is cut, which could leave a part of the key
        said = said.replace(endpoint.key, "***")
    if status in (401, 403):
        return NotAuthenticated(
            "feedback.key_refused",
            "The endpoint refuses the key.",
            next_step="Check the variable that --key-env names.",
            status=status,
        )
    return InvalidInput(
        "feedback.refused",
        "The endpoint refuses the question.",
        next_step="Check --endpoint and --model; a server without log-probabilities needs --no-logprobs.",
        status=status,
        said=said[:300],
    )


def _read(body: bytes) -> Said:
    """An answer that can't be read was paid for all the same."""
    try:
        answer: Any = json.loads(body)
        choice: Any = answer["choices"][0]
    except (ValueError, LookupError, TypeError, RecursionError):
        return Said(first=None, tokens_in=None, tokens_out=None)
    usage = cast("dict[str, Any]", answer).get("usage") if isinstance(answer, dict) else None
    counts = [_count(usage, name) for name in ("prompt_tokens", "completion_tokens")]
    return Said(first=_first(choice), tokens_in=counts[0], tokens_out=counts[1])


def _count(usage: Any, name: str) -> int | None:
    value = cast("dict[str, Any]", usage).get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else None


def _first(choice: Any) -> float | None:
    """By the probabilities of the two letters, and by the letter itself where there are none; nothing else is read."""
    try:
        listed: Any = choice["logprobs"]["content"][0]["top_logprobs"]
        chances = {FIRST: 0.0, SECOND: 0.0}
        for one in listed:
            letter = str(one["token"]).strip()
            if letter in chances and isinstance(one["logprob"], int | float):
                chances[letter] += math.exp(min(float(one["logprob"]), 0.0))
        total = chances[FIRST] + chances[SECOND]
        if total > 0 and math.isfinite(total):
            return chances[FIRST] / total
        return None
    except (LookupError, TypeError, ValueError, OverflowError):
        pass
    try:
        letter = choice["message"]["content"].strip()
    except (LookupError, TypeError, AttributeError):
        return None
    return {FIRST: 1.0, SECOND: 0.0}.get(letter)
