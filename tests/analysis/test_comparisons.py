"""The settings of a sweep against their reference: the command."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from analysis import comparisons, records
from analysis.comparisons import seeds_needed

Record = Callable[..., bool]
Command = Callable[..., tuple[int, str, str]]


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
