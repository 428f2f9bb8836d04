"""Tipping points with intervals: known curves, permutations counted by hand, scipy's own fit, a short simulation."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from analysis import tipping_fit
from analysis.tipping_curves import _bootstrap, _crossing, _Logistic, isotonic_crossings
from analysis.tipping_fit import location_difference, resampled_locations
from analysis.tipping_points import fit_tipping_point
from tests.analysis.tipping_simulation import (
    BARS,
    KINDS,
    SHAPES,
    Outcome,
    curve,
    figures,
    report,
    shape_report,
    study,
    study_shapes,
)

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
    # what an interval contains anyway need not be looked for, what is beyond it is found as before
    inside = best[3], best[3]
    assert fit.profile(0.0, 6.0, inside, (low - half, best[3] + half / 2)) == pytest.approx([best[3], high])
    assert fit.profile(0.0, 6.0, inside, (0.0, 6.0)) == pytest.approx([best[3], best[3]])


@pytest.mark.parametrize("share", [0.8, 1.25])
def test_the_curves_derivatives_are_those_of_finite_differences(share: float) -> None:
    """Central differences of steps of 1e-6 are off by about 1e-9; scores of which less is better are below 0."""
    y = logistic(X) if share < 1 else logistic(X) - 1.2
    fit = _Logistic(X, y, np.zeros(len(X), dtype=np.int64), share, float(y[0]), (2.75, 3.25))
    curve, slopes = fit._through(2.9)
    where = [(HIGH, LOW, K, MIDDLE), (0.9, 0.2, 0.5, 1.0), (0.8, -0.1, 30.0, 3.0)]
    for parameters in where if share < 1 else [(-0.25, -1.1, K, 3.0), (-0.4, -0.9, 12.0, 2.0)]:
        at = np.array(parameters)
        for function, derivatives in ((fit._curve, fit._slopes), (curve, slopes)):
            for index, step in enumerate(1e-6 * np.eye(4)):
                found = (function(at + step) - function(at - step)) / 2e-6
                assert derivatives(at)[:, index] == pytest.approx(found, abs=1e-7)
    # a curve that never falls to the share is flat at its plateau
    flat = np.array([0.9, 0.85, 4.0, 3.0] if share < 1 else [-0.9, -1.0, 4.0, 3.0])
    assert (curve(flat) == flat[0]).all()
    assert (slopes(flat) == [1, 0, 0, 0]).all()


def test_crossings_of_many_curves_are_those_of_scipys_isotonic_ones() -> None:
    """Curves with noise, with strengths of no trial, and with scores that are the level exactly."""
    draw, strengths = rng(5), 12
    swept = np.sort(draw.random(strengths))
    weight = draw.integers(0, 4, (400, strengths)).astype(float)
    weight[:, 3] += 1
    y = logistic(6 * swept) + 0.3 * draw.normal(size=(400, strengths))
    y[::3] = np.round(5 * y[::3]) / 5
    for level in (0.6, 0.2, -2.0, 2.0):
        wanted = []
        for n, score in zip(weight, y, strict=True):
            there = n > 0
            line = optimize.isotonic_regression(score[there], weights=n[there], increasing=False).x
            # means of scores that are the level differ from it by rounding
            line = np.where(abs(line - level) < 1e-12, level, line)
            wanted.append(_crossing(swept[there], line, level))
        assert isotonic_crossings(swept, weight, weight * y, level) == pytest.approx(wanted, abs=1e-9)


def test_curves_of_the_same_design_share_random_orders() -> None:
    """As if each had drawn its own, and the generators go on from where they would be."""
    seeds = np.repeat([0, 1, 2], 25)
    y = np.tile(logistic(X), 3) + 0.1 * rng(2).normal(size=75)
    drawn = []
    for afresh in (True, False):
        if afresh:
            tipping_fit._orders.clear()
        generator = rng(3)
        drawn.append((fit_tipping_point(10 ** np.tile(X, 3), y, seeds, rng=generator), generator.random()))
    assert drawn[0] == drawn[1]
    tipping_fit._orders.clear()
    blocks = [np.arange(3), np.arange(3, 7)]
    orders = np.concatenate(list(tipping_fit._random_orders(blocks, rng(4))))
    wanted = [rng(4).permuted(np.tile(block, (len(orders), 1)), axis=1) for block in blocks[:1]]
    assert (orders[:, :3] == wanted[0]).all()
    assert (np.sort(orders, axis=1) == np.arange(7)).all()


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


def _held(outcomes: list[Outcome], *, rmse: float, missed: float, invented: float, covered: float) -> None:
    ours = figures(outcomes, "ours")
    assert abs(ours.bias) < 0.05
    assert ours.rmse < rmse
    assert ours.missed <= missed * ours.collapses
    assert ours.invented + ours.invented_diverged <= invented * (ours.flat + ours.flat_diverged)
    assert ours.covered >= covered
    # what the definition is for: the simpler ways err more and invent more
    for other in ("paper's rule", "paper's rule per trial", "two segments"):
        assert ours.rmse < figures(outcomes, other).rmse
    per_trial = figures(outcomes, "paper's rule per trial")
    assert per_trial.invented_diverged > ours.invented_diverged


def test_a_short_simulation() -> None:
    """60 sweeps; bounds are those of the long study, widened by four standard errors of so few."""
    outcomes = study(60)
    _held(outcomes, rmse=0.2, missed=0.05, invented=0.2, covered=0.92)
    assert "ours, two stages" in report(outcomes)


@pytest.mark.long
def test_a_long_simulation() -> None:
    outcomes = study(1000, jobs=2)
    print(report(outcomes))
    _held(outcomes, rmse=0.11, missed=0.005, invented=0.02, covered=0.98)


def test_a_short_simulation_by_shape() -> None:
    """Six sweeps of each hard shape together, of which two thirds and more tip over: the bars, widened by four standard
    errors of about 36 errors and 12 flat curves."""
    outcomes = study_shapes(6, SHAPES)
    pooled = figures([dataclasses.replace(outcome, kind="all") for outcome in outcomes], "ours")
    assert pooled.collapses >= 30
    assert abs(pooled.bias) < 0.05
    assert pooled.rmse < 0.12
    assert pooled.covered >= 0.94 - 4 * math.sqrt(0.94 * 0.06 / pooled.collapses)
    assert pooled.missed == 0
    assert pooled.invented + pooled.invented_diverged <= 2
    assert all(outcome.dips for outcome in outcomes if "dip" in outcome.kind)
    assert "double dip" in shape_report(outcomes)


@pytest.mark.long
@pytest.mark.parametrize("shape", [*KINDS, *SHAPES])
def test_a_long_simulation_by_shape(shape: str) -> None:
    """The bars in every shape; shares within two standard errors."""
    outcomes = study_shapes(200, [shape], jobs=2)
    print(shape_report(outcomes))
    found = figures(outcomes, "ours", shape)
    assert abs(found.bias) <= BARS["bias"]
    assert found.rmse <= BARS["rmse"]
    assert found.covered >= BARS["covered"]
    assert found.missed <= BARS["missed"] * found.collapses
    flat, allowed = found.flat + found.flat_diverged, BARS["invented"]
    assert found.invented + found.invented_diverged <= flat * allowed + 2 * math.sqrt(flat * allowed * (1 - allowed))


def test_what_the_simulation_draws() -> None:
    """Every curve is at 80% of its plateau where it says, and falls to chance."""
    draw = rng(3)
    for kind in KINDS:
        at = np.array([-30.0, 2.999, 3.0, 3.001, 60.0])
        y = curve(kind, at, 3.0, 0.9, draw)
        assert (y[0], y[-1]) == pytest.approx((0.9, 0.1), abs=1e-6)
        assert y[1] >= 0.72 - 1e-9 >= y[3] - 1e-2
        if kind != "step":
            assert y[2] == pytest.approx(0.72, abs=1e-9)


def test_a_fall_within_a_gap_is_in_its_middle() -> None:
    """No trial on the fall: every place in the gap fits as well."""
    y = np.where(X < 3.1, 0.9, 0.1) + 0.001 * rng(5).normal(size=len(X))
    found = fit_tipping_point(10**X, y, rng=rng())
    assert found.bracket == (3.0, 3.25)
    assert found.log10_strength == pytest.approx(3.125)
    assert "steeper than the grid: the middle of the bracket" in found.flags


def test_a_baseline_shows_what_the_sweep_cannot() -> None:
    flat = np.full(30, 0.1)
    strength = 10.0 ** np.arange(30)
    assert fit_tipping_point(strength, flat, rng=rng()).status == "none in range"
    found = fit_tipping_point(strength, flat, baseline=[0.9], rng=rng())
    # the baseline trial comes first in 1 of 31 orders: within four standard errors of 9999 draws
    assert found.status == "below range"
    assert found.p_value == pytest.approx(1 / 31, abs=4 * math.sqrt(1 / 31 / 9999))
    assert found.plateau == 0.9
    # a plateau of its own within 80% of the baseline: it plays no part
    curve_ = logistic(X)
    assert fit_tipping_point(10**X, curve_, baseline=[0.97], rng=rng()) == fit_tipping_point(10**X, curve_, rng=rng())


def test_an_excess_over_the_whole_range_is_inconclusive_and_says_what_to_do() -> None:
    # six of eight have collapsed; from the first strength on the excess is 4, in this order as in every other
    y = np.array([0.1, 0.9, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1])
    found = fit_tipping_point(10.0 ** np.arange(8), y, rng=rng())
    assert (found.status, found.p_value) == ("inconclusive", 1.0)
    assert found.flags == (
        "reference band contaminated",
        "most of the whole range has collapsed: sweep weaker strengths",
    )


def swap(pair: tuple[float, float]) -> tuple[float, float]:
    return -pair[1], -pair[0]


def test_where_smaller_is_stronger_all_is_mirrored() -> None:
    """k of Top-GAP: the same scores at 1/strength are the same curve, seen from the other side."""
    x, seeds = np.tile(X, 3), np.repeat([0, 1, 2], len(X))
    y = np.tile(logistic(X), 3) + 0.02 * rng(6).normal(size=len(x))
    options: dict[str, Any] = {"reference_below": 10.0, "baseline": [0.95]}
    right = fit_tipping_point(10**x, y, seeds, rng=rng(), **options)
    options["reference_below"] = 0.1
    left = fit_tipping_point(10**-x, y, seeds, stronger="smaller", rng=rng(), **options)
    assert left.status == "tipping point"
    assert left.log10_strength == pytest.approx(-right.log10_strength, abs=1e-9)
    assert (left.low, left.high) == pytest.approx(swap((right.low, right.high)), abs=1e-6)
    assert left.bracket == pytest.approx(swap(right.bracket))
    assert (left.ec10, left.ec50) == pytest.approx((-right.ec10, -right.ec50), abs=1e-6)
    assert left.paper_threshold == pytest.approx(1 / right.paper_threshold)
    assert (left.plateau, left.p_value, left.flags) == (right.plateau, right.p_value, right.flags)
    resampled = [
        resampled_locations(10 ** (sign * x), y, seeds, fit, rng=rng()) for sign, fit in ((1, right), (-1, left))
    ]
    assert resampled[1] == pytest.approx(-resampled[0], abs=1e-9)
    # the other way round it has collapsed at the weakest strengths
    assert fit_tipping_point(10**-x, y, seeds, rng=rng()).status != "tipping point"


def test_a_fall_towards_small_k_tips_over() -> None:
    """Three k, three seeds, .90 to .10; the plateau is that of the baseline, as but two k lie below the fall."""
    k = np.repeat([1.0, 4.0, 16.0, 64.0, 256.0], 3)
    score = np.repeat([0.1, 0.12, 0.88, 0.9, 0.9], 3)
    found = fit_tipping_point(k, score, np.tile([0, 1, 2], 5), stronger="smaller", rng=rng())
    assert found.status == "tipping point"
    assert found.bracket == pytest.approx((math.log10(4), math.log10(16)))
    assert found.plateau == 0.9
    weak = fit_tipping_point(k[6:], score[6:], np.tile([0, 1, 2], 3), stronger="smaller", rng=rng())
    assert (weak.status, weak.reason) == (
        "none in range",
        "does not fall to 80% of the plateau: sweep stronger (smaller)",
    )


def test_a_loss_tips_over_where_it_rises() -> None:
    """A loss from .3 by a logistic to 2.3: at its plateau / .8 = .375 where (2.3 − .3)/(1 + exp(−k (x − m))) = .075."""
    loss = 0.3 + 2.0 / (1 + np.exp(-K * (X - MIDDLE)))
    found = fit_tipping_point(10**X, loss, direction="min", rng=rng())
    assert found.status == "tipping point"
    assert found.log10_strength == pytest.approx(MIDDLE - math.log(2.0 / 0.075 - 1) / K, abs=1e-3)
    assert found.plateau == pytest.approx(0.3, abs=1e-3)
    assert found.low <= found.log10_strength <= found.high
    assert found.ec50 == pytest.approx(MIDDLE, abs=1e-3)
    # the unit that a loss is counted in changes nothing
    assert fit_tipping_point(10**X, 1000 * loss, direction="min", rng=rng()).log10_strength == pytest.approx(
        found.log10_strength, abs=1e-6
    )
    # the paper's rule: the first swept strength whose loss is above the mean of the lowest quarter (7 strengths) / .8
    over = X[loss > loss[:7].mean() / 0.8]
    assert found.paper_threshold == pytest.approx(10 ** over[0])
    falling = fit_tipping_point(10**X, loss[::-1], direction="min", rng=rng())
    assert falling.status != "tipping point"


@pytest.mark.parametrize("depth", [0.2, 0.5])
def test_a_dip_is_named_and_the_tipping_point_is_where_it_stays_down(depth: float) -> None:
    x, seeds = np.tile(X, 3), np.repeat([0, 1, 2], len(X))
    y = np.tile(logistic(X), 3) + 0.01 * rng(7).normal(size=len(x))
    plain = fit_tipping_point(10**x, y, seeds, rng=rng())
    assert plain.dips == ()
    y[(x == 1.5) & (seeds < 2)] = depth
    y[(x == 2.0) & (seeds < 1)] = depth  # one of three seeds is no dip
    found = fit_tipping_point(10**x, y, seeds, rng=rng())
    assert found.dips == pytest.approx((10**1.5,))
    assert "dip at 31.62: below 80% of the plateau in most seeds, though weaker than the tipping point" in found.flags
    assert found.log10_strength == pytest.approx(plain.log10_strength, abs=0.02)
    # and one that nothing comes after
    alone = fit_tipping_point(10 ** x[x <= 2], y[x <= 2], seeds[x <= 2], rng=rng())
    assert alone.status == "none in range"
    assert alone.dips == pytest.approx((10**1.5,))


def test_a_dip_that_is_as_long_as_its_recovery_is_none_of_the_fall() -> None:
    """One strength down, one up, then the fall: splits before the dip and at the fall are as good as each other. The
    interval has both, the location is at the fall."""
    y = np.where(X < 3.1, 0.9, 0.1) + 0.001 * rng(10).normal(size=len(X))
    y[X == 2.75] = 0.4
    found = fit_tipping_point(10**X, y, rng=rng())
    assert found.bracket == (2.5, 3.25)
    assert found.log10_strength == pytest.approx(3.125)
    assert found.dips == pytest.approx((10**2.75,))
    assert found.low <= 2.5


def test_a_recovery_is_named() -> None:
    y = logistic(X)
    y[22] = 0.9
    flags = fit_tipping_point(10**X, y, rng=rng()).flags
    assert any(flag.startswith("recovers at 3.162e+05: not below 80%") for flag in flags)


def test_a_plateau_of_fewer_than_three_strengths_is_not_known() -> None:
    """Two strengths of nine seeds stand, three have fallen: that is significant, and yet of what, is not known."""
    x, seeds = np.repeat([1.0, 10.0, 100.0, 1e3, 1e4], 9), np.tile(np.arange(9), 5)
    y = np.repeat([0.9, 0.78, 0.3, 0.2, 0.1], 9)
    found = fit_tipping_point(x, y, seeds, rng=rng())
    assert found.status == "inconclusive"
    assert found.p_value < 0.05
    assert math.isnan(found.log10_strength)
    assert any(flag.startswith("plateau not known") for flag in found.flags)
    assert found.reason == "the plateau is not known: sweep weaker, or add the baseline"
    # the baseline is it: 80% of .92 is .736, between .78 at 10 and .3 at 100
    known = fit_tipping_point(x, y, seeds, baseline=[0.92, 0.92], rng=rng())
    assert (known.status, known.plateau) == ("tipping point", 0.92)
    assert known.bracket == (1.0, 2.0)
    # three strengths without one: the middle one is not taken for the plateau
    three = fit_tipping_point(x[9:36], y[9:36], seeds[9:36], rng=rng())
    assert (three.status, math.isnan(three.log10_strength)) == ("inconclusive", True)


def test_a_slow_drift_is_located_by_the_isotonic_curve() -> None:
    """From .9 down by .1 a decade from 10^1.5 on: .72 at 10^3.3, where no logistic curve through all of it is."""
    x, seeds = np.tile(np.linspace(0, 6, 31), 3), np.repeat([0, 1, 2], 31)
    y = 0.9 - 0.1 * np.clip(x - 1.5, 0, None) + 0.004 * rng(8).normal(size=len(x))
    found = fit_tipping_point(10**x, y, seeds, rng=rng())
    assert found.located_by == "isotonic"
    assert any(flag.startswith("located by the isotonic curve") for flag in found.flags)
    assert found.log10_strength == pytest.approx(3.3, abs=0.05)
    assert found.low <= 3.3 <= found.high


def test_a_drift_to_a_cliff_is_in_the_middle_of_its_gap() -> None:
    """From .9 down to .75 and from there to .1 between 10^4 and 10^4.2: no trial tells where between them."""
    x, seeds = np.tile(np.linspace(0, 6, 31), 3), np.repeat([0, 1, 2], 31)
    y = np.where(x < 4.1, 0.9 - 0.06 * np.clip(x - 1.5, 0, None), 0.1) + 0.004 * rng(9).normal(size=len(x))
    found = fit_tipping_point(10**x, y, seeds, rng=rng())
    assert found.bracket == pytest.approx((4.0, 4.2))
    assert found.log10_strength == pytest.approx(4.1)
    assert found.located_by == "middle of the bracket"


def test_differences_by_hand() -> None:
    """Two curves two decades apart, without noise: every resample gives the same, so the brackets alone make the
    interval: widths 0.25 and 0.25."""
    x, seeds = np.tile(X, 3), np.repeat([0, 1, 2], len(X))
    fits, resampled = [], []
    for middle in (2.0, 4.0):
        y = np.tile(logistic(X, middle=middle), 3)
        fits.append(fit_tipping_point(10**x, y, seeds, rng=rng()))
        resampled.append(resampled_locations(10**x, y, seeds, fits[-1], rng=rng()))
        assert np.ptp(resampled[-1]) == pytest.approx(0)
    found = location_difference(fits[1], fits[0], resampled[1], resampled[0])
    assert found.value == pytest.approx(2.0, abs=1e-3)
    assert (found.low, found.high) == pytest.approx((1.75, 2.25), abs=1e-9)
    assert location_difference(fits[0], fits[1], *reversed(resampled)).value == pytest.approx(-2.0, abs=1e-3)


def test_differences_cover_the_truth() -> None:
    """60 pairs of noisy curves, four seeds each: the 95% interval, no narrower than the grid, covers at least 90%."""
    draw, covered = rng(12), 0
    x, seeds = np.tile(X, 4), np.repeat(np.arange(4), len(X))
    for _ in range(60):
        middles = draw.uniform(2, 4, 2)
        fits, resampled = [], []
        for middle in middles:
            shifts = 0.1 * draw.normal(size=4)  # seeds tip over at different strengths
            y = np.concatenate([logistic(X, middle=middle + shift) for shift in shifts])
            y += 0.02 * draw.normal(size=len(x))
            fits.append(fit_tipping_point(10**x, y, seeds, rng=draw))
            resampled.append(resampled_locations(10**x, y, seeds, fits[-1], rng=rng(1)))
        found = location_difference(*fits, *resampled)
        covered += found.low <= middles[0] - middles[1] <= found.high
    assert covered >= 54


@pytest.mark.parametrize(
    ("strength", "score", "options", "named"),
    [
        ([1, 10], [0.9], {}, "score: 1 values for 2 strengths"),
        ([1, 1, 0], [0.9, 0.9, 0.9], {}, "distinct values above 0"),
        ([-1, 1, 10], [0.9, 0.9, 0.9], {}, "strength: -1"),
        ([1, 10], [0.9, math.nan], {}, "score: nan"),
        ([1, 10], [0.9, 0.8], {"share": 1.0}, "share"),
        ([1, 10], [0.9, 0.8], {"reference_below": 1.0}, "reference_below"),
        ([1, 10], [0.9, 0.8], {"seed": [0]}, "seed: 1 values for 2 strengths"),
    ],
)
def test_refuses(strength: Any, score: Any, options: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        fit_tipping_point(strength, score, **options)
