"""Typed errors as HTTP: one status for each class, and the body of the face that was called.

Native: {"error": {code, message, param, next_step, evidence}}. OpenAI's: {"error": {message, type, param, code}}, whose
message holds the next step, because clients show nothing else. What nobody foresaw is logged, never told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from shardwork.errors import (
    Conflict,
    Corrupt,
    Internal,
    InvalidInput,
    JobFailed,
    LimitExceeded,
    NotAllowed,
    NotAuthenticated,
    NotEnoughFunds,
    NotFound,
    ShardworkError,
    StaleLease,
    Unreachable,
)
from shardwork.problem import Problem
from shardwork.why import Why

from ..telemetry.logs import Log

Handler = Callable[[Request], Awaitable[Response]]

STATUSES: Mapping[type[ShardworkError], int] = {
    InvalidInput: 400,
    NotAuthenticated: 401,
    NotEnoughFunds: 402,
    NotAllowed: 403,
    NotFound: 404,
    Conflict: 409,
    StaleLease: 409,
    JobFailed: 409,
    Corrupt: 422,
    LimitExceeded: 429,
    Internal: 500,
    Unreachable: 503,
}
#: the words that the published clients know
TYPES = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}
#: refusals that HTTP has a word for
EXACT = {
    "api.too_large": 413,
    "api.too_slow": 408,
    "artifact.no_space": 507,
    "measuring.no_space": 507,
}
MOST_PROBLEMS = 20

_log = Log("api")


class Unfit(InvalidInput):
    """Rows of a file that can't be learned from; `problems` holds the first of them."""

    def __init__(self, why: Why, problems: list[Problem]) -> None:
        super().__init__(why.code, why.sentence, next_step=why.next_step, **why.evidence)
        self.problems = problems


def answered(handler: Handler, *, openai: bool = False) -> Handler:
    """The handler, whose errors become answers."""

    async def inside(request: Request) -> Response:
        try:
            return await handler(request)
        except ShardworkError as error:
            return refusal(error, openai=openai)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            _log.error("api.unexpected", error=error)
            found = Internal(
                "internal.unexpected",
                "The coordinator met an error of its own.",
                next_step="Tell the operator; the coordinator's log has the details.",
            )
            return refusal(found, openai=openai)

    return inside


def status_of(error: ShardworkError) -> int:
    if error.code in EXACT:
        return EXACT[error.code]
    return next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 500)


def refusal(error: ShardworkError, *, openai: bool = False) -> Response:
    status, why = status_of(error), error.why
    wait_s = why.evidence.get("retry_after_s", "")
    headers = {"Retry-After": wait_s} if wait_s else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    param = why.evidence.get("param") or why.evidence.get("key") or None
    # the published client tries again by itself unless it is told not to, and a whole file goes with each try
    if openai and status in (409, 429, 507) and not wait_s:
        headers["x-should-retry"] = "false"
    body = _openai(status, why, param, error) if openai else _native(why, param, error)
    return JSONResponse({"error": body}, status_code=status, headers=headers)


def _native(why: Why, param: str | None, error: ShardworkError) -> dict[str, object]:
    body: dict[str, object] = {
        "code": why.code,
        "message": why.sentence,
        "param": param,
        "next_step": why.next_step,
        "evidence": dict(why.evidence),
    }
    if isinstance(error, Unfit):
        body["problems"] = [problem.to_json() for problem in error.problems[:MOST_PROBLEMS]]
    return body


def _openai(status: int, why: Why, param: str | None, error: ShardworkError) -> dict[str, object]:
    if isinstance(error, Unfit):
        lines = [problem.render() for problem in error.problems[:MOST_PROBLEMS]]
        message = " ".join([why.sentence, *lines[1:]])
    else:
        message = f"{why.sentence} {why.next_step}".strip()
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"message": message, "type": kind, "param": param, "code": why.code}
