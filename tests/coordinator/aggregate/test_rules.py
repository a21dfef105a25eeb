"""Every rule: honest rounds lose little, a fifth hostile does little harm, and each does what its paper says."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwork.jobs.spec import TrustSection
from shardwork.tensors.encoding import F32
from shardwork_coordinator.aggregate import RULES
from shardwork_coordinator.aggregate.centred_clip import CentredClip
from shardwork_coordinator.aggregate.median import Median
from shardwork_coordinator.aggregate.multi_krum import MultiKrum, squared_distances
from shardwork_coordinator.aggregate.norm_clip import NormClip
from shardwork_coordinator.aggregate.ordered import sort_rows
from shardwork_coordinator.aggregate.rule import Evidence, Matrix, hostile
from shardwork_coordinator.aggregate.trimmed_mean import TrimmedMean

from . import rounds
from .test_merge import change_of, distance, honest, mean_change, write_hostile

every_rule = pytest.mark.parametrize("name", sorted(RULES))
ROBUST = sorted({*RULES} - {"mean"})


def evidence(points: Matrix) -> Evidence:
    norms = {index: float(np.linalg.norm(point)) for index, point in enumerate(points)}
    return Evidence(norms=norms, cosines=dict.fromkeys(norms, 1.0), products=np.asarray(points @ points.T))


def equal(count: int) -> dict[int, float]:
    return dict.fromkeys(range(count), 1 / count)


def test_a_job_may_name_every_rule_that_is_built_and_no_other() -> None:
    field = TrustSection.model_fields["aggregate"]
    assert {*get_args(field.annotation)} == {"auto", *RULES}


@every_rule
@pytest.mark.parametrize("encoding", ["int8", "fp32"])
def test_an_honest_round_stays_near_the_mean(tmp_path: Path, name: str, encoding: str) -> None:
    found = rounds.run(tmp_path, honest(tmp_path, 8, encoding), rule=name, encoding=encoding)
    # the deltas differ from their mean by about 0.7 of it; a rule may leave out a fifth of them
    assert distance(change_of(tmp_path, found.outputs["step-mean"]), mean_change(*range(8))) < 0.3


@every_rule
def test_below_four_deltas_every_rule_is_the_weighted_mean(tmp_path: Path, name: str) -> None:
    folders = honest(tmp_path, 3)
    found = rounds.run(tmp_path, folders, rule=name, tokens=(300, 100, 100))
    usual = rounds.run(tmp_path, folders, rule="mean", tokens=(300, 100, 100))
    for output, file in (("step-mean", "step"), ("moments", "m"), ("moments", "v")):
        stored = f"{file}.safetensors"
        assert (found.outputs[output] / stored).read_bytes() == (usual.outputs[output] / stored).read_bytes()


@pytest.mark.parametrize("attack", ["flip x1", "flip x10", "noise", "zeros", "nan"])
@pytest.mark.parametrize("name", ROBUST)
def test_two_hostile_of_eight_do_less_harm_than_to_the_mean(tmp_path: Path, name: str, attack: str) -> None:
    folders = honest(tmp_path, 8, "int8")
    clean = mean_change(0, 1, 3, 4, 6, 7)
    for index in (2, 5):
        shutil.rmtree(folders[index])
        write_hostile(folders[index], attack, index)
    found = change_of(tmp_path, rounds.run(tmp_path, folders, rule=name, encoding="int8").outputs["step-mean"])
    # two flips of eight take the mean 0.5 away; norm clipping does not see a flip of ordinary length
    assert distance(found, clean) < (0.55 if name == "norm_clip" else 0.4)


@pytest.mark.parametrize("name", ["norm_clip", "centred_clip"])
@pytest.mark.parametrize("encoding", ["bf16", "fp32"])
def test_what_is_clipped_away_stays_where_it_was_in_an_absolute_encoding(
    tmp_path: Path, name: str, encoding: str
) -> None:
    folders = honest(tmp_path, 5, encoding)
    shutil.rmtree(folders[4])
    rounds.write_honest(folders[4], 4, encoding, factor=-3)
    found = change_of(tmp_path, rounds.run(tmp_path, folders, rule=name, encoding=encoding).outputs["step-mean"])
    shutil.copytree(tmp_path, tmp_path / "int8")
    for index, folder in enumerate(folders):
        shutil.rmtree(tmp_path / "int8" / folder.name)
        rounds.write_honest(tmp_path / "int8" / folder.name, index, "int8", factor=-3 if index == 4 else -1)
    packed = [tmp_path / "int8" / folder.name for folder in folders]
    other = rounds.run(tmp_path / "int8", packed, rule=name, encoding="int8").outputs["step-mean"]
    assert distance(found, change_of(tmp_path / "int8", other)) < 0.05


def test_a_long_delta_is_shortened_to_the_median() -> None:
    points = np.diag([1.0, 2.0, 3.0, 4.0, 100.0])
    assert NormClip().coefficients(evidence(points), equal(5)) == pytest.approx(
        {0: 0.2, 1: 0.2, 2: 0.2, 3: 0.2 * 3 / 4, 4: 0.2 * 3 / 100}
    )


@pytest.mark.parametrize("count", [4, 5, 6, 9, 12])
def test_the_trimmed_mean_leaves_out_a_fifth_at_each_end(count: int) -> None:
    rows = np.random.default_rng(count).standard_normal((count, 257)).astype(np.float32)
    out = np.empty(257, np.float32)
    trim = -(-count // 5)
    expected = np.sort(rows, axis=0)[trim : count - trim].mean(axis=0)
    TrimmedMean().combine(iter(rows.copy()), [1 / count] * count, out)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [4, 5, 8])
def test_the_median_is_the_middle_of_each_parameter(count: int) -> None:
    rows = np.random.default_rng(count).standard_normal((count, 300)).astype(np.float32)
    out = np.empty(300, np.float32)
    Median().combine(iter(rows.copy()), [1 / count] * count, out)
    np.testing.assert_array_equal(out, np.median(rows, axis=0))


@pytest.mark.parametrize("count", range(1, 34))
def test_the_network_sorts_every_column(count: int) -> None:
    rows = np.random.default_rng(count).integers(0, 5, (count, 400)).astype(np.float32)
    expected = np.sort(rows, axis=0)
    sort_rows(rows)
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("count", range(1, 10))
def test_the_network_sorts_every_pattern_of_noughts_and_ones(count: int) -> None:
    """Which proves that it sorts everything (Knuth, vol. 3, 5.3.4, theorem Z)."""
    patterns = np.array([[number >> bit & 1 for number in range(1 << count)] for bit in range(count)], np.float32)
    sort_rows(patterns)
    assert (np.diff(patterns, axis=0) >= 0).all()


def test_krum_leaves_out_who_is_far_from_the_nearest_others() -> None:
    random = np.random.default_rng(0)
    points = np.ones((10, 50)) + 0.1 * random.standard_normal((10, 50))
    points[[3, 8]] *= -1
    assert {*MultiKrum().screen(evidence(points))} == {3, 8}
    assert MultiKrum().screen(evidence(points[:4])) == {}, "with four, none can be counted as hostile"


def test_distances_follow_from_inner_products() -> None:
    points = np.random.default_rng(1).standard_normal((6, 40))
    direct = ((points[:, None] - points[None, :]) ** 2).sum(axis=2)
    np.testing.assert_allclose(squared_distances(points @ points.T), direct, atol=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(4, 12))
def test_the_clipped_centre_is_what_the_paper_computes_with_vectors(seed: int, count: int) -> None:
    points = np.random.default_rng(seed).standard_normal((count, 20)) + 1
    points[0] *= 5
    found: Mapping[int, float] = CentredClip().coefficients(evidence(points), equal(count))
    centre = points[np.argmin(np.linalg.norm(points[:, None] - points[None, :], axis=2).sum(axis=1))]
    for _ in range(5):
        away = points - centre
        lengths = np.linalg.norm(away, axis=1)
        bound = np.median(lengths)
        scale = np.array([min(1.0, bound / length) if length > 0 else 1.0 for length in lengths])
        centre = centre + (away * scale[:, None]).mean(axis=0)
    np.testing.assert_allclose(sum(found[index] * points[index] for index in found), centre, atol=1e-8)


def test_a_fifth_counts_as_hostile_and_never_a_majority() -> None:
    assert [hostile(count, least_honest=1) for count in (1, 2, 3, 4, 5, 6, 10, 11)] == [0, 0, 1, 1, 1, 2, 2, 3]
    assert [hostile(count, least_honest=3) for count in (3, 4, 5, 7, 8, 10)] == [0, 0, 1, 2, 2, 2]


def test_rules_that_hold_all_deltas_cut_their_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = honest(tmp_path, 5)
    whole = rounds.run(tmp_path, folders, rule="median")
    monkeypatch.setattr("shardwork_coordinator.aggregate.merge.HELD", 5 * 512)
    cut = rounds.run(tmp_path, folders, rule="median")

    def stored(output: Path) -> F32:
        return change_of(tmp_path, output)

    np.testing.assert_array_equal(stored(whole.outputs["step-mean"]), stored(cut.outputs["step-mean"]))
