"""Merging: exact for one shard, near the honest mean under attack, repeatable, flat in memory."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from shardwork.artifact import describe_folder
from shardwork.errors import Conflict, Corrupt, Internal, InvalidInput
from shardwork.tensors.checkpoint import Tensors, apply_update, stepped_weights, write_delta
from shardwork.tensors.encoding import ENCODINGS, F32
from shardwork.tensors.file import read_tensors, write_tensors
from shardwork_coordinator.aggregate.outer import CANDIDATES

from . import rounds

every_encoding = pytest.mark.parametrize("encoding", ENCODINGS)


def honest(root: Path, count: int, encoding: str = "fp32") -> list[Path]:
    rounds.base(root)
    folders = [root / f"delta-{index}" for index in range(count)]
    for index, folder in enumerate(folders):
        rounds.write_honest(folder, index, encoding)
    return folders


def mean_change(*indexes: int) -> F32:
    return np.asarray(np.mean([rounds.joined(rounds.honest_change(index)) for index in indexes], axis=0), np.float32)


def change_of(root: Path, step: Path) -> F32:
    after = dict(stepped_weights(root / "checkpoint", step))
    before = rounds.weights()
    return rounds.joined({name: before[name] - after[name] for name in before})


def distance(left: F32, right: F32) -> float:
    return float(np.linalg.norm(left - right) / np.linalg.norm(right))


def test_one_fp32_shard_passes_through_to_the_bit(tmp_path: Path) -> None:
    rounds.base(tmp_path)
    folders = [tmp_path / "delta-0"]
    # weights that shrink a million times: before - (before - after) would lose most of their bits
    m = rounds.draw(6, 1e-3)
    v = {name: np.square(value) for name, value in m.items()}
    write_delta(folders[0], "fp32", rounds.weights(), rounds.draw(5, 1e-6), m, v, rounds.STEPS, rounds.STEPS)
    found = rounds.run(tmp_path, folders, rule="mean")
    apply_update(tmp_path / "checkpoint", found.outputs["step-mean"], found.outputs["moments"], tmp_path / "next")
    for shard_file, next_file in (("delta", "weights"), ("m", "moments_m"), ("v", "moments_v")):
        shard = read_tensors(folders[0] / f"{shard_file}.safetensors")
        following = read_tensors(tmp_path / "next" / f"{next_file}.safetensors")
        for name in rounds.SHAPES:
            assert following[name].tobytes() == shard[name].tobytes(), (shard_file, name)


@every_encoding
def test_the_mean_is_the_mean(tmp_path: Path, encoding: str) -> None:
    found = rounds.run(tmp_path, honest(tmp_path, 3, encoding), rule="mean", encoding=encoding)
    assert distance(change_of(tmp_path, found.outputs["step-mean"]), mean_change(0, 1, 2)) < 0.02
    assert found.metrics["num_kept"] == 3
    assert found.metrics["update_norm"] == pytest.approx(float(np.linalg.norm(mean_change(0, 1, 2))), rel=0.01)
    apply_update(tmp_path / "checkpoint", found.outputs["step-mean"], found.outputs["moments"], tmp_path / "next")
    # v is averaged, and not its root
    vs = [np.square(rounds.joined(rounds.draw(200 + index, 1e-3))) * 2 for index in range(3)]
    assert distance(rounds.flat(tmp_path / "next", "v"), np.mean(vs, axis=0)) < 0.02


def test_planned_tokens_weigh_the_mean(tmp_path: Path) -> None:
    folders = honest(tmp_path, 2)
    found = rounds.run(tmp_path, folders, rule="mean", tokens=(300, 100))
    first, second = mean_change(0), mean_change(1)
    assert (
        distance(change_of(tmp_path, found.outputs["step-mean"]), np.asarray(0.75 * first + 0.25 * second, np.float32))
        < 1e-4
    )


@every_encoding
def test_candidates_are_the_agreed_multiples_and_momentum_accumulates(tmp_path: Path, encoding: str) -> None:
    folders = honest(tmp_path, 2, encoding)
    first = rounds.run(tmp_path, folders, rule="mean", encoding=encoding, candidates=tuple(CANDIDATES))
    momentum = read_tensors(first.outputs["outer"] / "momentum.safetensors")
    second = rounds.run(
        tmp_path, folders, rule="mean", encoding=encoding, candidates=tuple(CANDIDATES), outer=first.outputs["outer"]
    )
    g = mean_change(0, 1)
    expected = {"mean": g, "mean1.5": 1.5 * g, "mean2": 2 * g, "nesterov": 0.7 * (g + 0.9 * (0.9 * g + g))}
    expected["settled"] = g - 0.5 * (0.5 * g + g)
    for name, change in expected.items():
        assert distance(change_of(tmp_path, second.outputs[f"step-{name}"]), change) < 0.02, name
    later = read_tensors(second.outputs["outer"] / "momentum.safetensors")
    for name in rounds.SHAPES:
        np.testing.assert_allclose(later[name], 1.9 * momentum[name], rtol=1e-4, atol=1e-7)


def test_a_job_that_began_before_the_last_rounds_were_summed_goes_on(tmp_path: Path) -> None:
    folders = honest(tmp_path, 2)
    first = rounds.run(tmp_path, folders, rule="mean")
    (first.outputs["outer"] / "recent.safetensors").unlink()
    second = rounds.run(tmp_path, folders, rule="mean", candidates=("settled",), outer=first.outputs["outer"])
    assert distance(change_of(tmp_path, second.outputs["step-settled"]), 0.5 * mean_change(0, 1)) < 0.02


def test_settling_lands_on_the_average_of_the_last_rounds(tmp_path: Path) -> None:
    """Of three rounds: 1/2 of the weights after the third, 1/4 after the second, 1/8 after the first, 1/8 of the start,
    which lies at zero here."""
    weights = np.cumsum([mean_change(index) for index in range(3)], axis=0)
    found = None
    for folder in honest(tmp_path, 3):
        outer = found.outputs["outer"] if found else None
        found = rounds.run(tmp_path, [folder], rule="mean", candidates=("mean", "settled"), outer=outer)
    assert found is not None
    average = 0.5 * weights[2] + 0.25 * weights[1] + 0.125 * weights[0]
    assert distance(change_of(tmp_path, found.outputs["step-settled"]), average - weights[1]) < 0.02


def test_momentum_of_another_model_is_refused(tmp_path: Path) -> None:
    folders = honest(tmp_path, 1)
    (tmp_path / "outer").mkdir()
    write_tensors(tmp_path / "outer" / "momentum.safetensors", {"x": np.zeros(3, np.float32)})
    with pytest.raises(Corrupt):
        rounds.run(tmp_path, folders, outer=tmp_path / "outer")


def test_a_negative_second_moment_is_left_out(tmp_path: Path) -> None:
    folders = honest(tmp_path, 3)
    v = read_tensors(folders[2] / "v.safetensors")
    v["head"][5] = -1e-9
    write_tensors(folders[2] / "v.safetensors", v)
    assert rounds.run(tmp_path, folders, rule="mean").metrics["refused.2.delta.not_finite"] == 1


def test_a_delta_without_a_step_is_refused(tmp_path: Path) -> None:
    folders = honest(tmp_path, 1)
    update = folders[0] / "update.json"
    update.write_text(json.dumps({**json.loads(update.read_text()), "steps": 0, "adam_step": 0}))
    with pytest.raises(Conflict) as caught:
        rounds.run(tmp_path, folders, rule="mean")
    assert caught.value.why.evidence == {"delta_0": "delta.steps"}


HOSTILE = ["flip x1", "flip x10", "noise", "zeros", "nan", "wrong shapes", "truncated", "missing file", "huge moments"]


def write_hostile(folder: Path, attack: str, index: int) -> None:
    change: Tensors | None = None
    factor = -1.0
    if attack.startswith("flip"):
        factor = 1.0 if attack.endswith("x1") else 10.0
    elif attack == "noise":
        change = rounds.draw(900 + index, 0.1)
    elif attack == "zeros":
        factor = 0.0
    rounds.write_honest(folder, index, "int8", change=change, factor=factor)
    if attack == "nan":
        stored = read_tensors(folder / "delta.safetensors")
        stored["embed@scale"][0] = np.nan
        write_tensors(folder / "delta.safetensors", stored)
    elif attack == "wrong shapes":
        small = {"embed": np.zeros((2, 2), np.float32)}
        write_delta(folder, "int8", small, small, small, small, rounds.STEPS, rounds.STEPS)
    elif attack == "truncated":
        data = (folder / "m.safetensors").read_bytes()
        (folder / "m.safetensors").write_bytes(data[:-1])
    elif attack == "missing file":
        (folder / "v.safetensors").unlink()
    elif attack == "huge moments":
        stored = read_tensors(folder / "m.safetensors")
        stored["embed@scale"] *= 1e6
        write_tensors(folder / "m.safetensors", stored)


@pytest.mark.parametrize("attack", HOSTILE)
def test_two_hostile_of_eight_leave_the_screened_mean_near_the_honest_one(tmp_path: Path, attack: str) -> None:
    folders = honest(tmp_path, 8, "int8")
    clean = change_of(tmp_path, rounds.run(tmp_path, folders[:6], encoding="int8").outputs["step-mean"])
    for index in (2, 5):
        shutil.rmtree(folders[index])
        write_hostile(folders[index], attack, index)
    found = rounds.run(tmp_path, folders, encoding="int8")
    kept = {index for index in range(8) if found.metrics[f"kept.{index}"]}
    assert kept == {0, 1, 3, 4, 6, 7}
    assert found.metrics["num_kept"] == 6
    assert {name.split(".")[1] for name in found.metrics if name.startswith("refused.")} == {"2", "5"}
    change = change_of(tmp_path, found.outputs["step-mean"])
    assert distance(change, mean_change(*kept)) < 0.02
    # and as near to the clean mean of six others as honest means are to each other
    assert distance(change, clean) < 0.35


def test_the_plain_mean_would_have_been_ruined(tmp_path: Path) -> None:
    """Guards the attack table above: a sign flip of ordinary size does harm where nothing screens."""
    folders = honest(tmp_path, 8, "int8")
    for index in (2, 5):
        shutil.rmtree(folders[index])
        write_hostile(folders[index], "flip x1", index)
    found = rounds.run(tmp_path, folders, encoding="int8", rule="mean")
    assert found.metrics["num_kept"] == 8
    assert distance(change_of(tmp_path, found.outputs["step-mean"]), mean_change(*range(8))) > 0.3


def test_small_rounds_still_drop_what_is_out_of_all_proportion(tmp_path: Path) -> None:
    folders = honest(tmp_path, 2, "int8")
    write_hostile(folders[1], "flip x10", 1)
    found = rounds.run(tmp_path, folders, encoding="int8", rule="mean")
    assert (found.metrics["kept.0"], found.metrics["kept.1"]) == (1, 0)
    assert found.metrics["refused.1.norm"] == 1


def test_a_delta_far_from_the_rounds_before_is_left_out_where_no_median_can_tell(tmp_path: Path) -> None:
    """Of two deltas the smaller one is the reference: a shard that did next to nothing put the honest one out."""
    folders = honest(tmp_path, 2, "int8")
    first = rounds.run(tmp_path, folders, encoding="int8", rule="mean")
    shutil.rmtree(folders[1])
    rounds.write_honest(folders[1], 1, "int8", factor=-0.01)
    second = rounds.run(tmp_path, folders, encoding="int8", rule="mean", outer=first.outputs["outer"])
    assert (second.metrics["kept.0"], second.metrics["kept.1"]) == (1, 0)
    assert second.metrics["refused.1.norm_history"] == 1


def test_a_single_delta_out_of_all_proportion_to_the_rounds_before_stops_the_round(tmp_path: Path) -> None:
    folders = honest(tmp_path, 1, "int8")
    outer: Path | None = None
    for _ in range(3):
        outer = rounds.run(tmp_path, folders, encoding="int8", outer=outer).outputs["outer"]
    shutil.rmtree(folders[0])
    rounds.write_honest(folders[0], 0, "int8", factor=-100)
    with pytest.raises(Conflict) as caught:
        rounds.run(tmp_path, folders, encoding="int8", outer=outer)
    assert caught.value.why.evidence == {"delta_0": "norm_history"}


def test_honest_zeros_are_no_cheating_after_other_rounds_either(tmp_path: Path) -> None:
    folders = honest(tmp_path, 1)
    first = rounds.run(tmp_path, folders)
    shutil.rmtree(folders[0])
    rounds.write_honest(folders[0], 0, "fp32", factor=0.0)
    assert rounds.run(tmp_path, folders, outer=first.outputs["outer"]).metrics["num_kept"] == 1


def test_a_history_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    folders = honest(tmp_path, 1)
    outer = rounds.run(tmp_path, folders).outputs["outer"]
    (outer / "history.json").write_text('{"norms": [null]}')
    with pytest.raises(Corrupt):
        rounds.run(tmp_path, folders, outer=outer)


def test_more_deltas_than_files_may_be_open_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each keeps three files open; at the usual limit of 1,024 a round of 341 shards failed when all work was done."""
    folders = honest(tmp_path, 24, "int8")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # a test's process holds more than an executor's
    open_now = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr("shardwork_coordinator.aggregate.merge.OTHER_FILES", open_now + 128)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 40, hard))
    try:
        assert rounds.run(tmp_path, folders, encoding="int8").metrics["num_kept"] == 24
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_fewer_than_half_stop_the_round(tmp_path: Path) -> None:
    folders = honest(tmp_path, 3)
    for folder in folders[:2]:
        (folder / "m.safetensors").write_bytes(b"")
    with pytest.raises(Conflict) as caught:
        rounds.run(tmp_path, folders, rule="mean")
    assert caught.value.code == "aggregate.too_few"
    assert caught.value.why.evidence == {"delta_0": "tensorfile.truncated", "delta_1": "tensorfile.truncated"}
    assert not list(tmp_path.glob("merged-*"))


