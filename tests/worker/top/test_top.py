"""`top` at 80x24 and wide: what it shows of a worker at work, at rest and away, and what its keys do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Sparkline, Static
from typer.testing import CliRunner

from shardwork.errors import NotFound
from shardwork.why import Why
from shardwork_worker.account.book import Book, Fate, Line
from shardwork_worker.cli import app
from shardwork_worker.control import Command
from shardwork_worker.limits.gpu import Reading
from shardwork_worker.status import Earned, State, Status, offline
from shardwork_worker.top import screen
from shardwork_worker.top.screen import Top
from shardwork_worker.top.snapshot import Snapshot, Watched

from ..conftest import Workers, let_go
from ..fake_coordinator import FakeCoordinator
from ..limits.fake_smi import FakeSmi

GPU = Reading(
    index=0,
    name="A100",
    driver="550",
    memory_mib=40960,
    used_mib=2048,
    busy_percent=77,
    celsius=61,
    watts=250,
    limit_watts=300,
)
BUSY = Status(
    state=State.BUSY,
    shard="job/sft/r2/learn/s3#0.1",
    recipe="sft",
    phase="learn",
    price_msat=7000,
    progress=0.5,
    step="computing",
    loss=1.25,
    earned=Earned(paid_msat=9000, pending_msat=2000, held_msat=1000),
    worker_id="00aa",
    device="cuda:0",
    coordinator="host:1",
    shards_done=4,
    sandbox="kernel",
)
REJECTED = Line(
    lease_id="job/sft/r1/learn/s0#0.1",
    coordinator="ab",
    recipe="sft",
    phase="learn",
    price_msat=7000,
    work_units=1,
    at_ms=0,
    state=Fate.REJECTED,
    why=Why(code="result.bad", sentence="Its delta is not finite."),
)


def snapshot(status: Status, **changes: Any) -> Snapshot:
    now = Snapshot(
        status=status.to_json(),
        today_msat=5000,
        verdicts=[REJECTED, replace(REJECTED, state=Fate.PAID, paid_msat=7000, why=None)],
        gpus=[GPU],
        cache_bytes=3 * 1024**3,
        cache_limit_bytes=20 * 1024**3,
        at_ms=0,
    )
    return replace(now, **changes)


class Fixed:
    """A source that says what a test puts into it."""

    def __init__(self, now: Snapshot) -> None:
        self.now = now
        self.told: list[Command] = []
        self.refuses = False

    async def look(self) -> Snapshot:
        return self.now

    async def tell(self, command: Command) -> dict[str, Any]:
        self.told.append(command)
        if self.refuses:
            raise NotFound("worker.not_running", "No worker runs here.", next_step="Start one.")
        return {"state": "paused"}


def words(shown: Top) -> str:
    """All that is on the screen, as plain text."""
    lines = shown.screen._compositor.render_strips()  # pyright: ignore[reportPrivateUsage]
    return "\n".join(line.text for line in lines)


async def test_an_answer_that_comes_after_somebody_quit_is_not_shown() -> None:
    shown = Top(Fixed(snapshot(BUSY)))
    async with shown.run_test():
        pass
    # raises where it would be shown: the panels are gone
    await shown.look()
    assert not shown.is_running


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_a_worker_at_work_is_shown_whole_also_in_a_small_terminal(size: tuple[int, int]) -> None:
    shown = Top(Fixed(snapshot(BUSY)))
    async with shown.run_test(size=size) as pilot:
        await pilot.pause()
        await shown.look()
        await pilot.pause()
        text = words(shown)
        assert max(map(len, text.splitlines())) <= size[0] and len(text.splitlines()) == size[1]
    for said in (
        "● busy",
        "worker 00aa on cuda:0 at host:1",
        "job/sft/r2/learn/s3#0.1",
        "sft · learn · 7 sat",
        "50%",
        "1.2500",
        "61 °C · 250 W of 300",
        "3.0 GiB of 20.0 GiB",
        "today   5 sat",
        "pending 2 sat",
        "held    1 sat",
        "paid    9 sat",
        "4 done, 0 failed",
        "rejected 7 sat job/sft/r1/learn/s0#0.1  Its delta is",
        "p pause",
        "f finish",
        "r resume",
        "q quit",
    ):
        assert said in text, f"{said}\n{text}"


async def test_why_it_rests_is_shown_with_what_to_do_and_goes_when_it_works() -> None:
    why = Why(code="worker.limit_hours", sentence="It takes shards from 22:00 on.", next_step="Wait.")
    source = Fixed(snapshot(replace(BUSY, state=State.PAUSED, why=why, shard=None, loss=None)))
    shown = Top(source)
    async with shown.run_test(size=(80, 24)) as pilot:
        await shown.look()
        await pilot.pause()
        assert "It takes shards from 22:00 on. Wait." in words(shown) and "none in hand" in words(shown)
        source.now = snapshot(BUSY)
        await shown.look()
        await pilot.pause()
        assert not shown.query_one("#why", Static).display and "22:00" not in words(shown)


async def test_without_a_worker_no_figure_is_made_up() -> None:
    away = offline(Why(code="worker.not_running", sentence="No worker runs here.", next_step="Start one."))
    shown = Top(Fixed(snapshot(away, gpus=[], verdicts=[])))
    async with shown.run_test(size=(80, 24)) as pilot:
        await shown.look()
        await pilot.pause()
        text = words(shown)
    assert "● offline" in text and "paid    -" in text and "not measured" in text and "no shard yet" in text


async def test_the_curve_is_of_the_shard_in_hand() -> None:
    source = Fixed(snapshot(BUSY))
    shown = Top(source)
    async with shown.run_test(size=(80, 24)):
        for loss in (3.0, 2.0, 2.0, 1.0):
            source.now = snapshot(replace(BUSY, loss=loss))
            await shown.look()
        assert list(shown.query_one("#curve", Sparkline).data or ())[-3:] == [3.0, 2.0, 1.0]
        source.now = snapshot(replace(BUSY, shard="other", loss=9.0))
        await shown.look()
        assert list(shown.query_one("#curve", Sparkline).data or ()) == [9.0]


async def test_keys_steer_the_worker_and_say_how_it_went() -> None:
    source = Fixed(snapshot(BUSY))
    shown = Top(source)
    async with shown.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.press("p", "f", "r")
        await pilot.pause()
        assert source.told == [Command.PAUSE, Command.FINISH, Command.RESUME]
        assert "pause: the worker is paused" in words(shown)
        source.refuses = True
        await pilot.press("p")
        await pilot.pause()
        assert "No worker runs here." in words(shown)
        await pilot.press("q")
    assert shown.return_code == 0


async def test_a_running_worker_is_watched_through_its_end_and_its_next_start(
    coordinator: FakeCoordinator,
    workers: Workers,
    waiting: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FakeSmi(tmp_path / "bin", monkeypatch)
    monkeypatch.setattr(screen, "LOOK_EVERY_S", 0.01)
    worker = await workers.here()
    folders = worker.folders
    watched = Watched(folders.state, folders.artifacts, cache_limit_bytes=10)
    coordinator.offer(coordinator.lease(waiting))
    await coordinator.until_computing()
    now = await watched.look()
    assert (now.status["state"], now.status["recipe"], now.status["phase"]) == ("busy", "sft", "learn")
    assert now.gpus == [], "a worker on a CPU has none, whatever else the machine has"
    let_go(waiting)
    await coordinator.wait("SubmitResult")
    await worker.until_idle()
    (folders.artifacts / "x").write_bytes(b"12345")
    after = await Watched(folders.state, folders.artifacts, cache_limit_bytes=10).look()
    assert (after.today_msat, [line.state for line in after.verdicts], after.cache_bytes) == (7000, [Fate.PAID], 5)
    await watched.tell(Command.STOP)
    await worker.task
    assert (await watched.look()).status["state"] == "offline"
    await workers.here()
    assert (await watched.look()).status["state"] == "ready"


def test_a_screenshot_is_written_and_a_pipe_is_told_what_to_use(tmp_path: Path) -> None:
    Book(tmp_path / "state" / "worker").note(REJECTED)
    env = {"SHARDWORK_HOME": str(tmp_path)}
    picture = tmp_path / "top.svg"
    assert CliRunner().invoke(app, ["top", "--screenshot", str(picture)], env=env).exit_code == 0
    text = picture.read_text().replace("&#160;", " ")
    assert text.startswith("<svg") and "rejected" in text and "offline" in text
    assert "url(" not in text.replace("url(#", "") and "@font-face" not in text
    piped = CliRunner().invoke(app, ["top"], env=env)
    assert getattr(piped.exception, "code", "") == "top.no_terminal"
