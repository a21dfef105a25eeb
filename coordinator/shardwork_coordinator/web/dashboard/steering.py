"""What an operator does to a job from its page: pause, resume, cancel, giving a shard to somebody else, and ending a
stage that people answer. Audited."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from shardwork.errors import Conflict
from shardwork.why import Why

from ...accounts import audit
from ...engine import advance, found, slice_of_job, slice_of_replica
from ...events import JobCancelled, JobPaused, JobResumed, LeaseLost, MachineEvent, Push
from ...machine.states import LIVE
from ...records import Replica
from ...rpc.asked import end_asking
from ...rpc.steering import check_lives
from ...store.base import Transaction
from .job import named
from .shell import Action, Done, Shell
from .visits import Visit

PAUSED = Why(
    code="job.paused_by_operator",
    sentence="The operator paused the job; shards that run are finished and paid.",
    next_step="Ask the operator why; `shardwork job cancel` refunds the rest.",
)
WORDS = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}


def router(shell: Shell) -> APIRouter:
    routes, actions = APIRouter(), Steering(shell)
    for step in WORDS:
        shell.action(routes, f"/jobs/{{job_id}}/{step}", actions.taking(step))
    shell.action(routes, "/jobs/{job_id}/requeue", actions.requeue)
    shell.action(routes, "/jobs/{job_id}/close", actions.close)
    return routes


class Steering:
    def __init__(self, shell: Shell) -> None:
        self._shell, self._engine = shell, shell.desk.engine

    def taking(self, step: str) -> Action:
        """The action that takes this step."""

        async def act(request: Request, visit: Visit, form: dict[str, str]) -> Done:
            job_id, reason, world = str(request.path_params["job_id"]), form.get("reason", ""), self._engine.world()

            def work(tx: Transaction) -> list[Push]:
                job = named(tx, job_id)
                check_lives(job)
                return advance(tx, slice_of_job(tx, job), _event(step, reason), world)

            sentence = f"Job {job_id} was {WORDS[step]}."
            deed = audit.Deed(action=f"job.{step}", subject=job_id, sentence=sentence, reason=reason)
            self._engine.after_commit(await self._shell.do(visit, deed, work))
            return Done(path=f"/jobs/{job_id}", sentence=sentence)

        return act

    async def close(self, request: Request, visit: Visit, form: dict[str, str]) -> Done:
        """Asks people no more: the stage goes on with the answers that it has."""
        job_id, stage, now_ms = str(request.path_params["job_id"]), form.get("stage", ""), self._engine.clock.now_ms()
        deed = audit.Deed(
            action="people.close",
            subject=job_id,
            sentence=f"People are asked no more in job {job_id}.",
            reason=form.get("reason", ""),
            evidence={"stage": stage[:40]},
        )
        await self._shell.do(visit, deed, lambda tx: end_asking(tx, named(tx, job_id), stage, "operator", now_ms))
        self._engine.after_commit(())
        return Done(path=f"/jobs/{job_id}", sentence="People are asked no more; the stage goes on with what it has.")

    async def requeue(self, request: Request, visit: Visit, form: dict[str, str]) -> Done:
        """Takes a lease back, at no attempt's cost, and offers the shard again: to others before the one who had it."""
        job_id, shard, world = str(request.path_params["job_id"]), form.get("shard", ""), self._engine.world()
        number, epoch = _number(form.get("number", "")), _number(form.get("epoch", ""))
        why = Why(
            code="lease.requeued_by_operator",
            sentence="The operator gave this shard to another worker.",
            evidence={"reason": form.get("reason", "")[: audit.LONGEST_REASON]},
            next_step="Nothing to do: the next shard is offered as usual.",
        )

        def work(tx: Transaction) -> list[Push]:
            replica = found(tx.get(Replica, shard, number), "replica", shard)
            if replica.job_id != job_id or replica.state not in LIVE or replica.epoch != epoch:
                raise Conflict(
                    "lease.already_over",
                    "Nobody holds this lease any more.",
                    next_step="Reload the page; what is ready is offered by itself.",
                )
            event = LeaseLost(shard_id=shard, number=number, why=why, costs_an_attempt=False)
            return advance(tx, slice_of_replica(tx, replica), event, world)

        deed = audit.Deed(
            action="shard.requeue",
            subject=shard,
            sentence=f"A shard of job {job_id} was taken back and offered again.",
            reason=form.get("reason", ""),
            evidence={"replica": str(number), "epoch": str(epoch)},
        )
        self._engine.after_commit(await self._shell.do(visit, deed, work))
        return Done(path=f"/jobs/{job_id}", sentence="The shard is offered to others.")


def _event(step: str, reason: str) -> MachineEvent:
    if step == "pause":
        return JobPaused(
            why=Why(code=PAUSED.code, sentence=PAUSED.sentence, evidence={"reason": reason}, next_step=PAUSED.next_step)
        )
    return JobResumed() if step == "resume" else JobCancelled()


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