def test_a_single_refused_delta_stops_the_round(tmp_path: Path) -> None:
    folders = honest(tmp_path, 1)
    (folders[0] / "delta.safetensors").unlink()
    with pytest.raises(Conflict):
        rounds.run(tmp_path, folders, rule="mean")


def test_honest_zeros_are_no_cheating(tmp_path: Path) -> None:
    rounds.base(tmp_path)
    folders = [tmp_path / f"delta-{index}" for index in range(4)]
    for index, folder in enumerate(folders):
        rounds.write_honest(folder, index, "int8", factor=0.0)
    found = rounds.run(tmp_path, folders, encoding="int8")
    assert found.metrics["num_kept"] == 4 and found.metrics["update_norm"] == 0


@pytest.mark.parametrize(
    "change", [{"steps": 3, "adam_step": 3}, {"adam_step": 99}, {"encoding": "bf16"}, {"steps": 0}]
)
def test_a_delta_that_lies_about_itself_is_left_out(tmp_path: Path, change: dict[str, object]) -> None:
    folders = honest(tmp_path, 3)
    update = folders[1] / "update.json"
    update.write_text(json.dumps({**json.loads(update.read_text()), **change}))
    found = rounds.run(tmp_path, folders, rule="mean")
    assert found.metrics["kept.1"] == 0 and found.metrics["num_kept"] == 2
    assert found.metrics["steps"] == rounds.STEPS


