from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from analysis import correlations, records, tipping_points
from analysis.paper_rule import papers_limit
from analysis.records import write_trial
from analysis.schema import stronger
from analysis.tipping_points import paper_threshold
from tests.analysis.conftest import make_trial

Record = Callable[..., bool]
Command = Callable[..., tuple[int, str, str]]

# eight strengths: the lowest quarter is 1 and 10, so the reference limit is 100
DECADES = [10.0**k for k in range(8)]


def test_threshold_by_hand() -> None:
    # reference (0.9 + 0.7) / 2 = 0.8, level 0.64: 1e4 is the first below
    result = paper_threshold(DECADES, [0.9, 0.7, 0.8, 0.65, 0.6, 0.7, 0.2, 0.1])
    assert result.strength == 1e4
    assert result.reference == pytest.approx(0.8)
    assert (result.reference_below, result.share, result.n, result.n_reference, result.n_zero) == (100, 0.8, 8, 2, 0)


def test_the_papers_own_parameters() -> None:
    # alpha < 1e5 averages (0.9 + 0.9 + 0.9 + 0.9 + 0.4) / 5 = 0.8, the level is 0.64; the dip at 1e4 lies below the
    # limit, and 1e5 itself is neither below nor above it
    scores = [0.9, 0.9, 0.9, 0.9, 0.4, 0.1, 0.65, 0.1]
    assert paper_threshold(DECADES, scores, reference_below=1e5).strength == 1e7
    scores[6] = 0.63
    assert paper_threshold(DECADES, scores, reference_below=1e5).strength == 1e6
    assert paper_threshold(DECADES, scores, reference_below=1e5, share=0.5).strength == 1e7


@pytest.mark.parametrize(
    ("reference", "scores"),
    [
        ([1.0], [0.8]),
        # equal on paper, though 0.8 × 0.7 and the mean of these three differ by rounding
        ([0.7], [0.56]),
        ([0.7], [0.46, 0.56, 0.66]),
        ([0.1, 0.2, 0.3], [0.16]),
    ],
)
def test_a_mean_at_the_level_is_not_below_it(reference: list[float], scores: list[float]) -> None:
    strength = [1.0] * len(reference) + [2.0] * len(scores)
    assert math.isnan(paper_threshold(strength, reference + scores).strength)
    lower = reference + [score - 1e-6 for score in scores]
    assert paper_threshold(strength, lower).strength == 2


def test_the_mean_over_seeds_decides_and_not_a_seed() -> None:
    # level 0.72: at 10 one of three seeds lies far below, the mean is 0.7333; at 100 two lie above, the mean is 0.7
    strength = [1, 1, 1, 10, 10, 10, 100, 100, 100]
    score = [0.9, 0.8, 1.0, 0.95, 0.95, 0.3, 0.9, 0.9, 0.3]
    shuffled = list(zip(strength, score, strict=True))
    random.Random(0).shuffle(shuffled)
    result = paper_threshold([x for x, _ in shuffled], [y for _, y in shuffled])
    assert (result.strength, result.n, result.n_reference) == (100, 9, 3)


def test_reference_weighs_trials_and_not_strengths() -> None:
    # three trials at 1, one at 2: (3 × 0.9 + 0.5) / 4 = 0.8; by strength it would be 0.7, and 0.6 above its level
    strength, score = [1, 1, 1, 2, 3, 4, 5, 6, 7], [0.9, 0.9, 0.9, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6]
    result = paper_threshold(strength, score)
    assert (result.reference_below, result.n_reference, result.strength) == (3, 4, 3)
    assert result.reference == pytest.approx(0.8)


def test_diverged_trials_at_chance_count() -> None:
    # level 0.72; one of two seeds diverged at 10: (0.9 + 0.1) / 2 = 0.5
    assert paper_threshold([1, 1, 10, 10], [0.9, 0.9, 0.9, 0.1]).strength == 10


def test_zero_strengths_are_left_out_and_counted() -> None:
    result = paper_threshold([0, 0, 1, 10], [0.1, 0.1, 0.9, 0.8])
    assert math.isnan(result.strength)
    assert (result.reference, result.n, result.n_zero) == (0.9, 2, 2)


