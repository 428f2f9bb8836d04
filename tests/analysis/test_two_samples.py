"""Two arms of scores compared, and many such tests at once."""

from __future__ import annotations

import itertools
import math
import sys
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from analysis.comparisons import compare, seeds_needed, stars
from analysis.multiplicity import adjust


def draws(n: int, m: int, seed: int = 0) -> tuple[Any, Any]:
    draw = np.random.default_rng(seed)
    return draw.normal(0.92, 0.01, n), draw.normal(0.91, 0.02, m)


# --- compare ----------------------------------------------------------------------------------------------------------


def test_pairs_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, deviation 1, t = 2√3 on 2 degrees of freedom, whose p is 1 − t/√(t² + 2)."""
    found = compare([2, 4, 6], [1, 2, 3], paired=True)
    assert (found.test, found.n, found.n_reference, found.effect) == ("paired t", 3, 3, "d_z")
    assert (found.mean, found.mean_reference, found.difference) == (4, 2, 2)
    assert (found.sd, found.sd_reference) == (2, 1)
    assert (found.t, found.df) == (pytest.approx(2 * math.sqrt(3)), 2)
    assert found.p_value == pytest.approx(1 - math.sqrt(12 / 14))
    # the quantile with which 2 degrees of freedom leave 0.95 inside: 0.95 √(2 / (1 − 0.95²)) = 4.302653
    half = 0.95 * math.sqrt(2 / (1 - 0.95**2)) / math.sqrt(3)
    assert (found.low, found.high) == (pytest.approx(2 - half), pytest.approx(2 + half))
    assert found.effect_size == pytest.approx(2)
    assert found.testable


def test_two_arms_by_hand() -> None:
    """Variances 2 and 2: t = 2/√2 on 2 degrees of freedom. d = √2, and the correction Γ(1)/(√1 Γ(1/2)) = 1/√π."""
    found = compare([2, 4], [0, 2], paired=False)
    assert (found.test, found.n, found.n_reference, found.effect) == ("Welch t", 2, 2, "Hedges' g")
    assert (found.t, found.df) == (pytest.approx(math.sqrt(2)), pytest.approx(2))
    assert found.p_value == pytest.approx(1 - math.sqrt(2) / 2)
    assert found.effect_size == pytest.approx(math.sqrt(2 / math.pi))


def test_one_arm_without_variance_is_testable() -> None:
    """All of the error is the other arm's: t = 1 / √(2/2) on 1 degree of freedom, p = 1/2 (a Cauchy distribution)."""
    found = compare([3, 3, 3], [1, 3], paired=False)
    assert (found.t, found.df, found.p_value) == pytest.approx((1, 1, 0.5))


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("n", [2, 3, 9, 30])
def test_pairs_against_scipy(n: int, alternative: Any) -> None:
    """1e-9: both subtract scores that agree in two of sixteen digits."""
    x, y = draws(n, n, n)
    found, expected = (
        compare(x, y, paired=True, alternative=alternative),
        stats.ttest_rel(x, y, alternative=alternative),
    )
    assert (found.t, found.df, found.p_value) == pytest.approx((expected.statistic, n - 1, expected.pvalue), rel=1e-9)
    interval = stats.ttest_rel(x, y).confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    if n >= 6:
        assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(x, y, alternative=alternative).pvalue, rel=1e-12)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 9), (30, 20)])
