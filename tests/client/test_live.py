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


def test_a_stage_says_where_it_is() -> None:
    job = running_job()
    assert position(received.stage(job.stages[0])) == "round 3 of 4 · learn"
    del job.stages[0].rounds[1:]
    job.stages[0].rounds[0].phase = "prepare"
    assert position(received.stage(job.stages[0])) == "setup · prepare"
    job.stages[0].state = "waiting"
    assert position(received.stage(job.stages[0])) == "4 rounds"
