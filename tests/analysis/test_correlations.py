"""Spearman's ρ and its permutation p-value against scipy, by enumeration by hand, and their properties."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from analysis import correlations, records
from analysis.answer import answers
from analysis.correlation_table import panels
from analysis.correlations import pearson, rho_over_images, spearman_permutation, spearman_permutations
from analysis.multiplicity import adjust
from analysis.rank_correlation import _midranks, by_strength, crossed, permutations_for
from analysis.records import write_trial
from tests.analysis.conftest import make_trial

Record = Callable[..., bool]
Command = Callable[..., tuple[int, str, str]]


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


def test_several_metrics_share_the_permutations() -> None:
    """Each as by itself with an equal generator; a constant one has none and disturbs no other."""
    draw = np.random.default_rng(8)
    x, metrics = draw.normal(size=20), draw.normal(size=(3, 20))
    metrics[1] = 4.0
    found = spearman_permutations(x, metrics, rng=np.random.default_rng(1))
    assert found[0] == spearman_permutation(x, metrics[0], rng=np.random.default_rng(1))
    assert found[2] == spearman_permutation(x, metrics[2], rng=np.random.default_rng(1))
    assert math.isnan(found[1].rho)


def test_orders_within_blocks_by_hand() -> None:
    """Two seeds of three strengths, each rising: of 6 · 6 orders within seeds one is as far up: p = 2/36, whatever the
    seeds differ in. Over all six trials ρ is that of ranks 1 3 5 and 2 4 6 over midranks: 1 of 90 arrangements."""
    x, seed = [1, 2, 3, 1, 2, 3], [0, 0, 0, 1, 1, 1]
    apart = spearman_permutation(x, [1, 2, 3, 101, 102, 103], within=seed)
    assert apart.p_value == pytest.approx(2 / 36)
    assert apart.rho == pytest.approx(stats.spearmanr(x, [1, 2, 3, 101, 102, 103]).statistic)
    assert spearman_permutation(x, [1, 2, 3, 101, 102, 103]).p_value > 0.1
    # one block is all orders
    draw = np.random.default_rng(11)
    y = draw.normal(size=12)
    everything = spearman_permutation(np.arange(12), y, within=np.zeros(12), rng=np.random.default_rng(0))
    assert everything == spearman_permutation(np.arange(12), y, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="within: shape"):
        spearman_permutation(x, x, within=[0, 1])


def test_random_orders_within_blocks_agree_with_all_of_them() -> None:
    """Two blocks of six: 720² orders counted by scipy's enumeration of one block's, convolved, against 9999 drawn."""
    draw = np.random.default_rng(12)
    x, seed = np.tile(np.arange(6.0), 2), np.repeat([0, 1], 6)
    y = 0.3 * x + draw.normal(size=12)
    ranks = stats.rankdata(y)
    orders = np.array(list(itertools.permutations(range(6))))
    sums = [np.sort((x[:6][orders] * ranks[block]).sum(1)) for block in (slice(0, 6), slice(6, 12))]
    total = np.add.outer(*sums).ravel()
    seen = float((x * ranks).sum())
    exact = 2 * min((total >= seen - 1e-9).mean(), (total <= seen + 1e-9).mean())
    found = spearman_permutation(x, y, within=seed, rng=np.random.default_rng(0))
    assert found.p_value == pytest.approx(exact, abs=4 * 2 * math.sqrt(exact / 2 / 9999) + 2e-4)


def test_within_seed_finds_what_seeds_would_hide() -> None:
    """Eight strengths, five seeds that differ by twice the noise: the power triples, the level stays .05 (200 sweeps:
    a standard error of .035 of a power, .015 of the level)."""
    x, seed = np.tile(np.arange(8.0), 5), np.repeat(np.arange(5), 8)

    def significant(slope: float, within: bool, draw: np.random.Generator) -> float:
        p = []
        for _ in range(200):
            y = slope * x / 7 + 2 * draw.normal(size=5)[seed] + draw.normal(size=40)
            blocks = seed if within else None
            p.append(spearman_permutation(x, y, within=blocks, permutations=299, rng=draw).p_value)
        return float(np.mean(np.array(p) <= 0.05))

    draw = np.random.default_rng(13)
    assert significant(1.3, True, draw) > 0.5
    assert significant(1.3, False, draw) < 0.35
    assert significant(0.0, True, draw) < 0.11


def test_permutations_are_enough_for_the_family() -> None:
    """251 tests of |ρ| near 1: 9999 permutations, 2/10⁴ at least, leave Holm's p above .05."""
    assert [permutations_for(n) for n in (1, 25, 26, 251, 10_000)] == [9999, 9999, 10_399, 100_399, 999_999]
    x = np.arange(20.0)
    metrics = x + 0.3 * np.random.default_rng(14).normal(size=(251, 20))
    few = spearman_permutations(x, metrics, rng=np.random.default_rng(0))
    assert min(test.rho for test in few) > 0.97
    assert adjust([test.p_value for test in few]).min() > 0.05
    many = spearman_permutations(x, metrics, permutations=permutations_for(251), rng=np.random.default_rng(0))
    assert adjust([test.p_value for test in many]).max() <= 0.05 / 10 + 1e-12
    # what is no finding after the first 9999 is not drawn on
    noise = np.random.default_rng(15).normal(size=20)
    first, same = (
        spearman_permutation(x, noise, permutations=m, rng=np.random.default_rng(0)) for m in (9999, 100_399)
    )
    assert first == same