def test_two_arms_against_scipy(n: int, m: int, alternative: Any) -> None:
    x, y = draws(n, m, n)
    found = compare(x, y, paired=False, alternative=alternative)
    expected = stats.ttest_ind(x, y, equal_var=False, alternative=alternative)
    assert (found.t, found.df, found.p_value) == pytest.approx(
        (expected.statistic, expected.df, expected.pvalue), rel=1e-9
    )
    interval = stats.ttest_ind(x, y, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    if min(n, m) >= 6:
        expected = stats.mannwhitneyu(x, y, alternative=alternative, method="exact")
        assert found.wilcoxon_p == pytest.approx(expected.pvalue, rel=1e-12)


def test_two_arms_against_statsmodels() -> None:
    x, y = draws(7, 12)
    found, means = compare(x, y, paired=False), CompareMeans(DescrStatsW(x), DescrStatsW(y))
    assert (found.t, found.p_value, found.df) == pytest.approx(means.ttest_ind(usevar="unequal"), rel=1e-9)
    assert (found.low, found.high) == pytest.approx(means.tconfint_diff(usevar="unequal"), rel=1e-9)


def test_hedges_correction_undoes_the_bias() -> None:
    """E g is the true effect, here 1: over 4000 samples of 3 and 4, its mean within 4 standard errors; d is 25% off."""
    draw = np.random.default_rng(3)
    g = [compare(draw.normal(1, 1, 3), draw.normal(0, 1, 4), paired=False).effect_size for _ in range(4000)]
    error = float(np.std(g)) / math.sqrt(len(g))
    assert np.mean(g) == pytest.approx(1, abs=4 * error)
    assert 4 * error < 0.08


def test_p_is_never_zero() -> None:
    found = compare(1e9 + np.arange(40.0), np.arange(40.0) + 0.001 * np.arange(40) ** 2, paired=True)
    assert found.p_value == sys.float_info.min
    assert found.testable


@pytest.mark.parametrize(
    ("x", "y", "paired", "reason"),
    [
        ([], [0.9], False, "no seed"),
        ([0.9], [], False, "no seed in the reference"),
        ([0.9], [0.8], True, "one seed"),
        ([0.9], [0.8, 0.9], False, "one seed"),
        ([0.8, 0.9], [0.9], False, "one seed in the reference"),
        ([0.8, 0.9, 0.7], [0.8, 0.9, 0.7], True, "no variance: equal to the reference in every seed"),
        # 0.1 each on paper; in floating point the differences have a deviation of 1e-16
        ([0.4, 0.9, 0.7], [0.3, 0.8, 0.6], True, "no variance: the same difference in every seed"),
        ([0.9, 0.9], [0.9, 0.9, 0.9], False, "no variance in either arm"),
        ([0.9, 0.9], [0.1, 0.1, 0.1], False, "no variance in either arm"),
        ([0.1 + 0.2, 0.3], [0.1, 0.1], False, "no variance in either arm"),
        ([0.0, 0.0], [0.0, 0.0], True, "no variance: equal to the reference in every seed"),
    ],
)
def test_what_cannot_be_tested_says_why(x: Any, y: Any, paired: bool, reason: str) -> None:
    found = compare(x, y, paired=paired)
    assert (found.reason, found.testable) == (reason, False)
    assert all(math.isnan(value) for value in (found.t, found.df, found.p_value, found.low, found.effect_size))
    assert (found.seeds_needed, found.wilcoxon_p) == (None, None)
    assert found.wilcoxon_reason
    if x and y:
        assert found.difference == pytest.approx(np.mean(x) - np.mean(y))


def test_without_variance_wilcoxon_has_the_same_reason() -> None:
    found = compare([0.5] * 8, [0.25] * 8, paired=True)
    assert found.wilcoxon_reason == found.reason == "no variance: the same difference in every seed"


def test_wilcoxon_needs_six_seeds() -> None:
    five, six = compare(*draws(5, 5), paired=True), compare(*draws(6, 6), paired=True)
    assert (five.wilcoxon_p, five.wilcoxon_reason) == (None, "cannot reach .05 below 6 seeds")
    # which is true: the smallest two-sided p is 2 of 2^n signs
    assert 2 / 2**5 > 0.05 > 2 / 2**6
    assert six.wilcoxon_p is not None
    assert compare(*draws(5, 9), paired=False).wilcoxon_reason == "from 6 seeds of each on"


def test_ties_are_ties_though_they_differ_by_rounding() -> None:
    """Tenths in floating point, and the same as whole numbers."""
    tenths = [0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.2], [0.8, 0.7, 0.6, 0.8, 0.3, 0.0, 0.2]
    whole = [np.round(10 * np.array(values)) for values in tenths]
    assert len(np.unique(np.subtract(*tenths))) > len(np.unique(np.subtract(*whole)))
    found = compare(*tenths, paired=True)
    assert found.wilcoxon_p == compare(*whole, paired=True).wilcoxon_p
    # six differences that are not zero: 1, 1, 1, −2, 2, 3; of the 64 signs as many as far out
    ranks = [2, 2, 2, 4.5, 4.5, 6]
    sums = [
        sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign)
        for signs in itertools.product((0, 1), repeat=6)
    ]
    assert found.wilcoxon_p == pytest.approx(2 * sum(total >= 16.5 for total in sums) / 64)


