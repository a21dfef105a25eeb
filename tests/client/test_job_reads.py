"""Reading jobs: list, show, events, why and report, as JSON and as pages."""

from __future__ import annotations

import pytest

from shardwork.v1 import jobs_pb2, types_pb2

from .conftest import Run, error_of, json_of
from .fake_coordinator import Fake
from .sample_jobs import JOB_ID, answer, event, failed_job, report, running_job, succeeded_job

SHOW_KEYS = {
    *("id", "name", "state", "why", "stages", "shards", "outputs"),
    *("budget_msat", "reserved_msat", "spent_msat", "refunded_msat"),
}
ROUND_KEYS = {
    *("number", "state", "train_loss", "eval_loss"),
    *("accepted", "rejected", "seconds", "bytes_up", "bytes_down"),
}


def test_show_json_has_the_contract_s_keys(logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID] = succeeded_job()
    shown = json_of(logged_in("job", "show", JOB_ID, "--json"))
    assert set(shown) >= SHOW_KEYS
    assert set(shown["stages"][0]) >= {"name", "recipe", "state", "rounds"}
    assert set(shown["stages"][0]["rounds"][1]) >= ROUND_KEYS
    assert shown["stages"][0]["rounds"][0]["eval_loss"] is None
    [output] = shown["outputs"]
    assert output == {"name": "sft.model", "kind": "adapter", "digest": "ab" * 32, "bytes": 48_000, "deleted": False}
    assert shown["shards"] == {"done": 19}


def test_a_loss_that_is_not_finite_is_null_in_json(logged_in: Run, fake: Fake) -> None:
    job = running_job()
    job.stages[0].rounds[1].train_loss = float("nan")
    fake.jobs[JOB_ID] = job
    result = logged_in("job", "show", JOB_ID, "--json")
    assert "NaN" not in result.stdout
    assert json_of(result)["stages"][0]["rounds"][1]["train_loss"] is None