def test_the_unit_is_the_strength_where_its_trials_share_an_effect() -> None:
    """A sawtooth over six strengths that every seed has is no noise and no trend; a bent rise is a trend."""
    x, seed = np.tile(np.arange(6.0), 4), np.repeat(np.arange(4), 6)
    draw = np.random.default_rng(16)
    offsets = 3 * draw.normal(size=4)[seed]
    noise = 0.3 * draw.normal(size=24)
    teeth = np.array([0.0, 2.0, 1.0, 3.0, 2.0, 4.0])
    found = by_strength(x, teeth[x.astype(int)] + offsets + noise, seed)
    assert found.share_an_effect
    # every seed has every strength: the means are the plain ones
    assert found.mean == pytest.approx([(teeth[i] + (offsets + noise)[x == i]).mean() for i in range(6)])
    assert not by_strength(x, np.minimum(x, 2.0) + offsets + noise, seed).share_an_effect
    assert not by_strength(x, -np.exp(-x) + offsets + noise, seed).share_an_effect
    assert math.isnan(by_strength(x[:6], noise[:6]).p_value)  # one trial a strength: not to be told
    level = [by_strength(x, offsets + draw.normal(size=24), seed).share_an_effect for _ in range(300)]
    assert np.mean(level) < 0.1
    # a trial less: least squares take out the seed that it was of
    less = by_strength(x[1:], (teeth[x.astype(int)] + offsets)[1:], seed[1:])
    assert np.diff(less.mean) == pytest.approx(np.diff(teeth), abs=1e-6)


def test_crossed() -> None:
    assert crossed([1, 2, 1, 2], [0, 0, 1, 1])
    assert not crossed([1, 1, 2, 2], [0, 1, 2, 3])
    assert crossed([1, 2, 1, 2, 1], [0, 0, 1, 1, 2])  # one seed with a trial left


def test_ranks_are_scipys() -> None:
    """With ties, along the last axis."""
    draw = np.random.default_rng(0)
    for values in (draw.normal(size=9), draw.integers(0, 4, (5, 12)).astype(float), np.zeros((2, 3))):
        assert (_midranks(values) == stats.rankdata(values, axis=-1)).all()


def test_pearson_is_scipys() -> None:
    draw = np.random.default_rng(9)
    x, y = draw.normal(size=(2, 12))
    expected = stats.pearsonr(x, y)
    interval = expected.confidence_interval(0.95)
    assert pearson(x, y) == pytest.approx((expected.statistic, interval.low, interval.high, expected.pvalue))
    tiny = stats.pearsonr(x, y + 30 * x).pvalue
    assert tiny < 1e-10
    assert pearson(1e140 * x, y + 30 * x).p_value == pytest.approx(tiny)
    assert math.isnan(pearson([1, 2, 3], [1, 3, 2]).low)  # Fisher's z has variance 1/(n − 3)
    assert all(math.isnan(value) for value in pearson([1, 2, 3], [1, 1, 1]))


