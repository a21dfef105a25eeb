"""A second job continues a first: by the first one's id, and from what was downloaded of it; bytes and words."""

from __future__ import annotations

import pytest

from shardwork.tensors.checkpoint import open_checkpoint

from .jobfile import write_sft
from .world import World

STEPS = 3


@pytest.fixture(scope="module")
def first(town: World) -> str:
    """The finished job's id; its checkpoint lies in made/before."""
    job = town.submit(write_sft(town.folder, "before.yaml", name="before", shards=1, steps=STEPS))
    report = town.finish(job)
    assert report["state"] == "succeeded", report["why"]
    assert town.run("job", "download", job, "made/before").exit_code == 0
    return job


def _continuing(town: World, named: str, file: str) -> str:
    write_sft(town.folder, file, name="after", shards=1, steps=STEPS)
    path = town.folder / file
    path.write_text(f"{path.read_text()}continue_from: {named}\n")
    return town.submit(file)


def test_a_job_goes_on_where_another_stopped_however_that_is_named(town: World, first: str) -> None:
    held = [one["eval_loss"] for one in town.ask("job", "show", first)["stages"][0]["rounds"] if one["kind"] == "learn"]
    for named in (f"{first}.sft.checkpoint", "made/before/sft.checkpoint"):
        job = _continuing(town, named, "after.yaml")
        report = town.finish(job)
        assert report["state"] == "succeeded", report["why"]
        words = f"{named.removeprefix('made/before/')} (weights and Adam's moments after {STEPS} steps)"
        (stage,) = report["stages"]
        assert stage["continues_from"] == words
        setup = next(one for one in stage["rounds"] if one["kind"] == "setup")
        # other rows are held out of it, and yet it begins far below a base that knows nothing of them
        assert setup["eval_loss"] == pytest.approx(held[-1], abs=0.5)
        into = f"made/{job}"
        assert town.run("job", "download", job, into).exit_code == 0
        assert words in (town.folder / into / "sft.model" / "README.md").read_text()
        with open_checkpoint(town.folder / into / "sft.checkpoint") as opened:
            assert opened.adam_step == 2 * STEPS


def test_a_checkpoint_of_another_rank_is_refused_before_a_sat_moves(town: World, first: str) -> None:
    write_sft(town.folder, "other.yaml", name="other", method="lora, rank: 2")
    path = town.folder / "other.yaml"
    written, before = path.read_text(), town.balance()
    for named in ("made/before/sft.checkpoint", f"{first}.sft.checkpoint"):
        path.write_text(f"{written}continue_from: {named}\n")
        said = town.run("job", "plan", "other.yaml", "--json")
        assert (said.exit_code, said.error["code"]) == (3, "continue.unlike")
    assert town.balance() == before
