"""`job logs`: the last lines, JSON Lines, following across breaks, Ctrl-C, and what each width shows."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from datetime import datetime

import pytest

from shardwork.client.received import log_line
from shardwork.v1 import jobs_pb2
from shardwork_client.log_page import told

from .conftest import Run, error_of
from .fake_coordinator import NOW_MS, Cut, Fake, Hold
from .sample_jobs import JOB_ID, answer, event, failed_job, running_job
from .terminal import COMMAND, Terminal

WORKER = "1a2b3c4d5e6f7081"
SHARD = f"{JOB_ID}/sft/r2/learn/s3"
KEYS = {
    *("sequence", "at_unix_ms", "kind", "sentence", "stage", "round", "phase", "shard", "copy", "attempt", "worker"),
    *("code", "evidence"),
}
LONG = "The reported loss is not plausible, and nobody can say where it comes from or where it goes."


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardwork.client.calls.WATCH_FIRST_PAUSE_S", 0.01)


def line(sequence: int, kind: str, sentence: str, *, lease: str = "#0.1", **evidence: str) -> jobs_pb2.JobEvent:
    return jobs_pb2.JobEvent(
        sequence=sequence,
        at_unix_ms=NOW_MS + 1000 * sequence,
        kind=kind,
        subject=SHARD,
        sentence=sentence,
        evidence={"worker": WORKER, "lease": f"{SHARD}{lease}", **evidence},
    )


def attempts() -> list[jobs_pb2.JobEvent]:
    return [
        event(1, "job.running", "The job goes on."),
        line(2, "shard.leased", f"learn shard 3 went to worker {WORKER}.", price_msat="1500"),
        line(3, "shard.rejected", f"learn shard 3 of worker {WORKER} was refused: {LONG}", code="check.loss_range"),
        line(4, "shard.leased", f"learn shard 3 went to worker {WORKER}.", lease="#1.2"),
        line(5, "shard.accepted", f"learn shard 3 of worker {WORKER} was accepted.", lease="#1.2"),
        line(6, "shard.done", "learn shard 3 is done.", lease="#1.2", copies="1"),
        event(7, "round.merged", "Round 2 is merged."),
    ]


def lines_of(fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    fake.events = attempts()


def test_the_last_lines_come_oldest_first_with_short_names(logged_in: Run, fake: Fake) -> None:
    lines_of(fake)
    shown = logged_in("job", "logs", JOB_ID, "-n", "3").stdout.splitlines()
    assert [text.split("  ", 2)[1:] for text in shown] == [
        ["sft r2", "learn shard 3 went to worker 1a2b3c4d.  copy 1, attempt 2"],
        ["sft r2", "learn shard 3 of worker 1a2b3c4d was accepted.  copy 1, attempt 2"],
        ["sft r1", "Round 2 is merged."],
    ]
    begun = datetime.fromtimestamp((NOW_MS + 4000) / 1000)
    assert shown[0].startswith(f"{begun:%Y-%m-%d %H:%M:%S}  ")


def test_by_default_it_asks_for_fifty_and_the_server_is_never_asked_for_more_than_a_page(
    logged_in: Run, fake: Fake
) -> None:
    lines_of(fake)
    assert len(logged_in("job", "logs", JOB_ID).stdout.splitlines()) == 6
    assert fake.listed[0].limit == 50 and all(each.details for each in fake.listed)
    fake.listed.clear()
    fake.events = [event(number, "round.merged", "Merged.") for number in range(1, 900)]
    assert len(logged_in("job", "logs", JOB_ID, "--lines", "800").stdout.splitlines()) == 800
    assert max(each.limit for each in fake.listed) == 500


def test_json_is_a_line_an_object_with_its_keys(logged_in: Run, fake: Fake) -> None:
    lines_of(fake)
    found = [json.loads(text) for text in logged_in("job", "logs", JOB_ID, "--json").stdout.splitlines()]
    assert [each["sequence"] for each in found] == [1, 2, 3, 4, 5, 7]
    assert all(set(each) == KEYS for each in found)
    refused = found[2]
    assert (refused["code"], refused["worker"], refused["shard"]) == ("check.loss_range", WORKER, SHARD)
    assert (refused["stage"], refused["round"], refused["phase"]) == ("sft", 2, "learn")
    assert (found[3]["copy"], found[3]["attempt"]) == (1, 2)
    assert (found[0]["worker"], found[0]["copy"], found[0]["code"]) == (None, None, None)


@pytest.mark.parametrize("count", ["-1", "10001", "many", "1.5", ""])
def test_a_count_that_cannot_be_is_a_usage_error(logged_in: Run, fake: Fake, count: str) -> None:
    lines_of(fake)
    result = logged_in("job", "logs", JOB_ID, "-n", count)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'-n'" in result.stderr and fake.listed == []


def test_follow_goes_on_behind_the_last_line_across_breaks_and_judges_nothing(logged_in: Run, fake: Fake) -> None:
    lines_of(fake)
    fake.watch_script = [
        answer(line(8, "shard.uploaded", "learn shard 4 was uploaded.")),
        Cut(),
        answer(line(8, "shard.uploaded", "learn shard 4 was uploaded."), line(9, "shard.retried", "Again.")),
        answer(event(10, "job.failed", "The job failed."), job=failed_job()),
    ]
    result = logged_in("job", "logs", JOB_ID, "-n", "1", "-f", "--json")
    assert result.exit_code == 0, result.stderr
    assert [json.loads(text)["sequence"] for text in result.stdout.splitlines()] == [7, 8, 9, 10]
    assert (fake.watched_from, fake.details_asked) == ([7, 8], [True, True])
    assert result.stderr.count("Trying again") == 1


def test_no_lines_and_follow_is_only_what_comes(logged_in: Run, fake: Fake) -> None:
    lines_of(fake)
    fake.watch_script = [answer(event(8, "job.failed", "The job failed."), job=failed_job())]
    shown = logged_in("job", "logs", JOB_ID, "-n", "0", "-f").stdout.splitlines()
    assert len(shown) == 1 and shown[0].endswith("The job failed.")
    assert fake.watched_from == [7]


def test_a_coordinator_of_an_earlier_version_is_read_once_and_without_repeats(logged_in: Run, fake: Fake) -> None:
    """It pages onwards only: the same first page whatever is asked for."""
    lines_of(fake)
    fake.pages_backwards = False
    found = logged_in("job", "logs", JOB_ID, "--json")
    assert [json.loads(text)["sequence"] for text in found.stdout.splitlines()] == [1, 2]


def test_an_unknown_job_is_exit_4(logged_in: Run, fake: Fake) -> None:
    result = logged_in("job", "logs", "nope", "-f", "--json")
    assert (result.exit_code, result.stdout, error_of(result)["code"]) == (4, "", "job.unknown")


def test_a_stranger_s_words_cannot_drive_the_terminal(logged_in: Run, fake: Fake) -> None:
    fake.jobs[JOB_ID] = running_job()
    fake.events = [line(1, "shard.expired", "taken back: \x1b[2J[red]gone", code="x.\x1b[0m")]
    shown = logged_in("job", "logs", JOB_ID).stdout
    assert "\x1b" not in shown and "?[2J[red]gone  x.?[0m" in shown


def test_ctrl_c_leaves_with_130_and_the_job_goes_on(logged_in: Run, fake: Fake) -> None:
    lines_of(fake)
    fake.watch_script = [Hold()]
    command = [*COMMAND, "job", "logs", JOB_ID, "-n", "1", "-f"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "Round 2 is merged." in process.stdout.readline(), "each line is out at once, not when a buffer is full"
    assert fake.watching.wait(30)
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=30)
    assert (process.returncode, rest) == (130, "")
    assert "The job goes on." in err and "Traceback" not in err


@pytest.mark.parametrize("columns", [80, 50])
def test_on_a_terminal_a_long_line_goes_on_under_its_own_text(logged_in: Run, fake: Fake, columns: int) -> None:
    lines_of(fake)
    terminal = Terminal("job", "logs", JOB_ID, columns=columns)
    assert terminal.finish() == 0
    rows = re.sub(r"\x1b\[[0-9;]*m", "", terminal.text).replace("\r\n", "\n").splitlines()
    assert max(len(row.rstrip()) for row in rows) <= columns
    first = next(number for number, row in enumerate(rows) if "of worker" in row)
    assert rows[first][:8].count(":") == 2 and rows[first][8:10] == "  "
    assert rows[first + 1].startswith(" " * 10) and rows[first + 1][10] != " "
    assert "check.loss_range" in " ".join(row.strip() for row in rows)
    day = datetime.fromtimestamp(NOW_MS / 1000)
    assert [row.strip() for row in rows].count(f"{day:%Y-%m-%d}") == 1, "a day that is not today is told once"


def test_a_line_names_only_what_is_not_as_usual() -> None:
    plain, again = (told(log_line(attempts()[number])).plain for number in (1, 3))
    assert plain == "sft r2  learn shard 3 went to worker 1a2b3c4d."
    assert again.endswith("  copy 1, attempt 2")
