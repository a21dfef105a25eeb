"""The picture `job watch` draws on a terminal: one frame from what is known now. Pure: state in, renderable out.

Stages with their rounds, shards by state, running shards with bars, the held-out loss as a sparkline, money, time left,
the why line and the newest events. Re-drawn at the terminal's present width, so it survives a resize. `watch` feeds it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from shardwork.client.display import figures
from shardwork.client.display.trend import trend
from shardwork.client.results import Change, Event, JobStatus, RunningShard, Stage
from shardwork.client.waiting import position, rounds_done
from shardwork.money import show as sats

from .render import clean, event_line, job_head, one_line, shard_counts, state_text, trend_line, why_block

EVENTS_KEPT = 200
#: lines that are kept for events, and shards that are kept on the picture, where both can't have their room
LEAST_EVENTS, LEAST_RUNNING = 2, 2
#: below it bars are short; below the other there are none beside names
NARROW, TINY = 90, 64
#: the why of a job that nothing is in the way of; its facts stand in the picture already
GOING_ON = "job.running"
ENDED = ("done", "skipped")


@dataclass(slots=True, kw_only=True)
class WatchState:
    """What a watcher has heard so far."""

    job: JobStatus | None = None
    running: list[RunningShard] = field(default_factory=list[RunningShard])
    events: deque[Event] = field(default_factory=lambda: deque[Event](maxlen=EVENTS_KEPT))
    #: why the connection is broken at the moment; empty while it stands
    lost: str = ""

    def hear(self, answer: Change) -> None:
        self.lost = ""
        self.job = answer.status or self.job
        self.running = list(answer.running)
        self.events.extend(answer.events)


@dataclass(slots=True)
class Frame:
    """A renderable that lays itself out for the console it is drawn on."""

    state: WatchState
    now_ms: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.state.job is None:
            yield Text(self.state.lost or "Waiting for the coordinator …", style="dim")
            return

        def lines_of(part: RenderableType) -> int:
            return len(console.render_lines(part, options.update(height=None)))

        height = options.height or console.height
        yield frame(self.state, self.state.job, self.now_ms, width=options.max_width, height=height, lines_of=lines_of)


def frame(
    state: WatchState,
    job: JobStatus,
    now_ms: int,
    *,
    width: int,
    height: int,
    lines_of: Callable[[RenderableType], int],
) -> RenderableType:
    """The whole picture in at most `height` lines; `lines_of` tells how many a part takes. Events get what is left."""
    above: list[RenderableType] = [job_head(job), Text("")]
    above += [_stages(job, width), Text("")]
    above += [_facts(job, now_ms, width), Text("")]
    below: list[RenderableType] = [Text(""), one_line(_foot(state))]
    why = _why(job)
    spare = height - lines_of(Group(*above, *why, *below))
    if spare < LEAST_RUNNING + LEAST_EVENTS:
        why = _why(job, brief=True)
        spare = height - lines_of(Group(*above, *why, *below))
    shards: list[RenderableType] = []
    if state.running and spare > LEAST_RUNNING:
        room = max((spare - LEAST_EVENTS) // 2, LEAST_RUNNING)
        shards = [_running(state, room, width), Text("")]
    num_events = spare - (lines_of(Group(*shards)) if shards else 0)
    events = list(state.events)[-num_events:] if num_events > 0 else []
    return Group(*above, *shards, *why, *(one_line(event_line(event, brief=width < TINY)) for event in events), *below)


def _why(job: JobStatus, *, brief: bool = False) -> list[RenderableType]:
    """In full where something is in the job's way and there is room for it."""
    if job.why is None or job.state == "succeeded":
        return []
    goes_on = job.why.code == GOING_ON and "last_failure" not in job.why.evidence
    if brief or goes_on:
        return [one_line(Text.assemble(("● ", "cyan" if goes_on else "yellow"), clean(job.why.sentence))), Text("")]
    return [why_block(job.why, mark="●", style="yellow"), Text("")]


def _bar(fraction: float, width: int, style: str = "cyan") -> Text:
    full, empty = figures.bar(fraction, width)
    return Text.assemble((full, style), (empty, "bright_black"))


