"""Progress as people see it: HTML in a notebook, bars on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from shardwork.client.display import show
from shardwork.client.progress import Progress


class Area:
    """A display handle as IPython gives it."""

    def __init__(self, picture: Any) -> None:
        self.pictures = [picture]

    def update(self, picture: Any) -> None:
        self.pictures.append(picture)


def kernel(monkeypatch: pytest.MonkeyPatch, *, is_kernel: bool = True) -> list[Area]:
    """An IPython that is running, in a notebook or on a terminal."""
    areas: list[Area] = []

    def display(picture: Any, *, display_id: bool) -> Area:
        assert display_id
        areas.append(Area(picture))
        return areas[-1]

    shell = SimpleNamespace(kernel=object()) if is_kernel else SimpleNamespace()
    fake = SimpleNamespace(get_ipython=lambda: shell, display=SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython", fake)
    return areas


def test_a_notebook_gets_one_area_a_thing_that_is_updated_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    areas = kernel(monkeypatch)
    monkeypatch.setattr(show, "REDRAW_EVERY_S", 0.0)
    display = show.show_progress()
    assert isinstance(display, show.NotebookDisplay)
    display(Progress("sft.data ↑", 1, 4))
    display(Progress("sft.data ↑", 4, 4))
    display(Progress("tutor", 1, 4, unit="rounds", note="round 2 of 4 · learn"))
    assert [len(area.pictures) for area in areas] == [2, 1]
    assert "value='1.0000'" in areas[0].pictures[1]._repr_html_()
    assert "round 2 of 4" in areas[1].pictures[0]._repr_html_()
    assert repr(areas[1].pictures[0]) == "tutor: round 2 of 4 · learn"


def test_a_notebook_is_not_flooded_but_always_hears_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    areas = kernel(monkeypatch)
    monkeypatch.setattr(show, "REDRAW_EVERY_S", 1e9)
    display = show.NotebookDisplay()
    for done in range(1001):
        display(Progress("x", done, 1000))
    assert len(areas[0].pictures) == 2


def test_a_name_from_elsewhere_is_no_markup() -> None:
    page = show.page_of(Progress("<script>alert(1)</script>", 1, 2, unit="rounds", note="<b>"))
    assert "<script>" not in page and "<b>" not in page and "&lt;script&gt;" in page


def test_ipython_on_a_terminal_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel(monkeypatch, is_kernel=False)
    assert not show.in_notebook()
    assert isinstance(show.show_progress(), show.LinesDisplay)


def test_bars_follow_one_thing_after_another_and_leave_nothing() -> None:
    out = io.StringIO()
    display = show.BarsDisplay(Console(file=out, force_terminal=True, width=80))
    display(Progress("sft.data ↑", 1_000_000, 4_000_000))
    display(Progress("tutor", 1, 4, unit="rounds", note="round 2 of 4"))
    display.close()
    display.close()
    assert "round 2 of 4" in out.getvalue()
    assert out.getvalue().endswith("\x1b[2K")


def test_lines_tell_each_step_of_a_job_once() -> None:
    said: list[str] = []
    display = show.LinesDisplay(said.append)
    for note in ("round 1 of 2", "round 1 of 2", "round 2 of 2"):
        display(Progress("tutor", 0, 2, unit="rounds", note=note))
    display(Progress("bytes", 1, 2))
    display.close()
    assert said == ["tutor: round 1 of 2", "tutor: round 2 of 2"]