@pytest.mark.parametrize(("distinct", "below"), [(2, 1), (3, 1), (4, 1), (5, 2), (8, 2), (9, 3), (50, 13)])
def test_the_lowest_quarter_rounded_up_is_the_reference(distinct: int, below: int) -> None:
    result = paper_threshold(list(range(1, distinct + 1)), [0.5] * distinct)
    assert (result.n_reference, result.reference_below) == (below, below + 1)
    assert math.isnan(result.strength)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": [], "score": []}, "empty"),
        ({"strength": [1, 2], "score": [0.5]}, "1 values for 2 strengths"),
        ({"strength": [1, 2], "score": [0.5, 0.5], "share": 0.0}, "share"),
        ({"strength": [1, 2], "score": [0.5, 0.5], "share": 1.0}, "share"),
        ({"strength": [1, 2], "score": [0.5, 0.5], "share": math.nan}, "share"),
        ({"strength": [1, 1], "score": [0.5, 0.5]}, "1 distinct"),
        ({"strength": [0, 1], "score": [0.5, 0.5]}, "1 distinct"),
        ({"strength": [-1, 1, 2], "score": [0.5, 0.5, 0.5]}, "strength: -1"),
        ({"strength": [1, math.inf], "score": [0.5, 0.5]}, "strength: inf"),
        ({"strength": [1, 2], "score": [0.5, math.nan]}, "score: nan"),
        ({"strength": [1, 2], "score": [0.5, 0.5], "reference_below": 1}, "reference_below: 1"),
        ({"strength": [1, 2], "score": [0.0, 0.0]}, "reference level 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paper_threshold(**arguments)


@pytest.fixture
def sweep(tmp_path: Path, record: Record) -> Path:
    """Two variants, three strengths, two seeds, a baseline, a failed trial, one with strength zero."""
    number = 0

    def write(**columns: Any) -> None:
        nonlocal number
        number += 1
        record(tmp_path / "demo", f"{number:03}", **columns)

    for seed in (0, 1):
        write(method="baseline", alpha=None, variant=None, seed=seed, top1=0.94 + 0.02 * seed)
        for alpha, curvature, target in ((1.0, 0.9, 0.9), (10.0, 0.8, 0.6), (100.0, 0.75, 0.1)):
            write(alpha=alpha, seed=seed, top1=curvature)
            write(
                alpha=alpha,
                seed=seed,
                top1=target,
                variant="target",
                status="diverged" if target == 0.1 else "completed",
            )
    write(alpha=1000.0, top1=None, status="failed", error="boom")
    write(alpha=0.0, top1=0.95)
    return tmp_path / "demo"


def test_the_command_writes_a_table_and_a_figure(sweep: Path, command: Command) -> None:
    code, out, err = command(tipping_points.main, sweep)
    assert (code, err) == (0, "")
    ends = (".parquet", "_differences.parquet", ".png", ".svg", ".pdf")
    files = [sweep / "analysis" / f"tipping_points{end}" for end in ends]
    lines = out.splitlines()
    assert lines[-5:] == [str(file) for file in files]
    assert "1 trial failed: left out" in lines
    assert "1 trial with alpha 0: left out, a log axis has no place for it" in lines
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    assert "10^1." in rows["curvature"]
    assert rows["target"].split("|")[-2].strip() == "10"
    assert "2 trials diverged: counted with the score recorded" in lines
    curvature, target = pq.read_table(files[0]).to_pylist()
    same = {"metric": "top1", "strength": "alpha", "share": 0.8, "reference_below": 10.0, "reference": 0.9}
    same |= {"n": 6, "strengths": 3, "seeds": 2}
    for row, variant, threshold, diverged in ((curvature, "curvature", None, 0), (target, "target", 10.0, 2)):
        assert {name: row[name] for name in same} == same
        assert (row["variant"], row["threshold"], row["diverged"]) == (variant, threshold, diverged)
    # the baseline's 0.95 is the plateau of so few strengths: 0.75 lies below 0.76
    assert (curvature["status"], curvature["plateau"]) == ("tipping point", pytest.approx(0.95))
    assert (curvature["bracket_low"], curvature["bracket_high"]) == (1.0, 2.0)
    # 0.9, 0.6, 0.1: more than a fifth lie below 0.72, so the plateau is the median of the three highest, 0.6. But that
    # lies below 80% of the baseline's 0.95, which is the plateau then: collapsed are the four trials at 10 and 100,
    # the excess from 10 on is 4, and two baseline trials more stand before: 1 of the C(8, 4) = 70 orders reaches it
    assert target["plateau"] == pytest.approx(0.95)
    assert target["p_value"] == pytest.approx(1 / 70, abs=0.004)
    assert target["status"] == "tipping point"
    assert (target["bracket_low"], target["bracket_high"]) == (0.0, 1.0)
    assert target["low"] <= 0 <= target["log10_strength"] <= 1 <= target["high"]
    assert "plateau taken from the baseline" in target["flags"]
    source = f"record {records.content_hash(str(sweep))}"
    assert source in files[2].read_bytes().decode("latin-1")
    assert source in files[3].read_text()
    # text in a PDF of matplotlib is either plain or UTF-16
    pdf = files[3].read_bytes()
    assert source.encode() in pdf or source.encode("utf-16-be") in pdf
    assert "2 seeds" in files[3].read_text()


def test_the_printed_table_does_not_depend_on_the_terminal(
    sweep: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = []
    for columns in ("40", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        printed.append(command(tipping_points.main, sweep))
    assert printed[0] == printed[1]


def test_the_commands_options(sweep: Path, command: Command, tmp_path: Path) -> None:
    code, out, _ = command(
        tipping_points.main, sweep, "--by", "method", "seed", "--share", "0.9", "--reference-below", "50",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 0
    assert str(tmp_path / "out" / "tipping_points.png") in out
    table = pq.read_table(tmp_path / "out" / "tipping_points.parquet").to_pylist()
    # reference (0.9 + 0.9 + 0.8 + 0.6) / 4 = 0.8, level 0.72, mean at 100 (0.75 + 0.1) / 2
    assert [(row["method"], row["seed"], row["threshold"]) for row in table] == [
        ("pilcro", 0, 100.0),
        ("pilcro", 1, 100.0),
    ]
    assert table[0]["reference"] == pytest.approx(0.8)
    assert not (sweep / "analysis").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--metric", "accuracy"], "no such metric; there are top1"),
        (["--metric", "loss"], "--metric loss: no trial of"),
        (["--strength", "variant"], "no such strength; there are alpha, "),
        (["--strength", "gamma"], "no finished trial with gamma"),
        (["--by", "colour"], "no such column; there are trial_id"),
        (["--by", "alpha"], "is the strength itself"),
        (["--by", "trial_id"], "choose others with --by"),
        (["--metric", "top5"], "--metric top5: no trial of"),
        (["--seed", "-1"], "--seed: -1"),
        (["--share", "1.5"], "--share: 1.5"),
        (["--reference-below", "0.5"], "--reference-below: 0.5"),
        (["--reference-below", "nan"], "--reference-below: nan"),
        (["--unknown"], "--unknown"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(sweep: Path, command: Command, argv: list[str], message: str) -> None:
    code, out, err = command(tipping_points.main, sweep, *argv)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
    assert not (sweep / "analysis").exists()


def test_a_missing_sweep_and_an_unwritable_place(tmp_path: Path, sweep: Path, command: Command) -> None:
    code, _, err = command(tipping_points.main, tmp_path / "none")
    assert (code, err.count("\n")) == (2, 1)
    (tmp_path / "file").write_text("")
    code, _, err = command(tipping_points.main, sweep, "--out", tmp_path / "file")
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be written" in err


def test_a_group_with_one_strength_does_not_hide_the_others(sweep: Path, record: Record, command: Command) -> None:
    record(sweep, "lonely", variant="third", alpha=1.0)
    code, out, err = command(tipping_points.main, sweep)
    assert (code, err) == (0, "")
    assert "needs 2 strengths" in out
    assert [row["n"] for row in pq.read_table(sweep / "analysis" / "tipping_points.parquet").to_pylist()] == [6, 6, 1]


def test_many_groups_get_a_panel_each(tmp_path: Path, record: Record, command: Command) -> None:
    for number, (width, alpha) in enumerate((width, alpha) for width in range(8, 13) for alpha in (1.0, 10.0)):
        record(tmp_path / "demo", f"{number:03}", width=width, alpha=alpha, top1=0.9 / alpha)
    code, out, err = command(tipping_points.main, tmp_path / "demo")
    assert (code, err) == (0, "")
    assert sum(line.startswith("| width ") for line in out.splitlines()) == 5


def _swept(path: Path, record: Record, settings: dict[str, tuple[float, int]], **columns: Any) -> None:
    """Logistic falls from 0.9 to 0.1, 25 strengths of log10 0 to 6; `settings`: variant → (t80, seeds)."""
    for variant, (t80, seeds) in settings.items():
        for seed in range(seeds):
            for index in range(25):
                x = index / 4
                # (0.9 − 0.1) / (0.72 − 0.1) − 1 = 0.290: the curve is at 0.72 a little before its middle
                top1 = 0.1 + 0.8 / (1 + math.exp(4 * (x - t80) + math.log(0.8 / 0.62 - 1)))
                name = f"{variant}-{seed}-{index:02}"
                record(path, name, variant=variant, seed=seed, alpha=10**x, top1=top1, **columns)


def test_groups_and_their_difference(tmp_path: Path, record: Record, command: Command) -> None:
    _swept(tmp_path / "demo", record, {"curvature": (2.0, 3), "target": (4.4, 3)})
    code, out, err = command(tipping_points.main, tmp_path / "demo")
    assert (code, err) == (0, "")
    rows = pq.read_table(tmp_path / "demo" / "analysis" / "tipping_points.parquet").to_pylist()
    assert [row["log10_strength"] for row in rows] == pytest.approx([2.0, 4.4], abs=0.02)
    (row,) = pq.read_table(tmp_path / "demo" / "analysis" / "tipping_points_differences.parquet").to_pylist()
    assert (row["first"], row["second"], row["reason"]) == ("curvature", "target", "")
    assert row["difference"] == pytest.approx(-2.4, abs=0.03)
    # the grid alone allows a bracket's width each way: 0.25 and 0.25
    assert row["high"] - row["low"] >= 0.5 - 1e-9
    assert row["high"] < 0
    assert "the interval leaves out 0" in out
    again = command(tipping_points.main, tmp_path / "demo")
    assert again == (code, out, err)


def test_one_seed_has_no_interval_of_a_difference(tmp_path: Path, record: Record, command: Command) -> None:
    _swept(tmp_path / "demo", record, {"curvature": (2.0, 1), "target": (4.4, 1)})
    code, out, _ = command(tipping_points.main, tmp_path / "demo")
    assert code == 0
    assert "one seed per setting" in out
    (row,) = pq.read_table(tmp_path / "demo" / "analysis" / "tipping_points_differences.parquet").to_pylist()
    assert (row["difference"], row["reason"]) == (None, "one seed: how seeds differ is not known")


def test_that_none_was_found_is_not_that_there_is_none(tmp_path: Path, record: Record) -> None:
    """As the answer says that accuracy seems to hold, or that it is undecided."""
    for index in range(8):
        record(tmp_path / "demo", f"{index}", alpha=10.0**index, top1=0.9 - 0.001 * (index % 3))
    result = tipping_points.tipping_points(tmp_path / "demo")
    assert [curve.fit.status for curve in result.curves if curve.fit] == ["none in range"]
    assert [group.note for group in tipping_points.figure_groups(result)] == ["no tipping point found"]


def test_a_sweep_that_has_tipped_over_before_it_begins(tmp_path: Path, record: Record, command: Command) -> None:
    for index in range(30):
        record(tmp_path / "demo", f"{index:02}", alpha=10.0**index, top1=0.1 + 0.001 * (index % 3))
    code, out, _ = command(tipping_points.main, tmp_path / "demo")
    assert code == 0
    assert "none in range" in out  # nothing tells chance from a plateau here
    record(tmp_path / "demo", "baseline", method="baseline", alpha=None, variant=None, top1=0.9)
    code, out, _ = command(tipping_points.main, tmp_path / "demo")
    assert code == 0
    assert "below range" in out
    (row,) = pq.read_table(tmp_path / "demo" / "analysis" / "tipping_points.parquet").to_pylist()
    # the one trial that has not collapsed comes first in 1 of 31 orders
    assert row["p_value"] == pytest.approx(1 / 31, abs=0.006)


@pytest.mark.parametrize(
    ("trials", "argv", "message"),
    [
        ([{"status": "failed", "error": "boom", "top1": None}], [], "all 1 trial failed (the first: boom)"),
        ([{}], [], "needs 2 strengths, has only alpha = 1: sweep more"),
        ([{"seed": 0}, {"seed": 1}], [], "needs 2 strengths, has only alpha = 1: sweep more"),
        ([{"method": "baseline", "alpha": None}], [], "no finished trial with alpha; the record has 1 finished trial,"),
        ([{"alpha": a, "status": "diverged", "top1": 0.1} for a in (1.0, 2.0)], [], "all 2 trials diverged"),
        ([{"alpha": a, "top1": None} for a in (1.0, 2.0)], [], "no trial of"),
        (
            [{"alpha": a, "dataset": d} for a in (1.0, 2.0) for d in ("digits", "mnist")],
            ["--by", "method"],
            "mixes 2 values of dataset (digits, mnist)",
        ),
    ],
)
def test_records_without_a_curve(
    tmp_path: Path, record: Record, command: Command, trials: list[dict[str, Any]], argv: list[str], message: str
) -> None:
    for index, columns in enumerate(trials):
        record(tmp_path / "demo", f"{index:02}", **columns)
    code, out, err = command(tipping_points.main, tmp_path / "demo", *argv)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_mixed_data_sets_are_told_apart(tmp_path: Path, record: Record, command: Command) -> None:
    for dataset in ("digits", "mnist"):
        for alpha in (1.0, 10.0):
            record(tmp_path / "demo", f"{dataset}-{alpha}", dataset=dataset, alpha=alpha)
    code, out, _ = command(tipping_points.main, tmp_path / "demo")
    assert code == 0
    assert sum(line.startswith(("| digits", "| mnist")) for line in out.splitlines()) == 2


@pytest.mark.parametrize(
    ("column", "which"),
    [("pixels", "smaller"), ("interval", "smaller"), ("gamma", "smaller"), ("alpha", "larger"), ("eta", "larger")]
    + [(name, "larger") for name in ("alpha_per_image", "learning_rate", "method.of_ones_own")],
)
def test_which_strengths_are_stronger(column: str, which: str) -> None:
    assert stronger(column) == which


def test_k_of_top_gap_tips_towards_small_ones(tmp_path: Path, record: Record, command: Command) -> None:
    for seed, index in itertools.product(range(3), range(7)):
        columns = {"method": "top_gap", "variant": None, "alpha": None, "pixels": 4**index, "seed": seed}
        record(tmp_path / "demo", f"{seed}-{index}", **columns, top1=(0.1, 0.3, 0.88, 0.9, 0.9, 0.91, 0.9)[index])
    code, out, err = command(tipping_points.main, tmp_path / "demo", "--strength", "pixels")
    assert (code, err) == (0, "")
    (row,) = pq.read_table(tmp_path / "demo" / "analysis" / "tipping_points.parquet").to_pylist()
    assert (row["status"], row["stronger"]) == ("tipping point", "smaller")
    assert row["plateau"] == 0.9
    assert (row["bracket_low"], row["bracket_high"]) == pytest.approx((math.log10(4), math.log10(16)))
    assert row["low"] <= row["log10_strength"] <= row["high"]
    # the lowest quarter are the largest two: 4096 and 1024
    assert (row["reference_below"], row["threshold"]) == (256.0, 4.0)
    assert "smaller pixels is stronger: the plateau is that of the largest" in out
    assert "of pixels > 256 (of the weakest quarter" in out
    # as of any other strength it has collapsed where it begins
    code, out, _ = command(tipping_points.main, tmp_path / "demo", "--strength", "pixels", "--stronger", "larger")
    assert code == 0
    (row,) = pq.read_table(tmp_path / "demo" / "analysis" / "tipping_points.parquet").to_pylist()
    assert (row["status"], row["stronger"]) == ("none in range", "larger")


def test_a_loss_tips_over_too(tmp_path: Path, record: Record, command: Command) -> None:
    """A loss of .3 that is 1 from 10^4 on; the diverged trial has none."""
    for seed, index in itertools.product(range(3), range(8)):
        loss = 0.3 + 0.01 * seed if index < 4 else 1.0
        diverged = {"status": "diverged", "loss": None} if (seed, index) == (2, 7) else {"loss": loss}
        record(tmp_path / "demo", f"{seed}-{index}", alpha=10.0**index, seed=seed, **diverged)
    code, out, err = command(tipping_points.main, tmp_path / "demo", "--metric", "loss")
    assert (code, err) == (0, "")
    (row,) = pq.read_table(tmp_path / "demo" / "analysis" / "tipping_points.parquet").to_pylist()
    assert (row["status"], row["direction"]) == ("tipping point", "min")
    assert (row["bracket_low"], row["bracket_high"]) == (3.0, 4.0)
    assert row["plateau"] == pytest.approx(0.31)
    assert row["threshold"] == 1e4
    assert "less loss is better: it tips over where it rises to the plateau / 0.8" in out
    assert "1 trial without loss: left out (1 of them diverged, so that the curve is better than the trials)" in out
    assert "paper's rule: mean above that / 0.8 of alpha < 100" in out


def test_a_dip_is_told(tmp_path: Path, record: Record, command: Command) -> None:
    _swept(tmp_path / "demo", record, {"curvature": (4.4, 2)})
    for seed in (0, 1):
        record(tmp_path / "demo", f"dip-{seed}", alpha=10**1.6, seed=seed, top1=0.2)
    code, out, _ = command(tipping_points.main, tmp_path / "demo")
    assert code == 0
    (row,) = pq.read_table(tmp_path / "demo" / "analysis" / "tipping_points.parquet").to_pylist()
    assert row["dips"] == pytest.approx([10**1.6])
    assert "dip at 39.81: below 80% of the plateau in most seeds, though weaker than the tipping point" in out
    assert row["log10_strength"] == pytest.approx(4.4, abs=0.05)


def test_a_measurement_is_a_metric_too(tmp_path: Path, command: Command) -> None:
    for index in range(25):
        trial, epochs, _, maps = make_trial(f"{index:02}", alpha=10.0 ** (index / 4), top1=0.9)
        value = 0.5 if index < 12 else 0.05
        row = {"epoch": 2, "metric": "robust_accuracy", "component": "pgd", "value": value, "direction": "max"}
        measured = [{**row, "level": steps} for steps in (20.0, 50.0)]
        write_trial(str(tmp_path / "demo"), trial, epochs, measured, maps)
    code, _, _ = command(tipping_points.main, tmp_path / "demo", "--metric", "robust_accuracy:pgd@20")
    assert code == 0
    (row,) = pq.read_table(tmp_path / "demo" / "analysis" / "tipping_points.parquet").to_pylist()
    assert row["metric"] == "robust_accuracy:pgd@20"
    assert (row["bracket_low"], row["bracket_high"]) == (2.75, 3.0)
    code, _, err = command(tipping_points.main, tmp_path / "demo", "--metric", "robust_accuracy:pgd")
    assert code == 2
    assert "there are top1, robust_accuracy:pgd@20, robust_accuracy:pgd@50" in err


def test_the_papers_own_limit_is_that_of_its_rule(tmp_path: Path, record: Record, command: Command) -> None:
    """By hand: below 1e5 the mean is (.9 + .9 + .9 + .8)/4 = .875, of which .8 is .7: the first below beyond 1e5 is
    1e7. By the weakest quarter (1e2, 1e3: .9, level .72), it would be 1e6."""
    scores = {1e2: 0.9, 1e3: 0.9, 1e4: 0.9, 3e4: 0.8, 1e6: 0.71, 1e7: 0.5, 1e8: 0.1}
    for alpha, top1 in scores.items():
        columns = {"method": "gradient_reg", "variant": None, "alpha": alpha, "seed": 0}
        record(tmp_path / "demo", f"{alpha:.0f}", **columns, top1=top1, total_variation=top1 / 2)
    code, out, _ = command(tipping_points.main, tmp_path / "demo")
    assert code == 0
    (row,) = pq.read_table(tmp_path / "demo" / "analysis" / "tipping_points.parquet").to_pylist()
    assert (row["reference_below"], row["reference"], row["threshold"]) == pytest.approx((1e5, 0.875, 1e7))
    assert "of alpha < 100000 (the paper's own limit)" in out
    code, out, _ = command(correlations.main, tmp_path / "demo", "--metrics", "total_variation")
    assert code == 0
    assert "up to the paper's threshold (limit 1e+05: 1e+07; a model at it is kept)" in out
    (row,) = pq.read_table(tmp_path / "demo" / "analysis" / "correlations.parquet").to_pylist()
    assert (row["kept"], row["dropped"]) == (6, 1)
    # asked for, another limit is taken: the weakest quarter's
    code, out, _ = command(
        correlations.main, tmp_path / "demo", "--metrics", "total_variation", "--reference-below", "2000"
    )
    assert "(limit 2000: 1e+06; a model at it is kept)" in out


def test_the_papers_limit_is_of_alpha_within_the_sweep_alone() -> None:
    assert papers_limit("gradient_reg", "alpha", [1e2, 1e6]) == 1e5
    assert papers_limit("gradient_reg", "alpha", [1e2, 1e4]) is None
    assert papers_limit("gradient_reg", "alpha_element", [1e2, 1e6]) is None
    assert papers_limit("pilcro", "alpha", [1e2, 1e6]) is None
