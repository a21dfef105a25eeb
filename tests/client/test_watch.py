"""Following a job: lines, JSON Lines, the live picture on a terminal, restarts, Ctrl-C, and exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest

from .conftest import Run, error_of
from .fake_coordinator import Cut, Fake, Hold, Running
from .sample_jobs import JOB_ID, answer, event, failed_job, running_job, succeeded_job
from .terminal import COMMAND, Terminal


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardwork.client.calls.WATCH_FIRST_PAUSE_S", 0.01)


def script_success(fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    fake.watch_script = [
        answer(event(1, "job.running", "The job runs."), event(2, "round.merged", "Round 1 merged.")),
        answer(event(3, "round.merged", "Round 2 merged.")),
        answer(event(4, "job.succeeded", "The job succeeded."), job=succeeded_job()),
    ]


def test_without_a_terminal_each_event_is_one_line_and_success_is_exit_0(logged_in: Run, fake: Fake) -> None:
    script_success(fake)
    result = logged_in("job", "watch", JOB_ID)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    assert "round.merged" in lines[1] and "Round 1 merged." in lines[1]


def test_json_lines_are_events_and_then_the_final_job(logged_in: Run, fake: Fake) -> None:
    script_success(fake)
    result = logged_in("job", "watch", JOB_ID, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line.get("sequence") for line in lines] == [1, 2, 3, 4, None]
    assert lines[-1]["kind"] == "job.final"
    assert lines[-1]["job"]["state"] == "succeeded"


def test_a_failed_job_is_exit_8_with_its_reason(logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    fake.watch_script = [answer(event(1, "job.failed", "The job failed."), job=failed_job())]
    result = logged_in("job", "watch", JOB_ID, "--json")
    assert result.exit_code == 8
    assert error_of(result)["code"] == "round.rolled_back_twice"
    assert error_of(result)["evidence"] == {"job": JOB_ID, "state": "failed", "round": "4"}


def test_a_cancelled_job_is_exit_8_too(logged_in: Run, fake: Fake) -> None:
    job = running_job()
    job.state = "cancelled"
    job.ClearField("why")
    fake.jobs[JOB_ID] = job
    fake.watch_script = [answer(job=job)]
    result = logged_in("job", "watch", JOB_ID)
    assert result.exit_code == 8
    assert "The job ended as cancelled." in result.stderr
    assert f"shardwork job report {JOB_ID}" in result.stderr


def test_after_a_break_it_resumes_behind_the_last_event_and_repeats_none(logged_in: Run, fake: Fake) -> None:
    script_success(fake)
    first, _, last = fake.watch_script
    repeated = answer(event(2, "round.merged", "Round 1 merged."), event(3, "round.merged", "Round 2 merged."))
    fake.watch_script = [first, Cut(), Cut(), repeated, last]
    result = logged_in("job", "watch", JOB_ID, "--json")
    assert result.exit_code == 0, result.stderr
    assert fake.watched_from == [0, 2, 2]
    sequences = [json.loads(line).get("sequence") for line in result.stdout.splitlines()]
    assert sequences == [1, 2, 3, 4, None]
    assert result.stderr.count("Trying again") == 1


def test_a_stream_that_ends_early_is_taken_up_again(logged_in: Run, fake: Fake) -> None:
    script_success(fake)
    # a coordinator that drains ends its streams in order, without an error
    fake.watch_script.insert(1, Cut(grpc.StatusCode.OK))
    assert logged_in("job", "watch", JOB_ID).exit_code == 0


def test_a_token_that_is_refused_is_renewed_once_and_then_given_up(logged_in: Run, fake: Fake) -> None:
    script_success(fake)
    fake.watch_script.insert(1, Cut(grpc.StatusCode.UNAUTHENTICATED))
    assert logged_in("job", "watch", JOB_ID).exit_code == 0
    fake.jobs[JOB_ID] = running_job()
    fake.watch_script = [Cut(grpc.StatusCode.UNAUTHENTICATED), Cut(grpc.StatusCode.UNAUTHENTICATED)]
    assert logged_in("job", "watch", JOB_ID).exit_code == 5


def test_a_coordinator_that_stays_away_is_exit_7(logged_in: Run, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardwork.client.calls.WATCH_GIVE_UP_S", 0.0)
    script_success(fake)
    fake.watch_script.insert(1, Cut())
    assert logged_in("job", "watch", JOB_ID).exit_code == 7


def test_events_follow_ends_with_the_job_and_judges_nothing(logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    fake.watch_script = [answer(event(7, "job.failed", "The job failed."), job=failed_job())]
    result = logged_in("job", "events", JOB_ID, "--follow", "--json", "--after", "6")
    assert result.exit_code == 0
    assert [json.loads(line)["sequence"] for line in result.stdout.splitlines()] == [7]
    assert fake.watched_from == [6]


def test_it_survives_a_real_restart_of_the_coordinator(logged_in: Run, fake: Fake, running: Running) -> None:
    script_success(fake)
    fake.watch_script.insert(1, Hold())

    def restart() -> None:
        assert fake.watching.wait(20)
        running.stop()
        running.start()

    thread = threading.Thread(target=restart)
    thread.start()
    result = logged_in("job", "watch", JOB_ID, "--json")
    thread.join()
    assert result.exit_code == 0, result.stderr
    assert [json.loads(line).get("sequence") for line in result.stdout.splitlines()] == [1, 2, 3, 4, None]


# ---- on a process of its own ------------------------------------------------------------------------------------


def test_ctrl_c_only_detaches_and_tells_the_way_back(logged_in: Run, fake: Fake) -> None:
    script_success(fake)
    fake.watch_script.insert(1, Hold())
    process = subprocess.Popen(
        [*COMMAND, "job", "watch", JOB_ID], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    shown = process.stdout.readline() + process.stdout.readline()
    assert "Round 1 merged." in shown, "each line is out at once, not when a buffer is full"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"the job goes on. Come back with:  shardwork job watch {JOB_ID}" in err
    assert "Traceback" not in err


def test_on_a_terminal_it_draws_everything_and_leaves_the_report_behind(logged_in: Run, fake: Fake) -> None:
    script_success(fake)
    fake.watch_script.insert(2, Hold())
    terminal = Terminal("job", "watch", JOB_ID)
    drawn = terminal.read_until("detaches")
    for text in ("tutor", "sft", "9 done", "alice", "bob", "30 %", "held-out loss", "2.9123", "spent of", "One shard"):
        assert text in drawn, text
    fake.watching.wait(30)
    terminal.resize(60, 20)
    terminal.signal(signal.SIGWINCH)
    terminal.read_until("detaches")
    assert terminal.interrupt() == 130
    assert "Come back with" in terminal.text
    assert "\x1b[?1049l" in terminal.text, "the alternate screen was left"
    assert "Traceback" not in terminal.text


def test_a_kill_gives_the_terminal_back(logged_in: Run, fake: Fake) -> None:
    script_success(fake)
    fake.watch_script.insert(1, Hold())
    terminal = Terminal("job", "watch", JOB_ID)
    terminal.read_until("Round 1 merged.")
    terminal.signal(signal.SIGTERM)
    assert terminal.finish() == 128 + signal.SIGTERM
    assert "\x1b[?1049l" in terminal.text and "\x1b[?25h" in terminal.text, "main screen and cursor are back"
    assert "Traceback" not in terminal.text


def test_on_a_terminal_success_ends_with_the_job_page(logged_in: Run, fake: Fake) -> None:
    script_success(fake)
    terminal = Terminal("job", "watch", JOB_ID)
    assert terminal.finish() == 0
    after = terminal.text.rsplit("\x1b[?1049l", 1)[-1]
    assert "succeeded" in after and "sft.model" in after


def test_a_reader_that_goes_away_is_no_error(logged_in: Run, fake: Fake, tmp_path: Path) -> None:
    fake.jobs[JOB_ID] = running_job()
    fake.watch_script = [
        answer(*(event(number, "round.merged", "x" * 400) for number in range(block, block + 500)))
        for block in range(1, 3001, 500)
    ]
    fake.watch_script.append(answer(job=succeeded_job()))
    script = f"{sys.executable} -m shardwork_client.cli job watch {JOB_ID} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