def _bar_width(width: int) -> int:
    return 14 if width < NARROW else 28


def _stages(job: JobStatus, width: int) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(5 if width >= TINY else 3):
        grid.add_column(no_wrap=True, overflow="ellipsis")
    for stage in job.stages:
        if width < TINY:
            grid.add_row(Text(stage.name, style="bold"), state_text(stage.state), position(stage))
            continue
        fraction = stage_fraction(stage)
        style = "green" if stage.state == "done" else "red" if stage.state in ("failed", "cancelled") else "cyan"
        grid.add_row(
            Text(stage.name, style="bold"),
            Text(stage.recipe, style="dim"),
            state_text(stage.state),
            _bar(fraction, _bar_width(width), style),
            position(stage),
        )
    return grid


def stage_fraction(stage: Stage) -> float:
    if stage.state == "done":
        return 1.0
    return min(rounds_done(stage) / max(stage.planned_rounds, 1), 1.0)


def _facts(job: JobStatus, now_ms: int, width: int) -> Table:
    grid = Table.grid(padding=(0, 3, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("shards", shard_counts(job))
    if (known := trend(job)) is not None:
        grid.add_row(known.label, trend_line(known, width=_bar_width(width)))
    share = job.spent_msat / job.budget_msat if job.budget_msat else 0.0
    money = _bar(share, _bar_width(width), "yellow")
    money.append(f"  {sats(job.spent_msat)} spent of {sats(job.budget_msat)}")
    if job.reserved_msat and job.reserved_msat + job.spent_msat != job.budget_msat:
        money.append(f", {sats(job.reserved_msat)} reserved", style="dim")
    grid.add_row("money", money)
    grid.add_row("time", time_text(job, now_ms))
    return grid


def time_text(job: JobStatus, now_ms: int) -> str:
    end_ms = job.ended_unix_ms or now_ms
    text = figures.duration(max((end_ms - job.created_unix_ms) / 1000, 0.0) // 1)
    left_s = seconds_left(job)
    if left_s is not None and job.state == "running":
        text += f" so far, about {figures.duration(round(left_s))} left"
    return text


def seconds_left(job: JobStatus) -> float | None:
    """Rounds still to do at the mean pace of the finished ones; None before the first has finished."""
    finished = [each for stage in job.stages for each in stage.rounds if each.kind in ("learn", "map") and each.seconds]
    done = [each for each in finished if each.state in ("merged", "rolled_back")]
    if not done:
        return None
    pace_s = sum(each.seconds for each in done) / len(done)
    remaining = sum(stage.planned_rounds - rounds_done(stage) for stage in job.stages if stage.state not in ENDED)
    return pace_s * max(remaining, 0)


def _running(state: WatchState, limit: int, width: int) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(4 if width >= TINY else 2):
        grid.add_column(no_wrap=True, overflow="ellipsis")
    job_id = state.job.id if state.job else ""
    for shard in sorted(state.running, key=lambda each: each.shard)[:limit]:
        name = shard.shard.removeprefix(f"{job_id}/")
        if width < TINY:
            grid.add_row(name, f"{figures.percent(shard.progress):>5}")
            continue
        loss = f"loss {figures.loss(shard.loss)}" if shard.loss is not None else ""
        progress = _bar(shard.progress, _bar_width(width))
        progress.append(f" {figures.percent(shard.progress):>5}")
        grid.add_row(
            name,
            Text(clean(shard.worker_name or shard.worker_id), style="cyan"),
            progress,
            Text(f"{loss}  {figures.duration(shard.seconds)}".strip(), style="dim"),
        )
    hidden = len(state.running) - limit
    if hidden > 0:
        grid.add_row(Text(f"and {hidden} more", style="dim"))
    return grid


def _foot(state: WatchState) -> Text:
    if state.lost:
        return Text(f"{state.lost} Trying again …", style="yellow")
    if state.job is not None and state.job.is_final:
        return Text("")
    return Text("Ctrl-C leaves the job running and only detaches.", style="dim")
