"""The live picture: fits any size, hides nothing that matters, and its estimates are plain arithmetic."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from shardwork_client.live import Frame, WatchState, seconds_left, stage_position

from .fake_coordinator import NOW_MS
from .sample_jobs import answer, event, failed_job, running_job, succeeded_job


def drawn(state: WatchState, *, width: int, height: int = 30) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, color_system=None)
    console.print(Frame(state, NOW_MS + 60_000))
    return out.getvalue()


def heard(*kinds: str) -> WatchState:
    state = WatchState()
    state.hear(answer(*(event(number, kind, f"Event {number}.") for number, kind in enumerate(kinds, 1))))
    return state


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = drawn(heard("round.merged"), width=width).splitlines()
    assert max(len(line) for line in lines) <= width


@pytest.mark.parametrize("height", [24, 30, 60])
def test_it_is_no_higher_than_the_terminal_however_much_happens(height: int) -> None:
    state = heard(*["round.merged"] * 100)
    shard = state.running[0]
    state.running = [type(shard)(shard=f"x/{number:03d}", progress=0.5) for number in range(300)]
    text = drawn(state, width=100, height=height)
    assert len(text.splitlines()) <= height
    assert "more" in text and "Event 100." in text and "detaches" in text


def test_before_the_first_answer_and_after_a_loss_it_says_what_it_waits_for() -> None:
    state = WatchState()
    assert "Waiting for the coordinator" in drawn(state, width=80)
    state = heard("job.running")
    state.lost = "The coordinator cannot be reached."
    assert "The coordinator cannot be reached. Trying again" in drawn(state, width=80)
    state.hear(answer())
    assert "Trying again" not in drawn(state, width=80)


def test_a_failed_job_shows_why_and_no_detach_hint() -> None:
    state = WatchState()
    state.hear(answer(job=failed_job()))
    text = drawn(state, width=100)
    assert "The held-out loss rose twice in a row." in text
    assert "detaches" not in text


def test_time_left_is_the_pace_of_the_finished_rounds_times_what_remains() -> None:
    assert seconds_left(running_job()) == 2 * 12.5
    assert seconds_left(succeeded_job()) == 0
    fresh = running_job()
    del fresh.stages[0].rounds[1:]
    assert seconds_left(fresh) is None


def test_a_stage_says_where_it_is() -> None:
    job = running_job()
    assert stage_position(job.stages[0]) == "round 3 of 4 · learn"
    del job.stages[0].rounds[1:]
    job.stages[0].rounds[0].phase = "prepare"
    assert stage_position(job.stages[0]) == "setup · prepare"
    job.stages[0].state = "waiting"
    assert stage_position(job.stages[0]) == "4 rounds"