def test_the_interval_over_images_by_a_loop() -> None:
    """The vectorised bootstrap against one written out: the quantiles of two of 999 differ by their own error."""
    draw = np.random.default_rng(10)
    x = np.arange(12.0)
    values = 0.1 * x[:, None] + draw.normal(size=(12, 30))
    values[3, 5] = math.nan
    low, high = rho_over_images(x, values, rng=np.random.default_rng(0))
    rho = []
    for _ in range(2000):
        chosen = draw.integers(0, 30, 30)
        rho.append(stats.spearmanr(x, np.nanmean(values[:, chosen], axis=1)).statistic)
    # the quantiles' standard errors are about 0.01 here
    assert (low, high) == pytest.approx(np.quantile(rho, [0.025, 0.975]), abs=0.05)
    # no image in common with another: every model the same, no interval
    assert math.isnan(rho_over_images(x, np.full((12, 3), math.nan), rng=np.random.default_rng(0))[0])


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """20 strengths; accuracy collapses at the 13th (index 12); faithfulness rises, a Lipschitz estimate falls."""
    draw = np.random.default_rng(0)
    for index in range(20):
        collapsed = index >= 12
        trial, epochs, _, maps = make_trial(
            f"{index:02}",
            method="gradient_reg",
            variant=None,
            alpha=10.0 ** (index / 2),
            top1=0.1 if collapsed else 0.9,
        )
        images = (0.1 if collapsed else 0.05 * index) + 0.05 * draw.normal(size=16)
        measured = [
            {"metric": "faithfulness", "component": "gradient", "value": images.mean(), "std": images.std(ddof=1)},
            {"metric": "local_lipschitz", "component": "gradient", "value": 1.0 / (1 + index), "direction": "min"},
            {"metric": "constant", "component": "", "value": 1.0},
        ]
        measured = [{"epoch": 2, "n": 16, "direction": "max", **row} for row in measured]
        single = {"epoch": 2, "metric": "faithfulness_per_image", "component": "gradient", "n": 1}
        measured += [{**single, "level": float(i), "value": v} for i, v in enumerate(images)]
        write_trial(str(tmp_path / "demo"), trial, epochs, measured, maps)
    return tmp_path / "demo"


def test_the_command(sweep: Path, command: Command) -> None:
    code, out, err = command(correlations.main, sweep)
    assert (code, err) == (0, "")
    rows = {row["metric"]: row for row in pq.read_table(sweep / "analysis" / "correlations.parquet").to_pylist()}
    assert sorted(rows) == ["constant", "faithfulness", "local_lipschitz"]
    # the paper's rule: the mean falls at index 12, and a model at the threshold is kept
    assert {(row["kept"], row["dropped"], row["missing"]) for row in rows.values()} == {(13, 7, 0)}
    assert rows["faithfulness"]["limit"] == pytest.approx(1e6)
    assert rows["local_lipschitz"]["rho"] == pytest.approx(-1.0)
    assert rows["local_lipschitz"]["p_value"] == pytest.approx(2 / 10_000)
    # two tests: Holm doubles the smaller p
    assert rows["local_lipschitz"]["p_adjusted"] == pytest.approx(4 / 10_000)
    assert rows["constant"]["rho"] is None
    assert rows["constant"]["reason"] == "the same value for every model"
    assert "not testable" in out
    trials = records.read_sweep(str(sweep)).measurements.to_pylist()
    value = {row["trial_id"]: row["value"] for row in trials if row["metric"] == "faithfulness"}
    expected = stats.spearmanr(range(13), [value[f"{i:02}"] for i in range(13)]).statistic
    row = rows["faithfulness"]
    assert row["rho"] == pytest.approx(expected, abs=1e-12)
    assert row["rho_low"] - 1e-9 <= row["rho"] <= row["rho_high"] + 1e-9
    line = stats.pearsonr([i / 2 for i in range(13)], [value[f"{i:02}"] for i in range(13)])
    assert (row["r"], row["r_p_value"]) == pytest.approx((line.statistic, line.pvalue))
    written = [str(sweep / "analysis" / f"correlations.{kind}") for kind in ("parquet", "png", "svg", "pdf")]
    assert out.splitlines()[-4:] == written


