"""Signing in and out, the first user, and one's own password and one-time codes."""

from __future__ import annotations

import asyncio
import hmac

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from shardwork.errors import InvalidInput, NotAllowed, NotAuthenticated, ShardworkError

from ...accounts import audit, codes, passwords, sessions, users
from ...records import WebRole, WebUser
from ...store.base import Transaction
from ..statuses import http_status
from .shell import Done, Shell
from .visits import Visit, forget, form_of, inner_path, remember, visit_of

HOUSE = "Shardwork"


def router(shell: Shell) -> APIRouter:
    routes, pages = APIRouter(), Signing(shell)
    for path, method, work in (
        ("/login", "GET", pages.login),
        ("/login", "POST", pages.sign_in),
        ("/setup", "GET", pages.setup),
        ("/setup", "POST", pages.set_up),
        ("/logout", "POST", pages.sign_out),
    ):
        shell.anyone(routes, path, work, method)
    shell.page(routes, "/account", pages.account)
    shell.action(routes, "/account/password", pages.change_password, viewers=True)
    shell.action(routes, "/account/codes", pages.turn_codes, viewers=True)
    shell.action(routes, "/account/sessions/end", pages.end_sessions, viewers=True)
    return routes


class Signing:
    def __init__(self, shell: Shell) -> None:
        self._shell, self._desk = shell, shell.desk
        self._store, self._clock = shell.desk.engine.store, shell.desk.engine.clock

    async def login(self, request: Request) -> Response:
        if await visit_of(request, self._desk) is not None:
            return RedirectResponse(inner_path(request.query_params.get("next", "")), status_code=303)
        return await self._login_page(request)

    async def sign_in(self, request: Request) -> Response:
        try:
            self._take_turn(request.client.host if request.client else "")
            form = await form_of(request)
        except ShardworkError as error:
            return await self._login_page(request, error)
        attempt = users.Attempt(
            name=form.get("name", "").strip(), password=form.get("password", ""), code=form.get("code", "").strip()
        )
        try:
            user, secret = await users.sign_in(self._store, attempt, self._clock.now_ms())
        except ShardworkError as error:
            return await self._login_page(request, error, form)
        if user.role is WebRole.OPERATOR:
            deed = audit.Deed(action="user.sign_in", subject=user.name, sentence=f"{user.name} signed in.")
            await self._desk.commit(lambda tx: audit.enter(tx, deed, user.name, self._clock.now_ms()))
        response = RedirectResponse(inner_path(form.get("next", "")), status_code=303)
        remember(response, self._desk, secret)
        return response

    async def _login_page(
        self, request: Request, error: ShardworkError | None = None, form: dict[str, str] | None = None
    ) -> Response:
        form = form or {}
        has_users = bool(await self._store.read(lambda tx: tx.find(WebUser, limit=1)))
        return self._shell.html(
            request,
            None,
            "dashboard/login.html",
            status=http_status(error) if error else 200,
            why=error.why if error else None,
            has_users=has_users,
            name=form.get("name", "")[:64],
            needs_code=error is not None and (error.code == "login.code_needed" or "code" in form),
            next=inner_path(form.get("next", "") or request.query_params.get("next", "")),
        )

    async def sign_out(self, request: Request) -> Response:
        """Needs no fresh form: at worst another site signs somebody out, and it can't even do that."""
        visit = await visit_of(request, self._desk)
        if visit is not None:
            await self._desk.commit(lambda tx: sessions.end(tx, visit.session_id))
        response = RedirectResponse("/login", status_code=303)
        forget(response, self._desk)
        return response

    # ---- the first user ---------------------------------------------------------------------------------------------

    async def setup(self, request: Request) -> Response:
        return await self._setup_page(request, request.query_params.get("token", ""))

    async def set_up(self, request: Request) -> Response:
        form: dict[str, str] = {}
        try:
            self._take_turn(request.client.host if request.client else "")
            form = await form_of(request)
            self._check_token(form.get("token", ""))
            name, password = form.get("name", "").strip(), form.get("password", "")
            passwords.check_strength(password, name)
            kept, now_ms = await asyncio.to_thread(passwords.digest, password), self._clock.now_ms()

            def first(tx: Transaction) -> sessions.Secret:
                _check_nobody(tx)
                users.add(tx, name, WebRole.OPERATOR, kept, now_ms)
                audit.enter(tx, _first_user(name), name, now_ms)
                return sessions.begin(tx, name, now_ms)

            secret = await self._desk.commit(first)
        except ShardworkError as error:
            return await self._setup_page(request, form.get("token", ""), error)
        response = RedirectResponse("/overview", status_code=303)
        remember(response, self._desk, secret)
        return response

    async def _setup_page(self, request: Request, token: str, error: ShardworkError | None = None) -> Response:
        try:
            self._check_token(token)
            await self._store.read(_check_nobody)
        except ShardworkError as refused:
            return self._shell.error(request, None, refused)
        status, why = (http_status(error), error.why) if error else (200, None)
        return self._shell.html(request, None, "dashboard/setup.html", status=status, why=why, token=token)

    def _check_token(self, token: str) -> None:
        if not hmac.compare_digest(token.encode(), self._desk.setup_token.encode()):
            raise NotAllowed(
                "setup.bad_token",
                "This is not the set-up address of this coordinator's present run.",
                next_step="`serve` prints it as `setup`; or run `shardwork-coordinator user add NAME`.",
            )

    # ---- one's own account ------------------------------------------------------------------------------------------

    async def account(self, request: Request, visit: Visit) -> Response:
        user = await self._store.read(lambda tx: users.named(tx, visit.user))
        secret = "" if user.totp_secret else codes.new_secret()
        return self._shell.html(
            request,
            visit,
            "dashboard/account.html",
            user=user,
            secret=secret,
            address=codes.address(secret, user.name, HOUSE) if secret else "",
        )

    async def change_password(self, request: Request, visit: Visit, form: dict[str, str]) -> Done:
        await self._check_own_password(visit, form)
        wanted = form.get("new", "")
        passwords.check_strength(wanted, visit.user)
        kept = await asyncio.to_thread(passwords.digest, wanted)
        await self._desk.commit(lambda tx: users.set_password(tx, visit.user, kept))
        return Done(path="/login", sentence="The password is changed, and every session ended. Sign in with it.")

    async def turn_codes(self, request: Request, visit: Visit, form: dict[str, str]) -> Done:
        """Turns one-time codes on, once a first one was right, or off."""
        await self._check_own_password(visit, form)
        secret = form.get("secret", "")
        code, now_ms = form.get("code", ""), self._clock.now_ms()
        if secret and (not codes.is_secret(secret) or codes.used_step(secret, code, now_ms, 0) is None):
            raise InvalidInput(
                "account.wrong_code",
                "This code does not belong to the new secret.",
                next_step="Enter the secret into the app, check this machine's clock, and take the code it shows now.",
            )
        await self._desk.commit(lambda tx: users.set_totp(tx, visit.user, secret))
        words = "From now on a code is asked for at each sign-in." if secret else "No code is asked for any more."
        return Done(path="/account", sentence=words)

    async def end_sessions(self, request: Request, visit: Visit, form: dict[str, str]) -> Done:
        await self._desk.commit(lambda tx: sessions.end_all(tx, visit.user))
        return Done(path="/login", sentence="Every session of yours has ended.")

    def _take_turn(self, who: str) -> None:
        """Passwords are tried at a person's pace only. Raises LimitExceeded "login.too_often"."""
        self._desk.logins.take(who, self._clock.monotonic())

    async def _check_own_password(self, visit: Visit, form: dict[str, str]) -> None:
        """Somebody at an unlocked screen is not the user, and has no more tries than at the login."""
        self._take_turn(f"account of {visit.user}")
        user = await self._store.read(lambda tx: users.named(tx, visit.user))
        if not await passwords.matches(form.get("password", ""), user.password_hash):
            raise NotAuthenticated(
                "account.wrong_password", "The present password is wrong.", next_step="Nothing was changed."
            )


def _check_nobody(tx: Transaction) -> None:
    if tx.find(WebUser, limit=1):
        raise NotAllowed(
            "setup.done",
            "There are users already, so nobody can be made here any more.",
            next_step="Sign in, or run `shardwork-coordinator user add NAME` on the coordinator's machine.",
        )


def _first_user(name: str) -> audit.Deed:
    return audit.Deed(action="user.add", subject=name, sentence=f"{name} became the first operator.")
