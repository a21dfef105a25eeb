"""Pause, resume and cancel as a requester asks for them: again, when an answer was lost."""

from __future__ import annotations

import pytest

from shardwork.errors import Conflict
from shardwork.identity.role import Role
from shardwork.v1 import jobs_pb2
from shardwork_coordinator.rpc.auth import Caller
from shardwork_coordinator.rpc.jobs import JobsDesk, cancel_job, pause_job, resume_job

from .simulation import OWNER, Simulation, count_job


async def test_each_command_may_be_given_twice_and_does_its_work_once() -> None:
    simulation = Simulation()
    job_id = await simulation.submit(count_job())
    desk = JobsDesk(engine=simulation.engine, rates=simulation.rates)
    caller = Caller(party_id=OWNER, public_key=b"", role=Role.REQUESTER)
    for _ in range(2):
        paused = await pause_job(jobs_pb2.PauseJobRequest(job_id=job_id), caller, desk)
        assert paused.job.state == "paused"
    for _ in range(2):
        resumed = await resume_job(jobs_pb2.ResumeJobRequest(job_id=job_id), caller, desk)
        assert resumed.job.state == "running"
    for _ in range(2):
        cancelled = await cancel_job(jobs_pb2.CancelJobRequest(job_id=job_id), caller, desk)
        assert cancelled.job.state == "cancelled"
        assert cancelled.job.refunded_msat == cancelled.job.budget_msat
    with pytest.raises(Conflict, match="has ended already: cancelled"):
        await resume_job(jobs_pb2.ResumeJobRequest(job_id=job_id), caller, desk)
    await simulation.check_books()
