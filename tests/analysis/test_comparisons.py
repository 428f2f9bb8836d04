from __future__ import annotations

import itertools
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from analysis import comparisons, records
from analysis.comparisons import compare, seeds_needed, stars
from analysis.multiplicity import adjust

Record = Callable[..., bool]
Command = Callable[..., tuple[int, str, str]]


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


# --- the command ------------------------------------------------------------------------------------------------------

BASELINE = [0.90, 0.91, 0.92, 0.90, 0.91]
# by seed above the baseline: clearly, hardly, by the same in every seed
BETTER = [0.031, 0.029, 0.030, 0.032, 0.028]
HARDLY = [0.010, -0.012, 0.004, -0.003, 0.006]


@pytest.fixture
def write(tmp_path: Path, record: Record) -> Callable[..., None]:
    """Writes trials of one setting, a score per seed from 0 (or `seeds`) on, to the sweep `demo`."""
    number = itertools.count()

    def trials(scores: list[float | None], *, seeds: list[int] | None = None, **columns: Any) -> None:
        if columns.get("method") == "baseline":
            columns = {"alpha": None, "variant": None, **columns}
        for seed, score in zip(seeds or range(len(scores)), scores, strict=True):
            record(tmp_path / "demo", f"{next(number):03}", seed=seed, **{"top1": score, **columns})

    return trials


@pytest.fixture
def sweep(tmp_path: Path, write: Callable[..., None]) -> Path:
    """Five seeds: a baseline, one setting that is better, one that is not shown to be, one of one seed."""
    write(BASELINE, method="baseline")
    write([a + b for a, b in zip(BASELINE, BETTER, strict=True)], alpha=1.0)
    write([a + b for a, b in zip(BASELINE, HARDLY, strict=True)], alpha=10.0)
    write([0.1], alpha=100.0, status="diverged")
    write([None], alpha=100.0, seeds=[1], status="failed", error="boom")
    return tmp_path / "demo"


def table(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path / "comparisons.parquet").to_pylist()


def test_the_command_writes_a_table_and_a_figure(sweep: Path, command: Command) -> None:
    code, out, err = command(comparisons.main, sweep)
    assert (code, err) == (0, "")
    files = [sweep / "analysis" / f"comparisons.{kind}" for kind in ("parquet", "png", "svg", "pdf")]
    lines = out.splitlines()
    assert lines[-4:] == [str(file) for file in files]
    assert "1 trial failed: left out" in lines
    assert "1 trial diverged: counted with the top1 they have" in lines
    assert (
        "p adjusted for 2 tests by Holm: * < .1, ** < .01, *** < .001; shown is what has an adjusted p < .05." in lines
    )
    assert "Tests: two-sided, 2 paired t, seeds shared. Intervals: two-sided, each 95% by itself." in lines
    assert "No Wilcoxon test: cannot reach .05 below 6 seeds." in lines
    assert max(map(len, lines[:-4])) <= 120
    words = " ".join(re.sub(r"[|+-]{2,}|\|", " ", out).split())
    assert "| better " in out
    assert "not testable: one seed of 2" in words
    better, hardly, one = rows = table(sweep / "analysis")
    assert [row["alpha"] for row in rows] == [1.0, 10.0, 100.0]
    assert [row["setting"] for row in rows] == ["alpha=1", "alpha=10", "alpha=100"]

    expected = stats.ttest_1samp(BETTER, 0)
    assert better["difference"] == pytest.approx(0.03)
    assert (better["t"], better["df"]) == (pytest.approx(expected.statistic, rel=1e-9), 4)
    assert better["p_value"] == pytest.approx(expected.pvalue, rel=1e-9)
    assert better["p_adjusted"] == pytest.approx(2 * expected.pvalue, rel=1e-9)
    assert (better["n"], better["n_reference"], better["left_out"], better["tests"]) == (5, 5, 0, 2)
    assert (better["mean_reference"], better["stars"], better["verdict"]) == (pytest.approx(0.908), "***", "better")
    assert (better["effect"], better["effect_size"]) == ("d_z", pytest.approx(0.03 / np.std(BETTER, ddof=1)))
    assert better["wilcoxon_p"] is None
    assert better["wilcoxon_reason"] == "cannot reach .05 below 6 seeds"
    assert better["reason"] is None

    needed = seeds_needed(0.001, float(np.std(HARDLY, ddof=1)), level=0.025)
    assert hardly["p_value"] == pytest.approx(stats.ttest_1samp(HARDLY, 0).pvalue, rel=1e-6)
    assert hardly["seeds_needed_adjusted"] == needed
    assert hardly["seeds_needed"] < needed
    assert hardly["verdict"] == f"no difference shown: {needed} seeds would show 0.0010 at 80% power"

    assert (one["n"], one["failed"], one["missing"], one["p_value"], one["low"]) == (1, 1, 0, None, None)
    assert one["reason"] == "one seed of 2 with a value"
    assert one["verdict"] == "not testable: one seed of 2 with a value"
    assert one["difference"] == pytest.approx(-0.8)

    schema = pq.read_schema(files[0])
    assert schema.metadata[b"schema_version"] == b"1"
    assert all(schema.field(name).metadata[b"description"] for name in schema.names if name != "alpha")
    source = f"record {records.content_hash(str(sweep))}"
    assert source in files[1].read_bytes().decode("latin-1")
    assert source in files[2].read_text()


