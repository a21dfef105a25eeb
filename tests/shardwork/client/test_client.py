"""Both faces against a coordinator: login, plan, submit once, follow, steer, money, errors, progress."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from shardwork import (
    AsyncClient,
    Change,
    CheckRequest,
    Client,
    Conflict,
    DataInvalid,
    InvalidInput,
    JobFailed,
    JobFileInvalid,
    JobSpec,
    NotAuthenticated,
    NotEnoughFunds,
    NotFound,
    Progress,
    Unreachable,
)
from shardwork.v1 import types_pb2
from tests.client.fake_coordinator import Cut, Fake, Hold, Running
from tests.client.sample_jobs import JOB_ID, answer, event, failed_job, report, running_job, succeeded_job


def flat(folder: Path) -> dict[str, object]:
    """The job of `tiny_model.write_job` as a mapping."""
    return {
        "name": "tutor",
        "base_model": folder / "models" / "tiny",
        "data": [folder / "data" / "train.jsonl"],
        "recipe": "sft",
        "trust": {"class": "public"},
        "budget": {"max_sats": 2000},
    }


def test_a_login_is_remembered_for_later_clients(fake: Fake, home: Path) -> None:
    with pytest.raises(NotAuthenticated) as refused:
        Client(home=home).connect()
    assert refused.value.code == "login.missing"
    with Client(home=home, name="notebook") as first:
        made = first.login(fake.join)
    assert (made.join, made.config_file.parent.parent) == (fake.join, home)
    with Client(home=home) as second:
        assert second.connect() == made.party_id
    assert "notebook" in fake.names


def test_a_plan_spends_nothing_and_says_what_it_would(client: Client, fake: Fake, job_file: Path) -> None:
    plan = client.plan(job_file)
    assert (plan.quote.shards, plan.quote.reserve_msat, plan.available_msat) == (9, 1_500_000, 5_000_000)
    assert plan.asset == "simulated" and fake.submitted == []
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.available_msat = 1  # type: ignore[misc]


def test_a_job_is_the_same_as_a_file_a_mapping_and_a_spec(client: Client, fake: Fake, job_file: Path) -> None:
    folder = job_file.parent
    spec = client.validate(flat(folder))
    assert isinstance(spec, JobSpec)
    assert client.validate(spec) == spec
    client.plan(spec)
    client.plan(flat(folder))
    first, second = fake.quoted
    assert first.spec_json == second.spec_json and list(first.facts) == list(second.facts)


def test_a_wrong_mapping_names_key_and_advice_like_a_file(client: Client, job_file: Path) -> None:
    wrong = {**flat(job_file.parent), "plan": {"round": 3}}
    with pytest.raises(JobFileInvalid) as refused:
        client.validate(wrong)
    (problem,) = refused.value.problems
    assert (problem.file, problem.line, problem.key, problem.code) == ("job", None, "plan.round", "jobfile.unknown_key")
    assert problem.fix == "Did you mean 'rounds'?"


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}])
def test_a_value_that_no_file_could_hold_is_refused(client: Client, job_file: Path, value: object) -> None:
    with pytest.raises(JobFileInvalid) as refused:
        client.validate({**flat(job_file.parent), "params": {"learning_rate": value}})
    assert refused.value.problems[0].code == "jobfile.wrong_value"


def test_a_submission_uploads_once_and_gives_a_job(client: Client, fake: Fake, job_file: Path) -> None:
    heard: list[str] = []
    job = client.submit(job_file, on_accepted=heard.append)
    assert heard == [job.id] == list(fake.jobs)
    again = client.submit(job_file)
    assert again.id != job.id  # told, so the next one is a job of its own
    assert len({artifact for artifact, _ in fake.uploads}) == len(fake.uploads)


def test_a_lost_answer_is_the_same_job(client: Client, fake: Fake, job_file: Path) -> None:
    fake.lose_answers = 100
    with pytest.raises(Unreachable):
        client.submit(job_file)
    fake.lose_answers = 0
    job = client.submit(job_file)
    assert list(fake.jobs) == [job.id]


def test_a_budget_or_a_wallet_that_is_too_small_is_refused_before_anything_is_uploaded(
    client: Client, fake: Fake, job_file: Path
) -> None:
    fake.available_msat = 10
    with pytest.raises(NotEnoughFunds):
        client.submit(job_file)
    assert fake.uploads == [] and fake.submitted == []


def test_waiting_tells_changes_and_progress_and_ends_with_the_job(fake: Fake, home: Path) -> None:
    fake.jobs[JOB_ID] = running_job()
    fake.watch_script = [
        answer(event(1, "job.running", "It runs.")),
        Cut(),
        answer(event(2, "job.succeeded", "Done."), job=succeeded_job()),
    ]
    told: list[Progress] = []
    changes: list[Change] = []
    with Client(fake.join, home=home, on_progress=told.append) as client:
        status = client.job(JOB_ID[:6]).wait(on_change=changes.append)
    assert status.state == "succeeded" and status.outputs[0].name == "sft.model"
    assert [each.sequence for change in changes for each in change.events] == [1, 2]
    assert [(each.label, each.done, each.total, each.unit) for each in told] == [
        ("tutor", 2, 4, "rounds"),
        ("tutor", 4, 4, "rounds"),
    ]
    assert told[0].note == "round 3 of 4 · learn, held-out loss 2.4001"


def test_a_failed_job_is_an_error_with_the_jobs_own_reason(client: Client, fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    fake.watch_script = [answer(event(1, "job.failed", "Lost."), job=failed_job())]
    job = client.job(JOB_ID)
    with pytest.raises(JobFailed) as ended:
        job.wait()
    assert ended.value.code == "round.rolled_back_twice"
    assert job.last.state == "failed" and job.last.is_final


def test_waiting_may_end_before_the_job(client: Client, fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    fake.watch_script = [answer(event(1, "job.running", "It runs.")), Hold()]
    with pytest.raises(TimeoutError):
        client.job(JOB_ID).wait(timeout_s=0.05)


def test_leaving_a_watch_leaves_the_job(client: Client, fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    fake.watch_script = [answer(event(1, "job.running", "It runs.")), Hold()]
    for change in client.job(JOB_ID).watch():
        assert change.running[0].worker_name == "alice"
        break
    assert client.job(JOB_ID).status().state == "running"


def test_ctrl_c_ends_the_waiting_and_the_client_goes_on(client: Client, fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    fake.watch_script = [Hold()]

    def press() -> None:
        assert fake.watching.wait(20)
        os.kill(os.getpid(), signal.SIGINT)

    finger = threading.Thread(target=press)
    finger.start()
    with pytest.raises(KeyboardInterrupt):
        client.job(JOB_ID).wait()
    finger.join()
    assert client.job(JOB_ID).status().id == JOB_ID


def test_a_job_is_steered_and_asked(client: Client, fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    fake.reports[JOB_ID] = report()
    fake.events = [event(number, "shard.done", f"Shard {number}.") for number in range(1, 4)]
    job = client.job(JOB_ID)
    assert [each.sequence for each in job.events(after_sequence=1)] == [2, 3]
    assert [each.sequence for each in job.logs(last=2)] == [2, 3]
    with pytest.raises(InvalidInput, match="last 0 to 10,000 lines, not -1"):
        list(job.logs(last=-1))
    why = job.why()
    assert why is not None and why.code == "shard.waiting_for_worker"
    assert job.report().workers[0].name == "alice"
    assert job.pause().state == "paused" and job.last.state == "paused"
    assert job.resume().state == "running"
    assert job.cancel().is_final
    assert [each.id for each in client.jobs()] == [JOB_ID]
    assert repr(job) == f"<Job {JOB_ID} 'tutor' {job.last.state}>"


def test_errors_keep_their_class(client: Client, fake: Fake, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        client.job("nope")
    fake.jobs[JOB_ID] = running_job()
    with pytest.raises(Conflict):
        client.job(JOB_ID).download(tmp_path / "out")


def test_money_is_msat_and_says_that_it_is_simulated(client: Client, fake: Fake) -> None:
    made = client.wallet.deposit(21)
    assert (made.msat, made.state, made.is_simulated) == (21_000, "settled", True)
    assert client.wallet.balance().is_simulated
    assert client.wallet.history(limit=5) == []


def test_data_is_checked_without_a_coordinator(home: Path, job_file: Path, tmp_path: Path) -> None:
    client = Client(home=home)
    good = client.check_data(job_file.parent / "data" / "train.jsonl", base_model=job_file.parent / "models" / "tiny")
    assert good.rows > 0 and not good.errors
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": 1}\n')
    assert client.check_data([bad]).num_errors == 1
    with pytest.raises(DataInvalid) as refused:
        client.measure({**flat(job_file.parent), "data": bad})
    assert refused.value.problems[0].line == 1


async def test_the_asynchronous_face_is_the_same(fake: Fake, home: Path, job_file: Path) -> None:
    async with AsyncClient(fake.join, home=home) as client:
        plan = await client.plan(job_file)
        job = await client.submit(plan)
        fake.watch_script = [answer(event(1, "job.succeeded", "Done."), job=succeeded_job())]
        fake.jobs[job.id].CopyFrom(running_job())
        seen = [change.is_final async for change in job.watch()]
        assert seen == [True]
        assert (await client.wallet.balance()).held_msat == 1_500_000


async def test_the_blocking_face_works_inside_a_running_loop(fake: Fake, home: Path) -> None:
    with Client(fake.join, home=home) as client:
        assert client.wallet.balance().available_msat == 5_000_000


def test_warnings_of_the_coordinator_are_reasons(client: Client, fake: Fake, job_file: Path) -> None:
    fake.quote.warnings.append(types_pb2.Why(code="plan.slow", sentence="Slow.", next_step="Wait."))
    assert [why.code for why in client.plan(job_file).warnings][-1] == "plan.slow"


def test_a_second_coordinator_is_talked_to_beside_the_first(running: Running, fake: Fake, home: Path) -> None:
    with Client(fake.join, home=home) as one, Client(fake.join, home=home / "other") as two:
        assert one.connect() != two.connect()


@pytest.mark.parametrize("sats", [-1, 0, 1.5, True, "5", 10**30])
def test_an_amount_that_is_no_whole_number_of_sats_is_an_error_like_any_other(
    client: Client, fake: Fake, job_file: Path, sats: Any
) -> None:
    """A truth value is a whole number to Python, and would have paid one sat."""
    fake.jobs[JOB_ID] = running_job()
    job = client.job(JOB_ID)
    for spend in (
        lambda: client.wallet.deposit(sats),
        lambda: client.wallet.withdraw(sats, "rig@simulated"),
        lambda: job.top_up(sats),
        lambda: job.cost_of("topup", sats=sats),
        lambda: client.plan(job_file, max_sats=sats),
    ):
        with pytest.raises(InvalidInput) as refused:
            spend()
        assert refused.value.code == "amount.not_whole_sats" and refused.value.exit_code == 3
    assert fake.top_ups == {}


def test_a_cap_holds_for_a_plan_that_was_made_before_it(client: Client, fake: Fake, job_file: Path) -> None:
    plan = client.plan(job_file)
    with pytest.raises(InvalidInput) as refused:
        client.submit(plan, max_sats=1)
    assert refused.value.code == "budget.below_plan" and fake.submitted == []
    assert client.plan(plan.measured, max_sats=1600).spec.budget.max_sats == 1600


def test_a_folder_that_cannot_be_made_is_named(client: Client, fake: Fake, tmp_path: Path) -> None:
    fake.jobs[JOB_ID] = succeeded_job()
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InvalidInput) as refused:
        client.job(JOB_ID).download(tmp_path / "taken")
    assert refused.value.code == "download.bad_folder"


@pytest.mark.parametrize("wrong", [{"max_length": -5}, {"max_length": "x"}, {"eval_fraction": float("nan")}])
def test_a_check_with_values_that_no_job_could_have_is_refused(client: Client, tmp_path: Path, wrong: Any) -> None:
    rows = tmp_path / "rows.txt"
    rows.write_text("some words")
    with pytest.raises(InvalidInput) as refused:
        client.check_data(CheckRequest(files=[rows], **wrong))
    assert refused.value.code in {"data.bad_length", "data.bad_fraction"}
