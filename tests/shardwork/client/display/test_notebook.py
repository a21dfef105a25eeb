"""What a notebook shows: jobs, plans and balances as HTML, and a job that redraws itself while one waits for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from shardwork import Client
from tests.client.fake_coordinator import Fake
from tests.client.sample_jobs import JOB_ID, answer, running_job, succeeded_job

from .test_show import kernel

CELL = """
import shardwork
client = shardwork.Client({join!r}, home={home!r})
job = client.job({job!r})
job.wait()
job
"""


def shown(value: object, method: str = "_repr_html_") -> str:
    """What a notebook makes of a value."""
    return str(getattr(value, method)())


def test_a_job_a_plan_and_a_balance_are_html_with_nothing_of_a_strangers_in_it(
    client: Client, fake: Fake, job_file: Path
) -> None:
    view = running_job()
    view.name = "<script>"
    fake.jobs[JOB_ID] = view
    page = shown(client.job(JOB_ID))
    assert "&lt;script&gt;" in page and "<script>" not in page
    for part in ("<svg", "1,204 sat spent of 2,000 sat", "One shard waits for a worker. Start one.", "<progress"):
        assert part in page
    assert "1,500 sat, the cap" in shown(client.plan(job_file))
    assert "5,000 sat" in shown(client.wallet.balance())


def test_waiting_in_a_notebook_redraws_one_area_and_elsewhere_nothing(
    client: Client, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.jobs[JOB_ID] = running_job()
    fake.watch_script = [answer(), answer(job=succeeded_job())]
    areas = kernel(monkeypatch)
    client.job(JOB_ID).wait()
    (area,) = areas
    pages = [picture._repr_html_() for picture in area.pictures]
    assert "running" in pages[0] and "succeeded" in pages[-1] and len(pages) == 2
    assert repr(area.pictures[0]).startswith("tutor: round 3 of 4")
    fake.watch_script = [answer(job=succeeded_job())]
    kernel(monkeypatch, is_kernel=False)
    client.job(JOB_ID).wait()
    assert len(area.pictures) == 2


@pytest.mark.nightly
def test_in_a_real_kernel(fake: Fake, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient: Any = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat: Any = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    fake.jobs[JOB_ID] = running_job()
    fake.watch_script = [answer(), answer(job=succeeded_job())]
    cell = nbformat.v4.new_code_cell(CELL.format(join=fake.join, home=str(home), job=JOB_ID))
    book = nbformat.v4.new_notebook(cells=[cell])
    nbclient.NotebookClient(book, timeout=60, kernel_name="python3").execute()
    pages = [output["data"]["text/html"] for output in cell["outputs"] if "data" in output]
    assert len(pages) == 2, "the area, and the job itself"
    assert all("succeeded" in page and "<svg" in page for page in pages)