def test_the_printed_table_does_not_depend_on_the_terminal(
    sweep: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = []
    for columns in ("40", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        printed.append(command(comparisons.main, sweep))
    assert printed[0] == printed[1]


def test_numbers_do_not_depend_on_the_order_or_on_other_runs(sweep: Path, command: Command, write: Any) -> None:
    write([0.95] * 12, alpha=1000.0, seeds=list(range(20, 32)))
    write([0.9 + 0.001 * seed**2 for seed in range(12)], method="baseline", seeds=list(range(20, 32)))
    written = []
    for _ in range(2):
        assert command(comparisons.main, sweep)[0] == 0
        written.append((sweep / "analysis" / "comparisons.parquet").read_bytes())
    assert written[0] == written[1]
    row = table(sweep / "analysis")[-1]
    assert row["iqm_low"] < row["iqm_difference"] < row["iqm_high"]


def test_another_setting_as_the_reference(sweep: Path, command: Command, tmp_path: Path) -> None:
    for given in (["alpha=10 variant=curvature"], ["alpha=10,variant=curvature"], ["alpha=10", "variant=curvature"]):
        code, out, _ = command(comparisons.main, sweep, "--baseline", *given, "--out", tmp_path / "out")
        assert code == 0
        assert "Reference: the trials with alpha=10 variant=curvature" in out
    unregularised, better, one = table(tmp_path / "out")
    assert [row["setting"] for row in (unregularised, better, one)] == [
        "baseline",
        "pilcro, alpha=1",
        "pilcro, alpha=100",
    ]
    assert unregularised["difference"] == pytest.approx(-0.001)
    assert better["difference"] == pytest.approx(0.029)
    assert {row["reference"] for row in (unregularised, better)} == {"alpha=10 variant=curvature"}
    assert not (sweep / "analysis").exists()


def test_a_reference_is_named_by_its_label(sweep: Path, command: Command, write: Any) -> None:
    """alpha=215.4 in the table is 215.44346900318843 in the record; of two that print alike neither is meant."""
    write(BASELINE, alpha=215.44346900318843)
    code, out, _ = command(comparisons.main, sweep, "--baseline", "alpha=215.4")
    assert code == 0
    assert "Reference: the trials with alpha=215.443" in out
    write(BASELINE, alpha=215.4123)
    assert command(comparisons.main, sweep, "--baseline", "alpha=215.4")[0] == 2
    assert command(comparisons.main, sweep, "--baseline", "alpha=215.4123")[0] == 0


def test_a_collapse_does_not_hide_the_other_settings_in_the_figure(sweep: Path, command: Command, write: Any) -> None:
    """−0.8 beside differences of some hundredths: an arrow at the edge with its number; alike ones need none."""
    axes = comparisons.forest(comparisons.comparisons(records.read_sweep(str(sweep)))).axes[0]
    assert [text.get_text() for text in axes.texts if "−0.8" in text.get_text()] != []
    assert axes.get_xlim()[0] > -0.4
    result = comparisons.comparisons(records.read_sweep(str(sweep)), baseline=["alpha=100"])
    axes = comparisons.forest(result).axes[0]
    assert [text for text in axes.texts if text.get_text().startswith("−")] == []


def test_one_sided_and_benjamini_and_hochberg(sweep: Path, command: Command) -> None:
    code, out, _ = command(comparisons.main, sweep, "--alternative", "greater", "--adjust", "bh")
    assert code == 0
    assert "one-sided (greater)" in out
    assert "by Benjamini and Hochberg" in out
    better, hardly, _ = table(sweep / "analysis")
    expected = stats.ttest_1samp(BETTER, 0, alternative="greater").pvalue
    assert (better["p_value"], better["verdict"]) == (pytest.approx(expected, rel=1e-9), "better")
    assert hardly["verdict"].startswith("not shown to be better: ")
    command(comparisons.main, sweep, "--alternative", "less")
    better, hardly, _ = table(sweep / "analysis")
    assert better["p_value"] == pytest.approx(1 - expected, rel=1e-9)
    assert better["verdict"] == "not shown to be worse: seen is better"


def test_less_of_a_loss_is_better(sweep: Path, command: Command, write: Any) -> None:
    write([None] * 5, method="baseline", seeds=[10, 11, 12, 13, 14], loss=0.5)
    write([0.4, 0.5, 0.6], alpha=1.0, seeds=[10, 11, 12], loss=0.4)
    for seed, loss in enumerate((0.300, 0.301, 0.302, 0.299, 0.298)):
        write([0.9], alpha=5.0, seeds=[10 + seed], loss=loss)
    code, out, _ = command(comparisons.main, sweep, "--metric", "loss")
    assert code == 0
    assert "loss: less is better" in out
    rows = {row["alpha"]: row for row in table(sweep / "analysis")}
    assert rows[5.0]["verdict"] == "better"
    assert rows[5.0]["difference"] == pytest.approx(-0.2)
    # no variance, and three seeds
    assert rows[1.0]["reason"] == "no variance: the same difference in every seed"
    assert rows[10.0]["verdict"] == "not testable: 5 trials without a value"
    assert rows[100.0]["verdict"] == "not testable: 2 trials without a value"


def test_a_measurement(sweep: Path, command: Command, tmp_path: Path) -> None:
    for index in range(10):
        value = {"value": index % 5 + 10 * (index // 5), "unit": "nats", "direction": "none"}
        row = {"epoch": 2, "metric": "entropy", "component": "gradient", **value}
        records.add_measurements(str(sweep), f"{index:03}", [row], [], {})
    code, out, _ = command(comparisons.main, sweep, "--metric", "entropy:gradient")
    assert code == 0
    assert "entropy:gradient: neither more nor less is better" in out
    row = table(sweep / "analysis")[0]
    assert (row["reason"], row["difference"]) == ("no variance: the same difference in every seed", 10)
    assert (row["metric"], row["unit"], row["direction"]) == ("entropy:gradient", "nats", "none")


def test_seeds_that_the_reference_lacks(sweep: Path, command: Command, write: Any) -> None:
    # seeds 3 and 4 are shared, 5 to 7 are not; the means are those of the pairs
    write([0.93, 0.95, 0.1, 0.1, 0.1], alpha=5.0, seeds=[3, 4, 5, 6, 7])
    # none is shared: Welch's test
    write([0.95, 0.96, 0.97], alpha=6.0, seeds=[10, 11, 12])
    # one is: the two arms again
    write([0.95, 0.96, 0.97], alpha=7.0, seeds=[4, 13, 14])
    code, out, _ = command(comparisons.main, sweep)
    assert code == 0
    assert "Seeds that the reference does not have, left out: alpha=5 3." in out
    assert "3 paired t, seeds shared; 2 Welch's t, seeds not shared" in out
    rows = {row["alpha"]: row for row in table(sweep / "analysis")}
    assert (rows[5.0]["n"], rows[5.0]["left_out"], rows[5.0]["missing"]) == (2, 3, 0)
    assert (rows[5.0]["mean"], rows[5.0]["mean_reference"]) == (pytest.approx(0.94), pytest.approx(0.905))
    for alpha in (6.0, 7.0):
        expected = stats.ttest_ind([0.95, 0.96, 0.97], BASELINE, equal_var=False)
        assert (rows[alpha]["test"], rows[alpha]["n"], rows[alpha]["n_reference"]) == ("Welch t", 3, 5)
        assert rows[alpha]["p_value"] == pytest.approx(expected.pvalue, rel=1e-9)
        assert rows[alpha]["effect"] == "Hedges' g"


def test_each_data_set_has_its_own_reference(sweep: Path, command: Command, write: Any) -> None:
    write([0.5, 0.6, 0.7], method="baseline", dataset="mnist")
    write([0.6, 0.71, 0.79], alpha=1.0, dataset="mnist")
    write([0.6, 0.71, 0.79], alpha=1.0, dataset="kmnist")
    code, out, _ = command(comparisons.main, sweep)
    assert code == 0
    rows = {(row["dataset"], row["alpha"]): row for row in table(sweep / "analysis")}
    assert rows["mnist", 1.0]["difference"] == pytest.approx(0.1)
    assert rows["digits", 1.0]["difference"] == pytest.approx(0.03)
    assert rows["kmnist", 1.0]["verdict"] == "not testable: no trial of the reference has dataset kmnist (but digits)"
    # without it in --by, data sets would be mixed
    code, out, err = command(comparisons.main, sweep, "--by", "alpha")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "mixes 3 values of dataset" in err or "mixes 2 values of dataset" in err


def test_the_reference_agrees_in_training(sweep: Path, command: Command, write: Any) -> None:
    write([0.99, 0.98, 0.99], alpha=1.0, epochs=50)
    config = {"data": {"train_images": 100}, "method": {"alpha": 7.0}, "seed": 0}
    write([0.5, 0.6, 0.7], alpha=7.0, config=json.dumps(config), seeds=[5, 6, 7])
    whole = {"data": {"train_images": None}, "method": {"name": "baseline"}, "seed": 0}
    code, _, _ = command(comparisons.main, sweep)
    assert code == 0
    rows = {(row["alpha"], row["epochs"]): row for row in table(sweep / "analysis")}
    assert rows[1.0, 50]["reason"] == "no trial of the reference has epochs 50 (but 2)"
    # what only the configuration says counts where both say it
    assert rows[7.0, 2]["test"] == "Welch t"
    write([0.8, 0.8], method="baseline", batch_size=64, config=json.dumps(whole))
    write([0.5, 0.6], alpha=8.0, batch_size=64, config=json.dumps(config))
    assert command(comparisons.main, sweep)[0] == 0
    (row,) = [row for row in table(sweep / "analysis") if row["alpha"] == 8.0]
    assert row["reason"] == "no trial of the reference has train_images 100 (but none)"
    # asked for by name, another training is compared with
    assert command(comparisons.main, sweep, "--baseline", "method=baseline epochs=2 batch_size=128")[0] == 0
    rows = {(row["alpha"], row["epochs"]): row for row in table(sweep / "analysis") if row["batch_size"] == 128}
    assert rows[1.0, 50]["n"] == 3


def test_a_weight_decay_that_both_have_has_to_agree(tmp_path: Path, command: Command, write: Any) -> None:
    for weight_decay, shift in ((0.0, 0.0), (5e-4, 0.1)):
        write([0.5 + shift, 0.6 + shift], method="baseline", weight_decay=weight_decay)
        write([0.51 + shift, 0.63 + shift], alpha=1.0, weight_decay=weight_decay)
    assert command(comparisons.main, tmp_path / "demo")[0] == 0
    rows = table(tmp_path / "demo" / "analysis")
    assert [row["weight_decay"] for row in rows] == [0.0, 5e-4]
    assert [row["difference"] for row in rows] == pytest.approx([0.02, 0.02])
    # pooled, the setting has two trials of each seed
    code, _, err = command(comparisons.main, tmp_path / "demo", "--by", "alpha")
    assert code == 2
    assert "add weight_decay to --by" in err


def test_two_references_of_one_seed(sweep: Path, command: Command, write: Any) -> None:
    write(BASELINE, method="baseline", weight_decay=5e-4)
    code, _, err = command(comparisons.main, sweep)
    assert (code, err.count("\n")) == (2, 1)
    assert 'differ in weight_decay; choose one setting with --baseline "method=baseline weight_decay=…"' in err
    assert command(comparisons.main, sweep, "--baseline", "method=baseline weight_decay=5e-4")[0] == 0


def test_trials_that_only_their_configuration_tells_apart(sweep: Path, command: Command, write: Any) -> None:
    write([0.9], alpha=1.0, config='{"alpha": 2.0}')
    code, _, err = command(comparisons.main, sweep)
    assert (code, err.count("\n")) == (2, 1)
    assert "both have seed 0 and differ in what no column of the trials table says" in err
    write([0.9], alpha=33.0, config='{"data": {"zoom": true}}')
    write([0.9], alpha=33.0, config='{"data": {"zoom": false}}', seeds=[1])
    code, _, err = command(comparisons.main, sweep, "--by", "alpha")
    assert code == 2


def test_nothing_testable_is_no_error(tmp_path: Path, command: Command, write: Any) -> None:
    write([0.9], method="baseline")
    write([0.8], alpha=1.0)
    write([0.7], alpha=10.0)
    code, out, err = command(comparisons.main, tmp_path / "demo")
    assert (code, err) == (0, "")
    assert out.count("not testable: one seed") == 2
    assert "Tests:" not in out
    assert (tmp_path / "demo" / "analysis" / "comparisons.png").exists()


def test_settings_without_any_value_are_shown(sweep: Path, command: Command, write: Any) -> None:
    write([None, None], alpha=1000.0, status="failed", error="boom")
    assert command(comparisons.main, sweep)[0] == 0
    row = table(sweep / "analysis")[-1]
    assert (row["verdict"], row["n"], row["failed"]) == ("not testable: 2 trials failed", 0, 2)
    assert (row["mean"], row["difference"]) == (None, None)


def test_many_settings_are_cut_to_those_with_the_smallest_p(tmp_path: Path, command: Command, write: Any) -> None:
    draw = np.random.default_rng(0)
    write(BASELINE[:3], method="baseline")
    for alpha in range(1, 61):
        write(list(draw.normal(0.9, 0.02, 3)), alpha=float(alpha))
    code, out, _ = command(comparisons.main, tmp_path / "demo")
    assert code == 0
    assert "Shown are the 40 settings with the smallest p of 60; the Parquet file has all." in out
    rows = table(tmp_path / "demo" / "analysis")
    smallest = sorted(sorted(rows, key=lambda row: row["p_value"])[:40], key=lambda row: row["alpha"])
    assert len(rows) == 60
    assert re.findall(r"^\| (alpha=\d+) ", out, re.MULTILINE) == [row["setting"] for row in smallest]
    assert (
        "the 40 settings with the smallest p of 60" in (tmp_path / "demo" / "analysis" / "comparisons.svg").read_text()
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--metric", "accuracy"], "no such metric; there are top1"),
        (["--metric", "top5"], "no trial"),
        (["--by", "colour"], "no such column; there are trial_id"),
        (["--by", "method"], "both have seed 0 and differ in alpha; add alpha to --by"),
        (["--baseline", "alpha"], "--baseline alpha: allowed are column=value"),
        (["--baseline", "alpha="], "--baseline alpha=: allowed are column=value"),
        (["--baseline", ""], "--baseline: empty"),
        (["--baseline", "colour=red"], "--baseline colour: no such column"),
        (["--baseline", "alpha=strong"], "alpha is a number; there are none, 1, 10, 100"),
        (["--baseline", "alpha=1 alpha=10"], "alpha is given twice"),
        (["--baseline", "alpha=3"], "no trial has that; there are alpha none, 1, 10, 100"),
        (["--baseline", "alpha=1 variant=target"], "there are alpha none, 1, 10, 100; variant none, curvature"),
        (
            ["--baseline", "variant=curvature"],
            "matches several settings, that differ in alpha; add alpha= with one of 1, 10",
        ),
        (["--baseline", "dataset=digits"], "nothing to compare with it"),
        (["--alternative", "larger"], "--alternative"),
        (["--adjust", "bonferroni"], "--adjust"),
        (["--unknown"], "--unknown"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(sweep: Path, command: Command, argv: list[str], message: str) -> None:
    code, out, err = command(comparisons.main, sweep, *argv)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
    assert not (sweep / "analysis").exists()


@pytest.mark.parametrize(
    ("trials", "message"),
    [
        ([{"top1": 0.9}], "no unregularised trial (method baseline) to compare with"),
        ([{"top1": 0.9, "method": "baseline"}], "nothing to compare with it"),
        ([{"top1": None, "status": "failed"}, {"top1": None, "status": "failed"}], "all 2 trials failed"),
        ([{"top1": None}, {"top1": None, "method": "baseline"}], "--metric top1: no trial"),
        ([{"top1": 0.9, "epochs": 3}, {"top1": 0.9, "method": "baseline"}], "no setting has a reference"),
        ([{"top1": math.inf}, {"top1": 0.9, "method": "baseline"}], "top1 is inf; allowed are numbers up to 1e+150"),
    ],
)
def test_sweeps_with_nothing_to_compare(
    tmp_path: Path, record: Record, command: Command, trials: list[dict[str, Any]], message: str
) -> None:
    for number, columns in enumerate(trials):
        record(tmp_path / "demo", f"{number:03}", **columns)
    code, out, err = command(comparisons.main, tmp_path / "demo")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_missing_sweep_and_an_unwritable_place(tmp_path: Path, sweep: Path, command: Command) -> None:
    code, _, err = command(comparisons.main, tmp_path / "none")
    assert (code, err.count("\n")) == (2, 1)
    (tmp_path / "file").write_text("")
    code, _, err = command(comparisons.main, sweep, "--out", tmp_path / "file")
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be written" in err
