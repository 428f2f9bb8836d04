"""Spearman's ρ and its permutation p-value against scipy, by enumeration by hand, and their properties."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.correlations import spearman_permutation


def by_scipy(x: Any, y: Any) -> Any:
    return stats.permutation_test(
        (x,), lambda order: stats.spearmanr(order, y).statistic, permutation_type="pairings", n_resamples=9999, rng=1
    )


@pytest.mark.parametrize("n", [3, 4, 5, 6, 7])
@pytest.mark.parametrize("ties", [False, True])
def test_small_samples_are_exact(n: int, ties: bool) -> None:
    """All n! orders: equal to scipy's enumeration to rounding, whatever the generator."""
    draw = np.random.default_rng(n)
    for _ in range(3):
        x, y = draw.normal(size=n), draw.normal(size=n)
        if ties:
            y[1] = y[0]
        expected = by_scipy(x, y)
        found = spearman_permutation(x, y, rng=np.random.default_rng(0))
        assert found.rho == pytest.approx(expected.statistic, abs=1e-12)
        assert found.p_value == pytest.approx(expected.pvalue, abs=1e-12)


def test_by_hand() -> None:
    """Three in order: ρ = 1, which one of six orders reaches: p = 2/6. With (1, 3, 2): ρ = 0.5, three of six."""
    assert spearman_permutation([1, 2, 3], [10, 20, 30]) == pytest.approx((1.0, 1 / 3))
    assert spearman_permutation([1, 2, 3], [10, 30, 20]) == pytest.approx((0.5, 1.0))


@pytest.mark.parametrize("slope", [0.0, 0.4, 1.0])
def test_large_samples_agree_with_scipy(slope: float) -> None:
    """9999 random orders each: p within four standard errors of two Monte Carlo estimates; ρ to rounding, with ties."""
    draw = np.random.default_rng(2)
    x = np.round(draw.normal(size=40), 1)
    y = slope * x + draw.normal(size=40)
    expected, found = by_scipy(x, y), spearman_permutation(x, y, rng=np.random.default_rng(3))
    assert found.rho == pytest.approx(expected.statistic, abs=1e-12)
    error = 2 * math.sqrt(2 * expected.pvalue / 2 * (1 - expected.pvalue / 2) / 9999)
    assert found.p_value == pytest.approx(expected.pvalue, abs=4 * error + 2e-4)


def test_p_is_never_zero() -> None:
    x = np.arange(30.0)
    found = spearman_permutation(x, -x, rng=np.random.default_rng(0))
    assert found == pytest.approx((-1.0, 2 / 10_000))
    assert spearman_permutation(x, x, permutations=99, rng=np.random.default_rng(0)).p_value == pytest.approx(0.02)


def test_equal_generators_give_equal_numbers() -> None:
    draw = np.random.default_rng(4)
    x, y = draw.normal(size=(2, 20))
    first, second, other = (spearman_permutation(x, y, rng=np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first == second
    assert first.rho == other.rho
    assert first.p_value != other.p_value


def test_under_the_null_p_is_not_too_small_too_often() -> None:
    """300 samples of noise: p ≤ 0.05 in 5%, a binomial of deviation 1.3%, so below 10%."""
    draw = np.random.default_rng(7)
    p = [spearman_permutation(*draw.normal(size=(2, 12)), permutations=499, rng=draw).p_value for _ in range(300)]
    assert np.mean(np.array(p) <= 0.05) < 0.10
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.12)


def test_constant_samples_have_no_correlation() -> None:
    assert all(math.isnan(value) for value in spearman_permutation([1, 1, 1, 1], [1, 2, 3, 4]))


@pytest.mark.parametrize(
    ("x", "y", "options", "named"),
    [
        ([1, 2, 3], [1, 2], {}, "shapes"),
        ([1, 2], [1, 2], {}, "at least 3"),
        ([1, 2, math.nan], [1, 2, 3], {}, "finite"),
        ([1, 2, 3], [1, 2, 3], {"permutations": 0}, "permutations"),
    ],
)
def test_refuses(x: Any, y: Any, options: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        spearman_permutation(x, y, **options)