@pytest.mark.parametrize("paired", [True, False])
def test_interquartile_means_against_scipy(paired: bool) -> None:
    """The point exactly; the interval within the error of two bootstraps: a hundredth of its width is 3 of them."""
    x, y = draws(20, 20 if paired else 14)
    found = compare(x, y, paired=paired, rng=np.random.default_rng(0))
    assert found.iqm_difference == pytest.approx(stats.trim_mean(x, 0.25) - stats.trim_mean(y, 0.25), abs=1e-12)
    expected = stats.bootstrap(
        (x, y),
        lambda a, b, axis: stats.trim_mean(a, 0.25, axis=axis) - stats.trim_mean(b, 0.25, axis=axis),
        paired=paired,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.iqm_low is not None
    assert found.iqm_high is not None
    width = expected.high - expected.low
    assert (found.iqm_low, found.iqm_high) == pytest.approx((expected.low, expected.high), abs=0.03 * width)
    again = compare(x, y, paired=paired, rng=np.random.default_rng(0))
    assert found == again


def test_interquartile_means_by_hand() -> None:
    """Of ten the lowest and the highest two are left out, as in rliable: 3 to 8 and 0, whatever the outliers."""
    found = compare([1, 2, 3, 4, 5, 6, 7, 8, 900, 1000], [-70, -60, 0, 0, 0, 0, 0, 0, 1, 2], paired=False)
    assert found.iqm_difference == 5.5
    nine = compare(*draws(9, 9), paired=True)
    assert (nine.iqm_difference, nine.iqm_low, nine.iqm_high) == (None, None, None)
    assert nine.iqm_reason == "from 10 seeds on"


@pytest.mark.parametrize(
    ("x", "y", "options", "named"),
    [
        ([1, 2], [1], {"paired": True}, "1 values for 2 scores"),
        ([1, math.nan], [1, 2], {"paired": True}, "scores: not finite"),
        ([1, 2], [1, math.inf], {"paired": False}, "reference: not finite"),
        ([[1, 2]], [1, 2], {"paired": False}, "one dimension"),
        ([1, 2], [1, 3], {"paired": True, "alternative": "larger"}, "alternative"),
    ],
)
def test_compare_refuses(x: Any, y: Any, options: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        compare(x, y, **options)


# --- power ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [0.05, 0.3, 0.9, 1.7])
@pytest.mark.parametrize("level", [0.05, 0.05 / 9])
def test_seeds_against_statsmodels(effect: float, level: float) -> None:
    options = {"effect_size": effect, "alpha": level, "power": 0.8}
    assert seeds_needed(effect, 1, level=level) == math.ceil(TTestPower().solve_power(**options))
    assert seeds_needed(-effect, 1, 1, level=level) == math.ceil(TTestIndPower().solve_power(**options))


@pytest.mark.parametrize(("difference", "sd", "sd_reference"), [(1.0, 1.1, None), (1.0, 0.3, 1.2), (3.0, 0.5, 2.0)])
def test_seeds_by_simulation(difference: float, sd: float, sd_reference: float | None) -> None:
    """40,000 tests: their standard error is 0.002. With n the power is at least 0.8, with one less it is below.

    Welch's is known but for an approximation, which costs up to 0.02 with the few seeds of very different spreads.
    """
    n = seeds_needed(difference, sd, sd_reference)
    draw = np.random.default_rng(5)
    slack = 0.008 if sd_reference is None else 0.02
    shown = []
    for seeds in (n, n - 1):
        x = draw.normal(difference, sd, (40_000, seeds))
        if sd_reference is None:
            test = stats.ttest_1samp(x, 0, axis=1)
        else:
            test = stats.ttest_ind(x, draw.normal(0, sd_reference, x.shape), axis=1, equal_var=False)
        shown.append(float((test.pvalue < 0.05).mean()))
    assert shown[0] > 0.8 - slack
    assert shown[1] < 0.8 + slack


def test_what_is_not_shown_needs_more_seeds() -> None:
    """A test whose p is above the level has less than 80% power at what it saw; with effects from none to huge."""
    draw = np.random.default_rng(6)
    for n, effect, level in itertools.product((2, 3, 5, 12), (0.3, 3.0, 30.0), (0.05, 0.05 / 9, 0.05 / 200)):
        x, y = draw.normal(effect, 1, n), draw.normal(0, 1, n)
        for paired in (True, False):
            found = compare(x, y, paired=paired)
            spread = (found.difference / found.effect_size, None) if paired else (found.sd, found.sd_reference)
            needed = seeds_needed(found.difference, *spread, level=level)
            assert found.p_value < level or needed > n


def test_extreme_effects() -> None:
    assert seeds_needed(1.0, 1e-9) == 2
    # (1.959964 + 0.841621)² = 7.848880
    assert seeds_needed(1e-5, 1.0) == pytest.approx(7.848880e10, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "options", "named"),
    [
        ((0.0, 1.0), {}, "difference"),
        ((math.nan, 1.0), {}, "difference"),
        ((1.0, 0.0), {}, "sd"),
        ((1.0, 0.0, 0.0), {}, "sd"),
        ((1.0, -1.0), {}, "sd"),
        ((1.0, 1.0), {"power": 1.0}, "power"),
        ((1.0, 1.0), {"level": 0.0}, "level"),
    ],
)
def test_seeds_needed_refuses(arguments: Any, options: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        seeds_needed(*arguments, **options)


def test_equal_means_have_no_number_of_seeds() -> None:
    found = compare([1, 2, 3], [3, 2, 1], paired=True)
    assert (found.difference, found.p_value, found.seeds_needed) == (0, 1, None)


# --- many tests -------------------------------------------------------------------------------------------------------


def test_adjustments_by_hand() -> None:
    """Holm: 3 × .01, then the larger of 2 × .02 and that, then .04 (already .04). BH: 3 × .01, 3/2 × .02, .04 → .03."""
    assert adjust([0.02, 0.01, 0.04]) == pytest.approx([0.04, 0.03, 0.04])
    assert adjust([0.02, 0.01, 0.04], "bh") == pytest.approx([0.03, 0.03, 0.04])
    assert adjust([math.nan, 0.01, math.nan, 0.5]) == pytest.approx([math.nan, 0.02, math.nan, 0.5], nan_ok=True)
    assert adjust([]).shape == (0,)
    assert np.isnan(adjust([math.nan, math.nan])).all()
    assert (adjust([1.0, 0.0, 0.7]) <= 1).all()


@pytest.mark.parametrize(
    ("p", "method", "named"),
    [([0.5], "bonferroni", "method"), ([1.5], "holm", "1.5"), ([-0.1], "bh", "-0.1"), ([[0.5]], "holm", "dimension")],
)
def test_adjust_refuses(p: Any, method: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        adjust(p, method)


def test_stars_are_the_papers() -> None:
    p = [0.0, 0.00099, 0.001, 0.0099, 0.01, 0.099, 0.1, 1.0, math.nan]
    assert [stars(value) for value in p] == ["***", "***", "**", "**", "*", "*", "", "", ""]
