"""Draws: fixed by seed and row, uniform, and the same for ever."""

from __future__ import annotations

import numpy as np

from shardwork.recipes.alignment.draws import draws

SEED = bytes(range(32))


def test_a_seed_and_a_row_fix_the_draws_for_ever() -> None:
    assert draws(SEED, 0, 3).tolist() == [0.7976904602960239, 0.3388239860385214, 0.5973444089291404]


def test_more_draws_begin_with_the_same() -> None:
    assert draws(SEED, 7, 1000)[:13].tolist() == draws(SEED, 7, 13).tolist()
    assert draws(SEED, 7, 0).shape == (0,)


def test_rows_and_seeds_share_nothing() -> None:
    many = [draws(SEED, row, 64) for row in range(64)] + [draws(bytes([row]) * 32, 0, 64) for row in range(64)]
    assert len(np.unique(np.concatenate(many))) == 128 * 64


def test_they_are_uniform() -> None:
    """Chi-square over 100 cells, 99 degrees of freedom: 148 is passed by one seed in a thousand."""
    numbers = np.concatenate([draws(SEED, row, 500) for row in range(200)])
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = np.bincount((numbers * 100).astype(int), minlength=100)
    assert ((counts - 1000.0) ** 2 / 1000.0).sum() < 148
    # a row's draws say nothing of the next row's
    firsts = np.array([draws(SEED, row, 1)[0] for row in range(2000)])
    assert abs(np.corrcoef(firsts[:-1], firsts[1:])[0, 1]) < 0.08
