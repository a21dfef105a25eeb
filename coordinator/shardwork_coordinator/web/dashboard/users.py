"""The page of who may sign in: add, disable, set another password. For operators."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from shardwork.errors import InvalidInput

from ...accounts import audit, passwords, users
from ...records import WebRole, WebUser
from .shell import Done, Shell, viewer_refused
from .visits import Visit

PATH = "/users"


def router(shell: Shell) -> APIRouter:
    routes, pages = APIRouter(), Users(shell)
    shell.page(routes, PATH, pages.show)
    shell.action(routes, f"{PATH}/add", pages.add)
    shell.action(routes, f"{PATH}/disable", pages.disable)
    shell.action(routes, f"{PATH}/enable", pages.enable)
    shell.action(routes, f"{PATH}/password", pages.password)
    return routes


class Users:
    def __init__(self, shell: Shell) -> None:
        self._shell, self._store, self._clock = shell, shell.desk.engine.store, shell.desk.engine.clock

    async def show(self, request: Request, visit: Visit) -> Response:
        if not visit.may_act:
            raise viewer_refused(visit)
        everybody = await self._store.read(lambda tx: tx.find(WebUser, order="name"))
        return self._shell.html(request, visit, "dashboard/users.html", users=everybody)

    async def add(self, request: Request, visit: Visit, form: dict[str, str]) -> Done:
        name, role = form.get("name", "").strip(), _role(form.get("role", ""))
        passwords.check_strength(form.get("password", ""), name)
        kept, now_ms = await asyncio.to_thread(passwords.digest, form["password"]), self._clock.now_ms()
        deed = audit.Deed(action="user.add", subject=name, sentence=f"{name} may sign in as {role}.")
        await self._shell.do(visit, deed, lambda tx: users.add(tx, name, role, kept, now_ms))
        return Done(path=PATH, sentence=deed.sentence)

    async def disable(self, request: Request, visit: Visit, form: dict[str, str]) -> Done:
        name = form.get("name", "")
        deed = audit.Deed(action="user.disable", subject=name, sentence=f"{name} may not sign in any more.")
        await self._shell.do(visit, deed, lambda tx: users.set_disabled(tx, name, disabled=True))
        return Done(path=PATH, sentence=deed.sentence)

    async def enable(self, request: Request, visit: Visit, form: dict[str, str]) -> Done:
        name = form.get("name", "")
        deed = audit.Deed(action="user.enable", subject=name, sentence=f"{name} may sign in again.")
        await self._shell.do(visit, deed, lambda tx: users.set_disabled(tx, name, disabled=False))
        return Done(path=PATH, sentence=deed.sentence)

    async def password(self, request: Request, visit: Visit, form: dict[str, str]) -> Done:
        name = form.get("name", "")
        passwords.check_strength(form.get("password", ""), name)
        kept = await asyncio.to_thread(passwords.digest, form["password"])
        deed = audit.Deed(action="user.password", subject=name, sentence=f"{name} has another password.")
        await self._shell.do(visit, deed, lambda tx: users.set_password(tx, name, kept))
        return Done(path=PATH, sentence=f"{deed.sentence} Every session of theirs has ended.")


def _role(text: str) -> WebRole:
    try:
        return WebRole(text)
    except ValueError as error:
        raise InvalidInput(
            "user.bad_role", f"There is no role {text[:20]!r}.", next_step=f"One of {', '.join(WebRole)}."
        ) from error
