"""A second job continues a first: by the first one's id, and from what was downloaded of it; bytes and words."""

from __future__ import annotations

import pytest

from shardwork.tensors.checkpoint import open_checkpoint
from shardwork.tensors.file import read_tensors

from . import models
from .jobfile import write_sft
from .world import World

STEPS = 3
SCRATCH = """\
name: {name}
recipe: pretrain
data: {data}
eval_fraction: 0.2
params: {{preset: tiny-1m, vocab_size: 288, max_length: 32, batch_size: 2}}
plan: {{rounds: 1, shards_per_round: 1, inner_steps: 3}}
trust: {{class: public}}
budget: {{max_sats: 500}}
"""


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


def _write(town: World, kind: str, file: str, named: str = "") -> str:
    path = town.folder / file
    if kind == "scratch":
        # other words than before: a tokenizer of their own would have other tokens
        models.write_text(town.folder / "text.jsonl")
        more = [f"Quite other words, number {number}, to go on with." for number in range(99)]
        (town.folder / "more.txt").write_text("\n\n".join(more))
        path.write_text(SCRATCH.format(name=file[:-5], data="more.txt" if named else "text.jsonl"))
    else:
        write_sft(town.folder, file, name=file[:-5], shards=1, steps=STEPS, method="lora, merge: ffa")
    if named:
        path.write_text(f"{path.read_text()}continue_from: {named}\n")
    return file


@pytest.mark.parametrize(
    ("kind", "stage", "carried"), [("scratch", "pretrain", "tokenizer.json"), ("ffa", "sft", "frozen.safetensors")]
)
def test_what_never_learns_goes_on_with_the_checkpoint(kind: str, stage: str, carried: str, town: World) -> None:
    """A model from scratch keeps its tokenizer, and an adapter its frozen A, however the checkpoint is named."""
    job = town.submit(_write(town, kind, f"{kind}.yaml"))
    assert town.finish(job)["state"] == "succeeded"
    assert town.run("job", "download", job, f"made/{kind}").exit_code == 0
    first = town.folder / "made" / kind
    for number, named in enumerate((f"{job}.{stage}.checkpoint", f"made/{kind}/{stage}.checkpoint")):
        later = town.submit(_write(town, kind, f"{kind}-{number}.yaml", named))
        report = town.finish(later)
        assert report["state"] == "succeeded", report["why"]
        into = town.folder / "made" / later
        assert town.run("job", "download", later, f"made/{later}").exit_code == 0
        one, other = (folder / f"{stage}.checkpoint" / carried for folder in (first, into))
        assert one.read_bytes() == other.read_bytes()
        with open_checkpoint(into / f"{stage}.checkpoint") as opened:
            assert opened.adam_step == 2 * STEPS
        if kind == "scratch":
            published = [(folder / "pretrain.model" / carried).read_bytes() for folder in (first, into)]
            assert published[0] == published[1]
        else:
            before, after = (read_tensors(each / "sft.model" / "adapter_model.safetensors") for each in (first, into))
            kept = [name for name in before if ".lora_A." in name]
            assert kept and all((before[name] == after[name]).all() for name in kept)
            assert any((before[name] != after[name]).any() for name in before if ".lora_B." in name)
