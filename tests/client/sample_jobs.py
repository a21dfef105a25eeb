"""Jobs as the fake coordinator shows them: one in its second round, one that succeeded, one that failed."""

from __future__ import annotations

from shardwork.v1 import jobs_pb2

from .fake_coordinator import NOW_MS, why

JOB_ID = "3f2a90bc12de"


def learned_round(number: int, eval_loss: float, *, state: str = "merged") -> jobs_pb2.RoundView:
    return jobs_pb2.RoundView(
        number=number,
        kind="learn",
        state=state,
        phase="" if state == "merged" else "learn",
        train_loss=eval_loss + 0.05,
        eval_loss=eval_loss,
        outer="nesterov",
        accepted=4,
        rejected=number % 2,
        seconds=12.5,
        bytes_up=1_234_567,
        bytes_down=7_654_321,
    )


def setup_round() -> jobs_pb2.RoundView:
    return jobs_pb2.RoundView(number=0, kind="setup", state="merged", accepted=1, seconds=3.0)


def running_job() -> jobs_pb2.JobView:
    open_round = jobs_pb2.RoundView(number=3, kind="learn", state="open", phase="learn", accepted=1)
    rounds = [setup_round(), learned_round(1, 2.9123), learned_round(2, 2.4001), open_round]
    return jobs_pb2.JobView(
        id=JOB_ID,
        name="tutor",
        state="running",
        why=why("shard.waiting_for_worker", "One shard waits for a worker.", next_step="Start one.", ready="1"),
        stages=[jobs_pb2.StageView(name="sft", recipe="sft", state="running", rounds=rounds, planned_rounds=4)],
        shards={"done": 9, "running": 2, "ready": 1},
        budget_msat=2_000_000,
        reserved_msat=796_000,
        spent_msat=1_204_000,
        created_unix_ms=NOW_MS,
    )


def succeeded_job() -> jobs_pb2.JobView:
    rounds = [setup_round(), *(learned_round(number, 3.0 - number * 0.3) for number in range(1, 5))]
    rounds.append(jobs_pb2.RoundView(number=5, kind="publish", state="merged", accepted=1, seconds=2.0))
    return jobs_pb2.JobView(
        id=JOB_ID,
        name="tutor",
        state="succeeded",
        stages=[jobs_pb2.StageView(name="sft", recipe="sft", state="done", rounds=rounds, planned_rounds=4)],
        shards={"done": 19},
        budget_msat=2_000_000,
        spent_msat=1_404_000,
        refunded_msat=596_000,
        outputs=[jobs_pb2.OutputView(name="sft.model", kind="adapter", artifact_id="ab" * 32, bytes=48_000)],
        self_evaluated=True,
        created_unix_ms=NOW_MS,
        ended_unix_ms=NOW_MS + 95_000,
    )


def failed_job() -> jobs_pb2.JobView:
    job = succeeded_job()
    job.state = "failed"
    del job.outputs[:]
    job.why.CopyFrom(
        why("round.rolled_back_twice", "The held-out loss rose twice in a row.", next_step="Lower it.", round="4")
    )
    return job


def report() -> jobs_pb2.GetJobReportResponse:
    workers = [
        jobs_pb2.WorkerShare(worker_id="a1" * 8, name="alice", shards=10, accepted=9, rejected=1, paid_msat=700_000),
        jobs_pb2.WorkerShare(worker_id="b2" * 8, name="bob", shards=9, accepted=9, paid_msat=676_000),
    ]
    payments = [
        jobs_pb2.ShardPayment(
            shard=f"{JOB_ID}/sft/r1/learn/s{index}", replica=index % 2, worker_id="a1" * 8, msat=70_500, phase="learn"
        )
        for index in range(3)
    ]
    return jobs_pb2.GetJobReportResponse(job=succeeded_job(), workers=workers, payments=payments)


def event(sequence: int, kind: str, sentence: str) -> jobs_pb2.JobEvent:
    return jobs_pb2.JobEvent(
        sequence=sequence,
        at_unix_ms=NOW_MS + 1000 * sequence,
        kind=kind,
        subject=f"{JOB_ID}/sft/r1",
        sentence=sentence,
        evidence={"round": "1"},
    )


def answer(*events: jobs_pb2.JobEvent, job: jobs_pb2.JobView | None = None) -> jobs_pb2.WatchJobResponse:
    """One message of a watch stream."""
    shown = job or running_job()
    final = shown.state in ("succeeded", "failed", "cancelled")
    busy = [
        jobs_pb2.RunningShard(
            shard=f"{JOB_ID}/sft/r3/learn/s{index}",
            phase="learn",
            worker_id="a1" * 8,
            worker_name=name,
            progress=0.3 + 0.4 * index,
            loss=2.31,
            seconds=8.0,
        )
        for index, name in enumerate(("alice", "bob"))
    ]
    return jobs_pb2.WatchJobResponse(events=events, job=shown, running=[] if final else busy, final=final)
