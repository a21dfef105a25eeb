"""Visits: who is asking, with which right, and whether a form came from one of our own pages.

Owns the session's cookie and the check of forms. Used by every page of the dashboard.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from shardwork.errors import InvalidInput, LimitExceeded, NotAllowed

from ...accounts import sessions, users
from ...records import WebRole
from .desk import Desk

MOST_FORM_BYTES = 64 << 10
MOST_FIELDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request of somebody who signed in."""

    user: str
    role: WebRole
    csrf: str
    session_id: str

    @property
    def may_act(self) -> bool:
        return self.role is WebRole.OPERATOR


async def visit_of(request: Request, desk: Desk) -> Visit | None:
    """Who holds the session of this request's cookie."""
    secret = request.cookies.get(desk.cookie, "")
    if not secret:
        return None
    now_ms = desk.engine.clock.now_ms()
    found = await desk.engine.store.read(lambda tx: users.visitor(tx, secret, now_ms))
    if found is None:
        return None
    user, session = found
    if sessions.needs_touch(session, now_ms):
        await desk.commit(lambda tx: sessions.touch(tx, session.id, now_ms))
    return Visit(user=user.name, role=user.role, csrf=session.csrf, session_id=session.id)


def remember(response: Response, desk: Desk, secret: sessions.Secret) -> None:
    response.set_cookie(
        desk.cookie,
        secret.text,
        max_age=sessions.LONGEST_MS // 1000,
        httponly=True,
        samesite="lax",
        secure=desk.is_secure,
        path="/",
    )


def forget(response: Response, desk: Desk) -> None:
    response.delete_cookie(desk.cookie, path="/", httponly=True, samesite="lax", secure=desk.is_secure)


def login_path(request: Request) -> str:
    """The login page, which leads back to where somebody wanted to go."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return "/login" if wanted in ("/", "/overview") else f"/login?next={quote(wanted)}"


def inner_path(wanted: str) -> str:
    """A path of this site, whatever was asked for: no other host, no script."""
    is_ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if is_ours and "\\" not in wanted and len(wanted) < 2_000 else "/overview"


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form. Raises LimitExceeded "form.too_large" or InvalidInput "form.unreadable"."""
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_FORM_BYTES:
                raise LimitExceeded(
                    "form.too_large", "The form is larger than any of ours.", next_step="Send less text."
                )
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=MOST_FIELDS
        )
        if any("\0" in value for _, value in pairs):
            raise ValueError("a letter that no database takes")
    except (ValueError, ClientDisconnect) as error:
        raise InvalidInput("form.unreadable", "The form can't be read.", next_step="Reload the page.") from error
    return dict(pairs)


def check_form(visit: Visit, form: dict[str, str]) -> None:
    """Raises NotAllowed "form.stale" for a form that is not of this session."""
    if not hmac.compare_digest(form.get("csrf", "").encode(), visit.csrf.encode()):
        raise NotAllowed(
            "form.stale",
            "This form belongs to another session; nothing was done.",
            next_step="Go back to the page, reload it, and try again.",
        )
