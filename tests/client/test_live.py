"""The live picture: fits any size, hides nothing that matters, and its estimates are plain arithmetic."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from shardwork.client import received
from shardwork.client.results import Change, RunningShard
from shardwork.client.waiting import position
from shardwork.v1 import jobs_pb2
from shardwork_client.live import Frame, WatchState, seconds_left

from .fake_coordinator import NOW_MS
from .sample_jobs import answer, event, failed_job, running_job, succeeded_job


def change(*events: jobs_pb2.JobEvent, job: jobs_pb2.JobView | None = None) -> Change:
    return received.change(answer(*events, job=job))


def drawn(state: WatchState, *, width: int, height: int = 30) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, color_system=None)
    console.print(Frame(state, NOW_MS + 60_000))
    return out.getvalue()


def heard(*kinds: str) -> WatchState:
    state = WatchState()
    state.hear(change(*(event(number, kind, f"Event {number}.") for number, kind in enumerate(kinds, 1))))
    return state


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = drawn(heard("round.merged"), width=width).splitlines()
    assert max(len(line) for line in lines) <= width


@pytest.mark.parametrize("height", [24, 30, 60])
def test_it_is_no_higher_than_the_terminal_however_much_happens(height: int) -> None:
    state = heard(*["round.merged"] * 100)
    state.running = [
        RunningShard(shard=f"x/{n:03d}", phase="", worker_id="", worker_name="", progress=0.5, loss=None, seconds=0.0)
        for n in range(300)
    ]
    text = drawn(state, width=100, height=height)
    assert len(text.splitlines()) <= height
    assert "more" in text and "Event 100." in text and "detaches" in text


def test_before_the_first_answer_and_after_a_loss_it_says_what_it_waits_for() -> None:
    state = WatchState()
    assert "Waiting for the coordinator" in drawn(state, width=80)
    state = heard("job.running")
    state.lost = "The coordinator cannot be reached."
    assert "The coordinator cannot be reached. Trying again" in drawn(state, width=80)
    state.hear(change())
    assert "Trying again" not in drawn(state, width=80)


def test_a_failed_job_shows_why_and_no_detach_hint() -> None:
    state = WatchState()
    state.hear(change(job=failed_job()))
    text = drawn(state, width=100)
    assert "The held-out loss rose twice in a row." in text
    assert "detaches" not in text


def test_time_left_is_the_pace_of_the_finished_rounds_times_what_remains() -> None:
    assert seconds_left(received.job_status(running_job())) == 2 * 12.5
    assert seconds_left(received.job_status(succeeded_job())) == 0
    fresh = running_job()
    del fresh.stages[0].rounds[1:]
    assert seconds_left(received.job_status(fresh)) is None


def test_what_goes_on_takes_one_line_and_what_hinders_all_of_it() -> None:
    job = running_job()
    job.why.code, job.why.sentence, job.why.next_step = "job.running", "2 workers are on it.", "`job watch` follows it."
    job.why.evidence["round"] = "1"
    state = WatchState()
    state.hear(change(job=job))
    text = drawn(state, width=100)
    assert "● 2 workers are on it." in text and "follows it" not in text and "round: 1" not in text
    job.why.code = "shard.no_workers"
    state.hear(change(job=job))
    assert "follows it" in drawn(state, width=100)


@pytest.mark.parametrize(("width", "height"), [(50, 20), (40, 18), (50, 60)])
def test_on_a_tiny_terminal_names_are_whole_and_the_foot_is_there(width: int, height: int) -> None:
    state = heard(*["round.merged"] * 50)
    state.running = [
        RunningShard(shard="x/sft/r3/s1", phase="", worker_id="", worker_name="w", progress=0.5, loss=1.0, seconds=3.0)
    ]
    lines = drawn(state, width=width, height=height).splitlines()
    assert len(lines) <= height and max(map(len, lines)) <= width
    assert any(line.startswith("sft  running  round 3 of 4 · learn") for line in lines)
    assert any("x/sft/r3/s1   50 %" in line for line in lines) == (height > 18)
    assert "Event 50." in "".join(lines)
    assert "Ctrl-C leaves the job running" in lines[-1]


def test_a_stage_that_was_stopped_says_so_without_a_reason_too() -> None:
    job = succeeded_job()
    job.stages[0].planned_rounds, job.stages[0].best_round = 8, 3
    assert position(received.stage(job.stages[0])) == "ended after 4 of 8 rounds, round 3 published"
    del job.stages[0].rounds[:]
    assert position(received.stage(job.stages[0])) == "8 rounds"


def test_a_stage_says_where_it_is() -> None:
    job = running_job()
    assert position(received.stage(job.stages[0])) == "round 3 of 4 · learn"
    del job.stages[0].rounds[1:]
    job.stages[0].rounds[0].phase = "prepare"
    assert position(received.stage(job.stages[0])) == "setup · prepare"
    job.stages[0].state = "waiting"
    assert position(received.stage(job.stages[0])) == "4 rounds"
