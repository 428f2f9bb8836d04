"""Tipping points with intervals: known curves, permutations counted by hand, scipy's own fit, a short simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from analysis.tipping_fit import _bootstrap, _crossing, _Logistic
from analysis.tipping_points import fit_tipping_point

X = np.linspace(0, 6, 25)
HIGH, LOW, K, MIDDLE = 0.95, 0.1, 4.0, 3.3
T80 = MIDDLE + math.log((HIGH - LOW) / (0.8 * HIGH - LOW) - 1) / K


def logistic(x: Any, high: float = HIGH, low: float = LOW, k: float = K, middle: float = MIDDLE) -> Any:
    return low + (high - low) / (1 + np.exp(k * (x - middle)))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_curve_without_noise_is_found_exactly() -> None:
    found = fit_tipping_point(10**X, logistic(X), rng=rng())
    assert found.status == "tipping point"
    assert found.log10_strength == pytest.approx(T80, abs=1e-4)
    assert logistic(found.log10_strength) == pytest.approx(0.8 * HIGH, rel=1e-3)
    # EC50 is the middle of the fall; at EC10 a tenth of it is lost: exp(k (x − m)) = 1/9
    assert found.ec50 == pytest.approx(MIDDLE, abs=1e-4)
    assert found.ec10 == pytest.approx(MIDDLE - math.log(9) / K, abs=1e-4)
    assert found.bracket == pytest.approx((2.75, 3.0))  # T80 = 2.989
    assert (found.n, found.strengths, found.seeds) == (25, 25, 1)
    # never narrower than the bracket, whatever the fit says
    assert found.low <= 2.75
    assert found.high >= 3.0
    assert found.plateau == pytest.approx(HIGH, rel=1e-4)
    assert found.paper_threshold == pytest.approx(10**3.0)
    assert found.flags == ()


def test_flat_curves_have_none_in_range() -> None:
    y = 0.9 + 0.01 * rng().normal(size=25)
    found = fit_tipping_point(10**X, y, rng=rng())
    assert (found.status, found.p_value) == ("none in range", 1.0)
    assert all(math.isnan(value) for value in (found.log10_strength, found.low, found.high, found.ec10, found.ec50))


def test_few_strengths_are_inconclusive() -> None:
    """Of the 10 ways to place two collapsed trials among five, only the last two reach an excess of 2: p = 0.1."""
    found = fit_tipping_point([1, 10, 100, 1e3, 1e4], [0.9, 0.9, 0.9, 0.1, 0.1], rng=rng())
    assert found.status == "inconclusive"
    assert found.p_value == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 9999))


def test_seeds_are_permuted_apart() -> None:
    """Two seeds of four strengths, the last two collapsed: excess 4. Within a seed 1 of 6 placements reaches 2, so both
    do with probability 1/36; over all eight trials 1 of C(8, 4) = 70, as where seeds have not every strength."""
    x = np.tile([1.0, 10.0, 100.0, 1000.0], 2)
    y = np.tile([0.9, 0.9, 0.1, 0.1], 2)
    crossed = fit_tipping_point(x, y, np.repeat([0, 1], 4), rng=rng())
    assert crossed.p_value == pytest.approx(1 / 36, abs=4 * math.sqrt(1 / 36 / 9999))
    loose = fit_tipping_point(x, y, np.arange(8), rng=rng())
    assert loose.p_value == pytest.approx(1 / 70, abs=4 * math.sqrt(1 / 70 / 9999))


def test_a_contaminated_reference_band_is_seen() -> None:
    """Two of the three lowest strengths have collapsed for a reason of their own: the plateau is that of the top."""
    y = logistic(X)
    y[[0, 2]] = 0.1
    found = fit_tipping_point(10 ** X[:12], y[:12], rng=rng())
    assert "reference band contaminated" in found.flags
    assert found.plateau == pytest.approx(HIGH, rel=1e-2)


def test_diverged_trials_count_and_do_not_move_the_plateau() -> None:
    y = logistic(X)
    y[[4, 20, 22]] = 0.0
    found = fit_tipping_point(10**X, y, rng=rng())
    assert found.status == "tipping point"
    assert found.log10_strength == pytest.approx(T80, abs=0.05)


def test_the_profile_interval_agrees_with_scipys() -> None:
    """Little noise, many trials: profile and delta-method intervals of the same least-squares fit agree to 10%."""
    x = np.sort(np.tile(X, 4))
    y = logistic(x) + 0.01 * rng(1).normal(size=len(x))

    def by_t(x: Any, high: float, low: float, k: float, t: float) -> Any:
        middle = t - math.log((high - low) / (0.8 * high - low) - 1) / k
        return logistic(x, high, low, k, middle)

    best, covariance = optimize.curve_fit(by_t, x, y, [0.9, 0.1, 3.0, 3.0])
    half = stats.t.ppf(0.975, len(x) - 4) * math.sqrt(covariance[3, 3])
    fit = _Logistic(x, y, np.zeros(len(x), dtype=np.int64), 0.8, 0.95, (2.75, 3.25))
    low, high = fit.profile(0.0, 6.0, (best[3], best[3]))
    assert low == pytest.approx(best[3] - half, abs=0.1 * half)
    assert high == pytest.approx(best[3] + half, abs=0.1 * half)


def test_crossings_by_hand() -> None:
    assert _crossing(np.array([0.0, 1.0, 2.0]), np.array([0.9, 0.8, 0.2]), 0.5) == pytest.approx(1.5)
    assert _crossing(np.array([0.0, 1.0]), np.array([0.9, 0.8]), 0.5) == 1.0
    assert _crossing(np.array([0.0, 1.0]), np.array([0.4, 0.3]), 0.5) == 0.0


def test_the_bootstrap_covers_the_noise_of_the_crossing() -> None:
    """Isotonic crossings of fresh data: the middle 95% of them is about as wide as one bootstrap interval says."""
    swept = np.linspace(0, 6, 13)
    x = np.sort(np.tile(swept, 10))
    level = 0.8 * HIGH
    fresh = []
    for seed in range(200):
        mean = (logistic(x) + 0.05 * rng(seed).normal(size=len(x))).reshape(13, 10).mean(1)
        fresh.append(_crossing(swept, optimize.isotonic_regression(mean, increasing=False).x, level))
    wanted = float(np.diff(np.quantile(fresh, [0.025, 0.975]))[0])
    y = logistic(x) + 0.05 * rng(999).normal(size=len(x))
    low, high = _bootstrap(x, y, swept, 0.8, HIGH, rng())
    assert high - low == pytest.approx(wanted, rel=0.5)


def test_equal_generators_give_equal_intervals() -> None:
    x, y = np.tile(X, 3), np.tile(logistic(X), 3) + 0.02 * rng(2).normal(size=75)
    seeds = np.repeat([0, 1, 2], 25)
    first, second = (fit_tipping_point(10**x, y, seeds, rng=rng(3)) for _ in range(2))
    assert first == second
    order = rng(4).permutation(75)
    shuffled = fit_tipping_point(10 ** x[order], y[order], seeds[order], rng=rng(3))
    assert shuffled.log10_strength == pytest.approx(first.log10_strength, abs=1e-6)


def test_a_short_simulation() -> None:
    """40 collapses and 20 flat curves with diverged runs: none missed, none invented, 95% covered, and errors small."""
    draw = rng(11)
    errors, covered, invented = [], [], 0
    for index in range(60):
        number, seeds = int(draw.integers(9, 40)), int(draw.choice([1, 3]))
        x, seed = np.tile(np.linspace(0, 6, number), seeds), np.repeat(np.arange(seeds), number)
        noise = 0.01 * draw.normal(size=len(x))
        if index % 3 == 0:
            y = 0.9 + noise
            y[draw.random(len(y)) < 0.03] = 0.1
            invented += fit_tipping_point(10**x, y, seed, rng=draw).status == "tipping point"
            continue
        t, k = draw.uniform(2.5, 5), draw.uniform(1.5, 8)
        middle = t - math.log((0.9 - 0.1) / (0.8 * 0.9 - 0.1) - 1) / k
        found = fit_tipping_point(10**x, logistic(x, 0.9, 0.1, k, middle) + noise, seed, rng=draw)
        assert found.status == "tipping point"
        errors.append(found.log10_strength - t)
        covered.append(found.low <= t <= found.high)
    assert invented == 0
    assert np.mean(covered) >= 0.95
    assert abs(np.mean(errors)) < 0.05
    assert math.sqrt(np.mean(np.square(errors))) < 0.1


@pytest.mark.parametrize(
    ("strength", "score", "options", "named"),
    [
        ([1, 10], [0.9], {}, "shapes"),
        ([1, 1, 0], [0.9, 0.9, 0.9], {}, "distinct above 0"),
        ([-1, 1, 10], [0.9, 0.9, 0.9], {}, "strength: negative"),
        ([1, 10], [0.9, math.nan], {}, "score: not finite"),
        ([1, 10], [0.9, 0.8], {"share": 1.0}, "share"),
        ([1, 10], [0.9, 0.8], {"reference_below": 1.0}, "reference_below"),
        ([1, 10], [0.9, 0.8], {"seed": [0]}, "shapes"),
    ],
)
def test_refuses(strength: Any, score: Any, options: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        fit_tipping_point(strength, score, **options)
