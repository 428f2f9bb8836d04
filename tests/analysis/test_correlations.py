"""Spearman's ρ and its permutation p-value against scipy, by enumeration by hand, and their properties."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from analysis import correlations, records
from analysis.correlations import pearson, rho_over_images, spearman_permutation, spearman_permutations
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


def test_pearson_is_scipys() -> None:
    draw = np.random.default_rng(9)
    x, y = draw.normal(size=(2, 12))
    expected = stats.pearsonr(x, y)
    interval = expected.confidence_interval(0.95)
    assert pearson(x, y) == pytest.approx((expected.statistic, interval.low, interval.high, expected.pvalue))
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
