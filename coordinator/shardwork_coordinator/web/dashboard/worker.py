"""The page of one worker, and what an operator may do with it: drain, quarantine, ban, restore, mark as reference."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ...queueing import standing
from ...records import Standing
from ..dossier import dossier
from .shell import Action, Done, Shell
from .visits import Visit
from .workers import PATH, presences

#: what an action's path ends with, and the standing that it gives
VERBS = {
    "drain": Standing.DRAINED,
    "quarantine": Standing.QUARANTINED,
    "ban": Standing.BANNED,
    "restore": Standing.NORMAL,
}


def router(shell: Shell) -> APIRouter:
    routes, pages = APIRouter(), WorkerPage(shell)
    shell.page(routes, f"{PATH}/{{worker_id}}", pages.show)
    for verb, wanted in VERBS.items():
        shell.action(routes, f"{PATH}/{{worker_id}}/{verb}", pages.setting(wanted))
    shell.action(routes, f"{PATH}/{{worker_id}}/reference", pages.mark)
    return routes


class WorkerPage:
    def __init__(self, shell: Shell) -> None:
        self._shell, self._engine = shell, shell.desk.engine

    async def show(self, request: Request, visit: Visit) -> Response:
        worker_id, around = request.path_params["worker_id"], presences(self._shell.desk)
        seen = await self._engine.store.read(lambda tx: dossier(tx, worker_id, around))
        return self._shell.html(request, visit, "dashboard/worker.html", seen=seen)

    def setting(self, wanted: Standing) -> Action:
        """The action that gives a worker this standing."""

        async def act(request: Request, visit: Visit, form: dict[str, str]) -> Done:
            worker_id = request.path_params["worker_id"]
            reason = standing.stated(form.get("reason", ""))
            deed = standing.deed(worker_id, wanted, reason)
            await self._shell.do(visit, deed, lambda tx: standing.change(tx, worker_id, wanted, reason))
            # whoever watches looks again; leases and streams are the sweeper's, within a second
            self._engine.after_commit(())
            return Done(path=f"{PATH}/{worker_id}", sentence=deed.sentence)

        return act

    async def mark(self, request: Request, visit: Visit, form: dict[str, str]) -> Done:
        worker_id, reference = request.path_params["worker_id"], form.get("reference") == "yes"
        reason = standing.stated(form.get("reason", ""))
        deed = standing.reference_deed(worker_id, reference=reference, reason=reason)
        await self._shell.do(visit, deed, lambda tx: standing.mark_reference(tx, worker_id, reference=reference))
        link = self._engine.links.get(worker_id)
        if link is not None:
            link.reference = reference
        self._engine.after_commit(())
        return Done(path=f"{PATH}/{worker_id}", sentence=deed.sentence)