@pytest.mark.parametrize("count", [1, 2])
def test_hostile_moment_pairs_are_bounded_by_what_adam_can_reach(tmp_path: Path, count: int) -> None:
    """Also of a single delta: evaluation sees weights only, and the next round would start from these."""
    folders = honest(tmp_path, count)
    for folder in folders:
        v = read_tensors(folder / "v.safetensors")
        v["embed"][:100] = 0
        write_tensors(folder / "v.safetensors", v)
    found = rounds.run(tmp_path, folders, rule="mean")
    apply_update(tmp_path / "checkpoint", found.outputs["step-mean"], found.outputs["moments"], tmp_path / "next")
    m, v_next = rounds.flat(tmp_path / "next", "m"), rounds.flat(tmp_path / "next", "v")
    assert (v_next[:100] == 0).all()
    assert (np.abs(m) <= 64 * np.maximum(np.sqrt(v_next), 1e-20) * 1.001).all()


def test_the_same_round_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    folders = honest(tmp_path, 4, "int8")
    here = rounds.run(tmp_path, folders, encoding="int8", candidates=tuple(CANDIDATES))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(rounds.run, (tmp_path, folders), {"encoding": "int8", "candidates": tuple(CANDIDATES)})
    assert here.outputs.keys() == there.outputs.keys()
    for name, folder in here.outputs.items():
        assert folder != there.outputs[name]
        assert describe_folder(folder).id == describe_folder(there.outputs[name]).id, name
    assert here.metrics == there.metrics