def test_a_job_is_found_by_the_beginning_of_its_id(logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    assert json_of(logged_in("job", "show", JOB_ID[:4], "--json"))["id"] == JOB_ID


def test_show_names_state_reason_rounds_and_money(logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    page = logged_in("job", "show", JOB_ID).stdout
    for text in (
        *("tutor", JOB_ID, "running", "One shard waits for a worker.", "Start one."),
        *("2.9123", "nesterov", "9 done", "−17.6 %", "2,000 sat budget = 1,204 spent + 796 reserved + 0 refunded"),
    ):
        assert text in page


def test_a_stranger_s_name_cannot_drive_the_terminal(logged_in: Run, fake: Fake) -> None:
    job = running_job()
    job.name = "\x1b[2Jgone [red]"
    fake.jobs[JOB_ID] = job
    page = logged_in("job", "show", JOB_ID).stdout
    assert "\x1b" not in page
    assert "?[2Jgone [red]" in page


def test_an_unknown_job_is_exit_4_with_a_next_step(logged_in: Run, fake: Fake) -> None:
    for verb in ("show", "watch", "events", "why", "pause", "resume", "cancel", "report"):
        result = logged_in("job", verb, "nope")
        assert result.exit_code == 4, (verb, result.stderr)
        assert "There is no job nope." in result.stderr
        assert "→ See them with: shardwork job list" in result.stderr
        assert result.stdout == ""


def test_json_errors_are_one_object_on_stderr(logged_in: Run, fake: Fake) -> None:
    result = logged_in("job", "show", "nope", "--json")
    assert result.stdout == ""
    assert error_of(result) == {
        "code": "job.unknown",
        "sentence": "There is no job nope.",
        "evidence": {},
        "next_step": "See them with: shardwork job list",
        "exit_code": 4,
    }


def test_list_pages_through_all_jobs_up_to_the_limit(logged_in: Run, fake: Fake) -> None:
    for number in range(130):
        job = running_job()
        job.id = f"job{number:03d}"
        fake.jobs[job.id] = job
    assert len(json_of(logged_in("job", "list", "--json", "--limit", "120"))["jobs"]) == 120
    page = logged_in("job", "list", "-n", "5").stdout
    assert "job004" in page and "job005" not in page


def test_a_list_can_be_of_one_state_and_goes_on_where_the_one_before_ended(logged_in: Run, fake: Fake) -> None:
    for number in range(7):
        state = "paused" if number % 2 else "running"
        fake.jobs[f"job{number}"] = jobs_pb2.JobView(id=f"job{number}", name="tutor", state=state)
    told = json_of(logged_in("job", "list", "--json", "--state", "paused", "-n", "2"))
    assert ([job["id"] for job in told["jobs"]], told["more"]) == (["job1", "job3"], True)
    rest = json_of(logged_in("job", "list", "--json", "--state", "paused", "-n", "2", "--skip", "2"))
    assert ([job["id"] for job in rest["jobs"]], rest["more"]) == (["job5"], False)
    assert "job list --skip 3" in logged_in("job", "list", "-n", "3").stderr
    assert "no such job" in logged_in("job", "list", "--state", "failed").stderr


def test_events_can_be_asked_for_the_newest_ones_alone(logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    fake.events = [event(number, "round.merged", f"Number {number}.") for number in range(1, 8)]
    newest = json_of(logged_in("job", "events", JOB_ID, "-n", "3", "--json"))["events"]
    assert [each["sequence"] for each in newest] == [5, 6, 7]
    fake.watch_script = [answer(job=succeeded_job())]
    assert logged_in("job", "events", JOB_ID, "-n", "3", "-f", "--json").exit_code == 0
    assert fake.watched_from == [4]


def test_an_empty_list_says_how_to_begin(logged_in: Run, fake: Fake) -> None:
    result = logged_in("job", "list")
    assert result.stdout == ""
    assert "shardwork job plan" in result.stderr
    assert json_of(logged_in("job", "list", "--json")) == {"jobs": [], "more": False}


def test_events_come_in_order_and_whole_over_several_pages(logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    fake.events = [event(number, "round.merged", f"Round {number} merged.") for number in range(1, 6)]
    found = json_of(logged_in("job", "events", JOB_ID, "--json"))["events"]
    assert [each["sequence"] for each in found] == [1, 2, 3, 4, 5]
    assert set(found[0]) == {"sequence", "at_unix_ms", "kind", "subject", "sentence", "evidence"}
    lines = logged_in("job", "events", JOB_ID, "--after", "3").stdout.splitlines()
    assert len(lines) == 2 and "Round 4 merged." in lines[0]


def test_why_tells_state_code_sentence_evidence_and_next_step(logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID] = failed_job()
    told = json_of(logged_in("job", "why", JOB_ID, "--json"))
    assert told == {
        "id": JOB_ID,
        "state": "failed",
        "code": "round.rolled_back_twice",
        "sentence": "The held-out loss rose twice in a row.",
        "evidence": {"round": "4"},
        "next_step": "Lower it.",
        "reasons": [],
    }
    page = logged_in("job", "why", JOB_ID).stdout
    for text in ("failed", "The held-out loss rose twice in a row.", "round: 4", "→ Lower it.", told["code"]):
        assert text in page


def test_why_of_a_job_without_a_reason_says_so(logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID] = succeeded_job()
    assert "Nothing holds it up." in logged_in("job", "why", JOB_ID).stdout


def test_report_json_adds_workers_and_payments(logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID], fake.reports[JOB_ID] = succeeded_job(), report()
    told = json_of(logged_in("job", "report", JOB_ID, "--json"))
    assert set(told) >= SHOW_KEYS | {"workers", "payments"}
    assert set(told["workers"][0]) >= {"id", "shards", "accepted", "rejected", "paid_msat"}
    assert set(told["payments"][0]) >= {"shard", "replica", "worker", "msat"}


def test_report_page_shows_who_was_paid_and_what_came_out(logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID], fake.reports[JOB_ID] = succeeded_job(), report()
    page = logged_in("job", "report", JOB_ID).stdout
    for text in ("alice", "700 sat", "70.5 sat", "(copy 1)", "sft.model", "48.0 kB", "self-evaluated", "1 min 35 s"):
        assert text in page


def test_pause_resume_and_cancel_change_the_state(logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    assert json_of(logged_in("job", "pause", JOB_ID, "--json"))["state"] == "paused"
    assert json_of(logged_in("job", "resume", JOB_ID, "--json"))["state"] == "running"
    assert "cancelled" in logged_in("job", "cancel", JOB_ID).stdout
    again = logged_in("job", "cancel", JOB_ID)
    assert again.exit_code == 1
    assert "already cancelled" in again.stderr


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_no_width_cuts_an_amount_an_id_or_a_name(
    columns: int, logged_in: Run, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    fake.jobs[JOB_ID] = succeeded_job()
    fake.reports[JOB_ID] = report()
    pages = [logged_in("job", "list").stdout, logged_in("job", "report", JOB_ID).stdout]
    assert "tutor" in pages[0]
    for page in pages:
        assert max(len(line) for line in page.splitlines()) <= columns
        assert "…" not in page.replace("abababababababab…", "")


def test_a_top_up_says_what_it_costs_and_adds_it_once_agreed(logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    before = fake.jobs[JOB_ID].budget_msat
    told = json_of(logged_in("job", "topup", JOB_ID, "5", "--json"))
    assert told["budget_msat"] == before + 5_000 and told["topped_up_msat"] == 5_000
    assert told["cost"]["from_balance_msat"] == 5_000 and told["cost"]["code"] == "cost.topup"
    agreed = logged_in("job", "topup", JOB_ID, "2", "--yes")
    assert agreed.exit_code == 0 and fake.jobs[JOB_ID].budget_msat == before + 7_000
    assert logged_in("job", "topup", JOB_ID, "0").exit_code == 2


def test_a_top_up_whose_answer_was_lost_is_added_once_however_often_it_is_repeated(
    logged_in: Run, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardwork.session.BACKOFF_S", 0.001)
    fake.jobs[JOB_ID] = running_job()
    # the first try and its five retries
    fake.lose_answers = 6
    assert logged_in("job", "topup", JOB_ID, "5", "--yes").exit_code == 7
    for added in (5_000, 10_000):
        assert json_of(logged_in("job", "topup", JOB_ID, "5", "--json"))["topped_up_msat"] == added


def test_a_top_up_that_nobody_agreed_to_adds_nothing(logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    before = fake.jobs[JOB_ID].budget_msat
    refused = logged_in("job", "topup", JOB_ID, "5")
    assert refused.exit_code == 2 and "2 shards run" in refused.stderr and "--yes" in refused.stderr
    assert fake.jobs[JOB_ID].budget_msat == before and fake.top_ups == {}


def test_pausing_says_first_what_it_costs(logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    assert "2 shards run" in logged_in("job", "pause", JOB_ID).stderr
    assert fake.jobs[JOB_ID].state == "paused"


def test_alarms_of_a_stage_are_shown_with_what_to_do(logged_in: Run, fake: Fake) -> None:
    job = succeeded_job()
    why = types_pb2.Why(code="alarm.length", sentence="Answers are longer.", next_step="Read some of them.")
    why.evidence["before"] = "10.0 tokens"
    job.stages[0].alarms.append(why)
    job.stages[0].safety.update({"harmful.asked": 7, "harmful.refused_before": 6, "harmful.refused_after": 2})
    fake.jobs[JOB_ID] = job
    page = logged_in("job", "show", JOB_ID).stdout
    for text in ("Answers are longer.", "10.0 tokens", "Read some of them.", "2 of 7 harmful requests (its base 6)"):
        assert text in page
    stage = json_of(logged_in("job", "show", JOB_ID, "--json"))["stages"][0]
    assert stage["safety"] == {"harmful.asked": 7, "harmful.refused_before": 6, "harmful.refused_after": 2}
    [told] = stage["alarms"]
    assert told["code"] == "alarm.length" and told["evidence"] == {"before": "10.0 tokens"}


def test_show_tells_what_a_judge_made_of_its_pairs(logged_in: Run, fake: Fake) -> None:
    measures = {"pairs": 30.0, "rows": 7.0, "flipped": 19.0, "first_share": 0.8}
    round_ = jobs_pb2.RoundView(number=1, kind="map", state="merged", accepted=4, seconds=9.0, measures=measures)
    stage = jobs_pb2.StageView(name="judged", recipe="judge", state="done", rounds=[round_], planned_rounds=1)
    job = succeeded_job()
    job.stages[0].CopyFrom(stage)
    fake.jobs[JOB_ID] = job
    said = logged_in("job", "show", JOB_ID)
    head, row = (line.split() for line in said.stdout.splitlines() if line.startswith(("round", "1 ")))
    told = dict(zip(head, row, strict=False))
    assert (told["pairs"], told["rows"], told["flipped"]) == ("30", "7", "19"), said.stdout
