from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from analysis import records, tipping_points
from analysis.tipping_points import paper_threshold

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
    # alpha < 1e5 averages (0.9 + 0.9 + 0.9 + 0.9 + 0.4) / 5 = 0.8; the dip at 1e4 lies below the limit, and 1e5 counts
    scores = [0.9, 0.9, 0.9, 0.9, 0.4, 0.65, 0.63, 0.1]
    assert paper_threshold(DECADES, scores, reference_below=1e5).strength == 1e6
    scores[5] = 0.63
    assert paper_threshold(DECADES, scores, reference_below=1e5).strength == 1e5
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
    files = [sweep / "analysis" / f"tipping_points.{kind}" for kind in ("parquet", "png", "svg", "pdf")]
    lines = out.splitlines()
    assert lines[-4:] == [str(file) for file in files]
    assert "1 trial failed: left out" in lines
    assert "1 trial with alpha 0: left out, a log axis has no place for it" in lines
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    assert "none in range" in rows["curvature"]
    assert rows["target"].split("|")[-2].strip() == "10"
    assert pq.read_table(files[0]).to_pylist() == [
        {
            "variant": variant,
            "metric": "top1",
            "strength": "alpha",
            "share": 0.8,
            "reference_below": 10.0,
            "reference": 0.9,
            "threshold": threshold,
            "n": 6,
        }
        for variant, threshold in (("curvature", None), ("target", 10.0))
    ]
    source = f"record {records.content_hash(str(sweep))}"
    assert source in files[1].read_bytes().decode("latin-1")
    assert source in files[2].read_text()
    # text in a PDF of matplotlib is either plain or UTF-16
    pdf = files[3].read_bytes()
    assert source.encode() in pdf or source.encode("utf-16-be") in pdf
    assert "2 seeds" in files[2].read_text()


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
        (["--metric", "accuracy"], "no such metric; there are top1, top5, loss"),
        (["--metric", "loss"], "more is better; there are top1, top5"),
        (["--strength", "variant"], "no such strength; there are alpha, "),
        (["--strength", "gamma"], "no finished trial with gamma"),
        (["--by", "colour"], "no such column; there are trial_id"),
        (["--by", "alpha"], "is the strength itself"),
        (["--by", "trial_id"], "choose others with --by"),
        (["--metric", "top5"], "no finished trial with alpha and top5"),
        (["--share", "1.5"], "--share 1.5"),
        (["--reference-below", "0.5"], "reference_below: 0.5"),
        (["--reference-below", "nan"], "--reference-below nan"),
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
    assert out.count("width=") == 5