def test_wrong_orders_are_refused(tmp_path: Path) -> None:
    folders = honest(tmp_path, 2)
    with pytest.raises(Internal):
        rounds.run(tmp_path, folders, tokens=(1, 2, 3))
    with pytest.raises(InvalidInput) as caught:
        rounds.run(tmp_path, folders, rule="screened")
    assert "'screened_mean'" in caught.value.why.next_step
    with pytest.raises(InvalidInput) as caught:
        rounds.run(tmp_path, folders, candidates=("nesterof",))
    assert "'nesterov'" in caught.value.why.next_step


def anonymous_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def peak_of_merge(root: Path, count: int) -> int:
    """Anonymous memory that a merge of so many deltas adds at its peak, seen from its own progress calls."""
    folders = [root / f"delta-{index}" for index in range(count)]
    rounds.run(root, folders[:2], encoding="int8")
    start, peak = anonymous_bytes(), 0

    def look(_context: rounds.FolderContext, _fraction: float, *, loss: float | None = None) -> None:
        nonlocal peak
        peak = max(peak, anonymous_bytes() - start)

    patch = pytest.MonkeyPatch()
    patch.setattr(rounds.FolderContext, "progress", look)
    rounds.run(root, folders, encoding="int8")
    patch.undo()
    return peak


def test_memory_hardly_grows_with_the_number_of_deltas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "SHAPES", {"big": (4096, 1024)})  # 16 MiB in fp32
    rounds.base(tmp_path)
    for index in range(8):
        rounds.write_honest(tmp_path / f"delta-{index}", index, "int8")
    two, eight = peak_of_merge(tmp_path, 2), peak_of_merge(tmp_path, 8)
    # six more decoded deltas would be 96 MiB; the sampled blocks of six are 3 MiB
    assert eight - two < 10 * 2**20
    assert eight < 24 * 2**20