def test_seeds_that_differ_and_coefficients_of_the_method(tmp_path: Path, command: Command) -> None:
    """Three seeds of five γ far apart; η of a layer was set by the sweep, and a sawtooth is common to all seeds."""
    for seed, (index, gamma) in itertools.product(range(3), enumerate((0.1, 0.2, 0.4, 0.8, 1.6))):
        columns = {"method": "loco_reg", "variant": "fixed", "alpha": None, "gamma": gamma, "seed": seed, "top1": 0.9}
        trial, epochs, _, maps = make_trial(f"{seed}-{index}", **columns)
        values = {
            ("eta", "0"): gamma,
            ("locality", "c-n"): 10 * seed + index + 0.1 * ((7 * seed + 3 * index) % 5),
            ("sawtooth", ""): 10 * seed + (0.0, 2.0, 1.0, 3.0, 2.0)[index] + 0.01 * ((5 * seed + 2 * index) % 7),
        }
        measured = [
            {"epoch": 2, "metric": metric, "component": component, "value": value, "direction": "none"}
            for (metric, component), value in values.items()
        ]
        if (seed, index) == (2, 4):
            measured[1]["value"] = math.inf
        write_trial(str(tmp_path / "demo"), trial, epochs, measured, maps)
    code, out, err = command(correlations.main, tmp_path / "demo", "--strength", "gamma")
    assert (code, err) == (0, "")
    rows = {row["metric"]: row for row in pq.read_table(tmp_path / "demo/analysis/correlations.parquet").to_pylist()}
    assert sorted(rows) == ["locality", "sawtooth"]
    assert "eta: coefficients of the method itself, which strength sets: no tests" in out.splitlines()
    assert (rows["locality"]["unit"], rows["locality"]["within_seed"]) == ("trial", True)
    assert (rows["locality"]["kept"], rows["locality"]["missing"]) == (14, 1)
    assert rows["locality"]["p_value"] < 0.001  # over all trials of so different seeds it is .1 or so
    assert "locality (c-n): 1 model without a finite value left out" in out
    # of the five means all 120 orders are enumerated: p = 2 · b/120
    sawtooth = rows["sawtooth"]
    assert (sawtooth["unit"], sawtooth["within_seed"], sawtooth["kept"]) == ("strength", False, 15)
    assert sawtooth["p_value"] > 0.05
    assert sawtooth["p_value"] * 60 == pytest.approx(round(sawtooth["p_value"] * 60))
    assert "the unit is γ, with the mean of its trials" in out
    code, _, err = command(correlations.main, tmp_path / "demo", "--strength", "gamma", "--metrics", "eta:0")
    assert code == 2
    assert "a coefficient of the method itself: no test" in err


def test_where_smaller_is_stronger_the_large_ones_count(tmp_path: Path, command: Command) -> None:
    """k of Top-GAP: accuracy falls towards small k, and the models from the tipping point on upwards are kept."""
    for seed, index in itertools.product(range(2), range(8)):
        columns = {"method": "top_gap", "variant": None, "alpha": None, "pixels": 2**index, "seed": seed}
        trial, epochs, _, maps = make_trial(f"{seed}-{index}", **columns, top1=0.1 if index < 3 else 0.9)
        row = {"epoch": 2, "metric": "erf", "component": "", "value": float(index + seed), "direction": "max"}
        write_trial(str(tmp_path / "demo"), trial, epochs, [row], maps)
    code, _, err = command(correlations.main, tmp_path / "demo", "--strength", "pixels")
    assert (code, err) == (0, "")
    (row,) = pq.read_table(tmp_path / "demo/analysis/correlations.parquet").to_pylist()
    # by the paper's rule the first that has fallen, k = 4, counts
    assert (row["limit"], row["kept"], row["dropped"]) == (4.0, 12, 4)
    assert row["rho"] > 0.9
    code, _, _ = command(correlations.main, tmp_path / "demo", "--strength", "pixels", "--stronger", "larger")
    assert code == 0
    (row,) = pq.read_table(tmp_path / "demo/analysis/correlations.parquet").to_pylist()
    assert row["kept"] == 16


