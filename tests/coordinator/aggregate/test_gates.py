"""Gates and the screen leave out what they should and nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shardwork.tensors.encoding import BLOCK, F32
from shardwork_coordinator.aggregate.gates import MAX_MOMENT_RATIO, Norms, bound_m, norm_gate, sample_blocks, steps_gate
from shardwork_coordinator.aggregate.rule import Evidence
from shardwork_coordinator.aggregate.screened_mean import ScreenedMean


def norms(*deltas: float) -> dict[int, Norms]:
    return {index: Norms(delta=value, m=1, root=1) for index, value in enumerate(deltas)}


def test_the_norm_gate_drops_outliers_by_their_norm() -> None:
    assert norm_gate(norms(1, 1.1, 0.9, 50)) == {3: "norm"}
    assert norm_gate(norms(1, 1.1, 0.9, 0.01)) == {3: "norm"}
    assert norm_gate(norms(0, 0, 0, 1)) == {}
    assert norm_gate({}) == {}
    assert norm_gate({0: Norms(delta=1, m=1, root=1), 1: Norms(delta=1, m=50, root=1)}) == {1: "norm_m"}
    assert norm_gate({0: Norms(delta=1, m=1, root=1), 1: Norms(delta=1, m=1, root=50)}) == {1: "norm_v"}


def test_of_two_only_the_larger_can_be_out_of_proportion() -> None:
    assert norm_gate(norms(1, 100)) == {1: "norm"}
    assert norm_gate(norms(100, 1)) == {0: "norm"}
    assert norm_gate(norms(1, 4)) == {}


def test_a_delta_that_took_other_steps_than_ordered_is_refused() -> None:
    assert steps_gate({0: 10, 1: 10, 2: 9}, 10) == {2: "steps"}
    assert steps_gate({0: 9}, 10) == {0: "steps"}
    assert steps_gate({}, 10) == {}


def test_screening_needs_four_and_a_median_that_is_not_zero() -> None:
    rule = ScreenedMean()
    few = Evidence(norms={0: 1.0, 1: 1.0, 2: 9.0}, cosines={0: 1.0, 1: 1.0, 2: -1.0})
    assert rule.screen(few) == {}
    zeros = Evidence(norms=dict.fromkeys(range(4), 0.0), cosines=dict.fromkeys(range(4), 0.0))
    assert rule.screen(zeros) == {}
    five = Evidence(
        norms={0: 1.0, 1: 1.0, 2: 3.1, 3: 0.29, 4: 1.0, 5: 1.0},
        cosines={0: 0.1, 1: 0.5, 2: 0.9, 3: 0.9, 4: 0.09, 5: 0.6},
    )
    assert rule.screen(five) == {2: "screened_norm", 3: "screened_norm", 4: "screened_cosine"}


@given(
    st.dictionaries(st.text("abc", min_size=1), st.integers(0, 3000), min_size=1, max_size=5),
    st.binary(min_size=32, max_size=32),
    st.integers(1, 40),
)
def test_sampled_blocks_are_distinct_and_inside(sizes: dict[str, int], seed: bytes, count: int) -> None:
    shapes = {name: (size,) for name, size in sizes.items()}
    places = sample_blocks(shapes, seed, count)
    assert len(set(places)) == len(places) == min(count, sum(-(-size // BLOCK) for size in sizes.values()))
    for name, start, end in places:
        assert start % BLOCK == 0 and 0 <= start < end <= sizes[name] and end - start <= BLOCK
    assert places == sample_blocks(shapes, seed, count)


@given(
    arrays(np.float32, 50, elements=st.floats(-(2.0**100), 2.0**100, width=32)),
    arrays(np.float32, 50, elements=st.floats(0, 2.0**100, width=32)),
)
def test_moments_are_bounded_and_honest_ones_untouched(m: F32, v: F32) -> None:
    bounded = m.copy()
    bound_m(bounded, v)
    limit = MAX_MOMENT_RATIO * np.maximum(np.sqrt(v), np.float32(1e-20))
    assert (np.abs(bounded) <= limit).all()
    honest = np.abs(m) <= limit
    np.testing.assert_array_equal(bounded[honest], m[honest])
