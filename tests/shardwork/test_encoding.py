"""Encodings keep their error bounds for every fp32 value, and refuse what is not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shardwork.errors import InvalidInput
from shardwork.tensors.encoding import (
    BLOCK,
    ENCODINGS,
    F32,
    Encoding,
    Quantity,
    encode_delta,
    encoding_named,
    gate_m,
    stored_specs,
    weights_after,
)
from shardwork.tensors.file import CHUNK, TensorSpec

F32_MAX = float(np.finfo(np.float32).max)

any_floats = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
positive_floats = st.floats(min_value=0, width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
sizes = st.integers(0, 3 * BLOCK + 1)
signed = arrays(np.float32, sizes, elements=any_floats)
unsigned = arrays(np.float32, sizes, elements=positive_floats)
every = pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
lossy = pytest.mark.parametrize("encoding", [ENCODINGS["int8"], ENCODINGS["bf16"]], ids=["int8", "bf16"])


def round_trip(encoding: Encoding, values: F32, quantity: Quantity) -> F32:
    with np.errstate(all="raise", under="ignore"):
        stored = encoding.encode(values, quantity)
        return encoding.decode(stored, quantity, np.empty(values.size, np.float32))


def block_peaks(values: F32) -> F32:
    filled = np.concatenate([values, np.zeros(-values.size % BLOCK, np.float32)]).reshape(-1, BLOCK)
    return np.repeat(np.abs(filled).max(axis=1, initial=0), BLOCK)[: values.size]


@given(signed)
def test_int8_errs_by_half_a_level_of_its_block(values: F32) -> None:
    error = np.abs(round_trip(ENCODINGS["int8"], values, Quantity.DELTA).astype(np.float64) - values)
    limit = block_peaks(values).astype(np.float64) / 127 * 0.5001
    assert (error <= np.maximum(limit, 1.5e-36)).all()


@given(unsigned)
def test_int8_roots_err_by_at_most_one_level_of_their_block(v: F32) -> None:
    decoded = round_trip(ENCODINGS["int8"], v, Quantity.V)
    error = np.abs(np.sqrt(decoded.astype(np.float64)) - np.sqrt(v.astype(np.float64)))
    limit = np.sqrt(block_peaks(v).astype(np.float64)) / 255
    assert (error <= np.maximum(limit * 1.01, np.sqrt(v.astype(np.float64)) * 0.004 + 1.2e-19)).all()


@given(signed)
def test_bfloat16_errs_by_half_its_last_bit(values: F32) -> None:
    error = np.abs(round_trip(ENCODINGS["bf16"], values, Quantity.M).astype(np.float64) - values)
    assert (error <= np.maximum(np.abs(values.astype(np.float64)) * 2**-8, 1e-40)).all()


@given(signed)
def test_fp32_is_exact_to_the_bit(values: F32) -> None:
    assert round_trip(ENCODINGS["fp32"], values, Quantity.DELTA).tobytes() == values.tobytes()


@every
@given(v=unsigned)
def test_second_moments_keep_their_zeros_and_only_those(encoding: Encoding, v: F32) -> None:
    decoded = round_trip(encoding, v, Quantity.V)
    assert np.isfinite(decoded).all()
    np.testing.assert_array_equal(decoded == 0, v == 0)


@lossy
@given(values=signed)
def test_zeros_stay_zero_and_everything_stays_finite(encoding: Encoding, values: F32) -> None:
    decoded = round_trip(encoding, values, Quantity.DELTA)
    assert np.isfinite(decoded).all()
    assert (decoded[values == 0] == 0).all()


@given(signed, unsigned)
def test_gated_m_is_zero_wherever_v_decodes_to_zero(m: F32, v: F32) -> None:
    size = min(m.size, v.size)
    m, v = m[:size], v[:size]
    for encoding in (ENCODINGS["int8"], ENCODINGS["bf16"]):
        decoded_m = round_trip(encoding, gate_m(m, v), Quantity.M)
        assert (decoded_m[round_trip(encoding, v, Quantity.V) == 0] == 0).all()


def test_honest_adam_ratios_stay_bounded_through_int8() -> None:
    random = np.random.default_rng(1)
    v = np.exp(random.normal(-20, 6, 100_000)).astype(np.float32)
    m = (random.uniform(-1, 1, v.size) * np.sqrt(v)).astype(np.float32)
    encoding = ENCODINGS["int8"]
    ratio = np.abs(round_trip(encoding, gate_m(m, v), Quantity.M)) / np.sqrt(round_trip(encoding, v, Quantity.V))
    assert ratio.max() < 2.1


@every
@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, CHUNK - 1, CHUNK, CHUNK + 300])
def test_pieces_decode_like_the_whole(encoding: Encoding, size: int) -> None:
    values = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    for quantity in (Quantity.DELTA, Quantity.V):
        given_values = np.square(values) if quantity is Quantity.V else values
        stored = encoding.encode(given_values, quantity)
        whole = encoding.decode(stored, quantity, np.empty(size, np.float32))
        for start in range(0, size, 512):
            end = min(start + 512, size)
            piece = [
                array[start // part.span : -(-end // part.span)]
                for array, part in zip(stored, encoding.parts(quantity), strict=True)
            ]
            decoded = encoding.decode(piece, quantity, np.empty(end - start, np.float32))
            assert decoded.tobytes() == whole[start:end].tobytes()


@every
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, BLOCK, CHUNK + 5])
def test_non_finite_values_are_refused(encoding: Encoding, bad: float, at: int) -> None:
    values = np.zeros(CHUNK + 9, np.float32)
    values[at] = bad
    for quantity in Quantity:
        with pytest.raises(InvalidInput) as caught:
            encoding.encode(values, quantity)
        assert caught.value.code == "encoding.not_finite"


@every
def test_negative_second_moments_are_refused(encoding: Encoding) -> None:
    with pytest.raises(InvalidInput):
        encoding.encode(np.array([1, -1e-30], np.float32), Quantity.V)


@lossy
def test_a_change_that_overflows_is_refused(encoding: Encoding) -> None:
    with pytest.raises(InvalidInput):
        encode_delta(encoding, np.array([F32_MAX], np.float32), np.array([-F32_MAX], np.float32))


@every
@pytest.mark.parametrize("values", [[1e-45, 1e-38], [1e-45, 1e-44], [1e-45, 4.4e-41], [1e-45, 4e-41], [1e-45, 3e38]])
def test_the_smallest_second_moments_stay_above_zero(encoding: Encoding, values: list[float]) -> None:
    assert (round_trip(encoding, np.array(values, np.float32), Quantity.V) > 0).all()


@pytest.mark.parametrize("peak", [1e-45, 1e-42, 1e-40, 1e-38, 1e-36])
def test_blocks_of_subnormals_neither_overflow_nor_grow(peak: float) -> None:
    values = np.array([peak, -peak / 2, 0], np.float32)
    decoded = round_trip(ENCODINGS["int8"], values, Quantity.DELTA)
    assert (np.abs(decoded - values) <= 1.5e-36).all()


@every
def test_extreme_values_survive(encoding: Encoding) -> None:
    values = np.array([F32_MAX, -F32_MAX, 1e-45, -1e-45, 0, 1e-38], np.float32)
    decoded = round_trip(encoding, values, Quantity.DELTA)
    np.testing.assert_allclose(decoded[:2], values[:2], rtol=0.005)
    np.testing.assert_allclose(round_trip(encoding, np.abs(values), Quantity.V)[0], F32_MAX, rtol=0.01)


@every
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_a_delta_leads_from_before_to_after(encoding: Encoding, seed: int) -> None:
    random = np.random.default_rng(seed)
    before = random.standard_normal(700).astype(np.float32)
    after = before + random.normal(0, 0.01, 700).astype(np.float32)
    decoded = encoding.decode(encode_delta(encoding, before, after), Quantity.DELTA, np.empty(700, np.float32))
    found = weights_after(encoding, before, decoded)
    np.testing.assert_allclose(found, after, atol=0 if encoding.absolute else 3e-4)


def test_stored_tensors_have_the_agreed_layout() -> None:
    assert stored_specs(ENCODINGS["int8"], "w", 257, Quantity.DELTA) == {
        "w": TensorSpec("I8", (257,)),
        "w@scale": TensorSpec("F32", (2,)),
    }
    assert stored_specs(ENCODINGS["fp32"], "w", 257, Quantity.M) == {"w": TensorSpec("F32", (257,))}
    assert stored_specs(ENCODINGS["bf16"], "w", 257, Quantity.V) == {"w": TensorSpec("U16", (257,))}
    for encoding in ENCODINGS.values():
        for quantity in Quantity:
            found: list[Any] = list(encoding.encode(np.ones(257, np.float32), quantity))
            specs = stored_specs(encoding, "w", 257, quantity).values()
            assert [TensorSpec.of(array) for array in found] == list(specs)


def test_an_unknown_encoding_names_the_nearest() -> None:
    with pytest.raises(InvalidInput) as caught:
        encoding_named("int-8")
    assert "'int8'" in caught.value.why.next_step