@pytest.mark.parametrize(
    ("argv", "kept"),
    [(["--until", "all"], 20), (["--until", "t80"], 12), (["--until", "paper", "--share", "0.05"], 20)],
)
def test_the_models_that_count(sweep: Path, command: Command, argv: list[str], kept: int) -> None:
    code, _, _ = command(correlations.main, sweep, "--metrics", "local_lipschitz:gradient", *argv)
    assert code == 0
    (row,) = pq.read_table(sweep / "analysis" / "correlations.parquet").to_pylist()
    assert (row["kept"], row["dropped"]) == (kept, 20 - kept)


def test_benjamini_and_hochberg(sweep: Path, command: Command) -> None:
    names = ("local_lipschitz:gradient", "top1", "loss")
    code, _, err = command(correlations.main, sweep, "--metrics", *names, "--adjust", "bh")
    assert code == 2
    assert "no trial of" in err  # the loss is not in this record
    code, _, _ = command(correlations.main, sweep, "--metrics", *names[:2], "--adjust", "bh", "--until", "all")
    assert code == 0
    rows = pq.read_table(sweep / "analysis" / "correlations.parquet").to_pylist()
    # p of 2 and 4 in 10,000: Benjamini and Hochberg double the smaller and leave the larger, Holm would not
    p = sorted(row["p_value"] for row in rows)
    assert sorted(row["p_adjusted"] for row in rows) == pytest.approx([min(2 * p[0], p[1]), p[1]])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--metrics", "nonsense"], "no such metric; there are top1, constant, faithfulness:gradient"),
        (["--strength", "gamma"], "no finished trial with gamma above 0"),
        (["--strength", "method"], "no such strength"),
        (["--by", "colour"], "no such column"),
        (["--until", "never"], "--until"),
        (["--metrics", "constant"], "the same value for every model"),
        (["--share", "2"], "--share: 2.0"),
        (["--seed", "-1"], "--seed: -1"),
    ],
)  # fmt: skip
def test_bad_input(sweep: Path, command: Command, argv: list[str], message: str) -> None:
    code, out, err = command(correlations.main, sweep, *argv)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (sweep / "analysis").exists()


@pytest.mark.parametrize(
    ("trials", "message"),
    [
        ([{"alpha": 1.0}], "1 of 3 models needed"),
        ([{"alpha": 1.0, "seed": seed} for seed in range(4)], "one alpha only: sweep more"),
        ([{"alpha": a, "status": "failed", "top1": None} for a in (1.0, 2.0, 3.0)], "all 3 trials failed"),
        ([{"method": "baseline", "alpha": None}], "no finished trial with alpha above 0"),
    ],
)
def test_records_without_a_correlation(
    tmp_path: Path, record: Record, command: Command, trials: list[dict[str, Any]], message: str
) -> None:
    for index, columns in enumerate(trials):
        record(tmp_path / "demo", f"{index:02}", **columns)
    code, out, err = command(correlations.main, tmp_path / "demo")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_setting_has_one_name_where_only_it_is_tested(tmp_path: Path, record: Record) -> None:
    """What the other method has and it has not is no part of its name, in the figure and in the answer."""
    pilcro: dict[str, Any] = {"method": "pilcro", "variant": "curvature", "convention": None}
    gradient: dict[str, Any] = {"method": "gradient_reg", "variant": None, "convention": "image"}
    for index, alpha in enumerate((1.0, 10.0, 100.0, 1000.0)):
        record(tmp_path / "demo", f"p{index}", alpha=alpha, top1=0.9, total_variation=1 / alpha, **pilcro)
        record(tmp_path / "demo", f"g{index}", alpha=alpha, top1=0.9, total_variation=0.5, **gradient)
    result = correlations.correlations(tmp_path / "demo", metrics="total_variation", until="all")
    assert [panel.title for panel in panels(result, testable=True)] == ["TV, PILCRO"]
    assert {one.name for one in answers(tmp_path / "demo")} == {"PILCRO", "input-gradient regularisation"}
