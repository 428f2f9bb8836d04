"""Cross-validation in the analysis: what repeats a setting is a fold and a seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.command_line import InputError
from analysis.comparisons import comparisons, main
from analysis.correlations import correlations
from analysis.groups import replicate, replicates
from analysis.paper import _configuration
from analysis.records import Sweep, read_sweep, write_trial
from analysis.report import report
from analysis.tipping_points import tipping_points
from tests.analysis.conftest import make_trial

Record = Callable[..., bool]

RUNS = [(0, 0), (0, 1), (1, 0), (1, 1)]
BASELINE = [0.50, 0.52, 0.70, 0.72]
ABOVE = [0.01, 0.02, 0.03, 0.02]


def configuration(**data: int) -> str:
    return json.dumps({"data": data, "method": {"name": "pilcro"}, "seed": 0})


@pytest.fixture
def sweep(tmp_path: Path, record: Record) -> Sweep:
    """A baseline and a setting on two folds with two seeds each; ids in an order that is not theirs."""
    for index, (fold, seed) in enumerate(RUNS):
        run = {"fold": fold, "seed": seed, "config": configuration(folds=2, fold=fold)}
        score = BASELINE[index]
        record(tmp_path / "s", f"a{index}", top1=score, method="baseline", alpha=None, variant=None, **run)
        record(tmp_path / "s", f"b{9 - index}", top1=score + ABOVE[index], **run)
    return read_sweep(str(tmp_path / "s"))


def test_runs_of_one_fold_and_seed_are_pairs(sweep: Sweep) -> None:
    """By hand: the differences have mean 0.02 and deviation √(2 · 0.01² / 3), so t = √24 with 3 degrees of freedom,
    whose distribution function is elementary: p = 1 − (2/π)(θ + sin θ cos θ), θ = arctan √8, is 0.01628."""
    (tested,) = comparisons(sweep).tested
    found = tested.comparison
    assert (found.test, found.n, found.n_reference) == ("paired t", 4, 4)
    assert found.difference == pytest.approx(0.02)
    assert found.p_value == pytest.approx(0.016277, abs=1e-6)
    # t(3) at 97.5% is 3.182446
    assert found.low == pytest.approx(0.02 - 3.182446 * (2 / 3) ** 0.5 * 0.01 / 2, abs=1e-8)


def test_equal_folds_and_seeds_are_two_settings(sweep: Sweep, record: Record) -> None:
    record(sweep.path, "c", fold=1, seed=1, top1=0.1, config=configuration(folds=2, fold=1))
    with pytest.raises(InputError, match="both have seed 1 and fold 1"):
        comparisons(read_sweep(str(sweep.path)))


def test_another_number_of_folds_is_not_pooled(sweep: Sweep, record: Record) -> None:
    for fold, data in ((7, {"folds": 9, "fold": 7}), (None, {})):
        record(sweep.path, "c", fold=fold, seed=5, top1=0.6, config=configuration(**data))
        found = comparisons(read_sweep(str(sweep.path)))
        assert "data.folds" in found.by
        assert sorted(len(row.group.trials) for row in found.tested) == [1, 4]
        with pytest.raises(InputError, match=r"mixes 2 values of data\.folds \("):
            comparisons(read_sweep(str(sweep.path)), by=("method",))
        (Path(sweep.path) / "trials" / "c.parquet").unlink()


def test_repetitions_in_words(sweep: Sweep) -> None:
    rows = sweep.trials.to_pylist()
    assert replicates(rows) == "2 folds × 2 seeds"
    assert replicates([{**row, "fold": None} for row in rows]) == "2 seeds"
    assert sorted({replicate(row) for row in rows}) == RUNS
    assert replicate({"fold": None, "seed": 3}) == (3,)


def test_the_paper_has_one_setting_for_all_folds(sweep: Sweep) -> None:
    assert len({_configuration(row) for row in sweep.trials.to_pylist()}) == 1


def test_tipping_points_resample_runs(tmp_path: Path, record: Record) -> None:
    """Numbers of a curve are those of as many seeds as there are runs."""
    for name in ("folds", "seeds"):
        for index, (fold, seed) in enumerate(RUNS):
            for strength in range(8):
                score = (0.9 if strength < 5 else 0.2) + 0.01 * ((3 * index + strength) % 4)
                run = {"fold": fold, "seed": seed} if name == "folds" else {"seed": index}
                record(tmp_path / name, f"{index}{strength}", top1=score, alpha=10.0**strength, **run)
    fits = []
    for name in ("folds", "seeds"):
        (curve,) = tipping_points(read_sweep(str(tmp_path / name))).curves
        fits.append(curve.fit)
    assert fits[0] is not None
    assert fits[0].seeds == 4
    assert fits[0] == fits[1]


@pytest.mark.parametrize("folds", [1, 2])
def test_images_of_different_folds_are_not_the_same_images(tmp_path: Path, folds: int) -> None:
    """An interval over images is of images that all models have explained."""
    for index in range(8):
        trial, epochs, _, maps = make_trial(
            f"{index}", fold=index % folds, seed=index, alpha=10.0**index, variant=None, top1=0.9
        )
        row = {"epoch": 2, "component": "gradient", "n": 16, "direction": "max", "value": 0.1 * index**2}
        single = [
            {**row, "metric": "faithfulness_per_image", "level": float(i), "value": index + 0.1 * ((i * index) % 7)}
            for i in range(16)
        ]
        write_trial(str(tmp_path / "s"), trial, epochs, [{**row, "metric": "faithfulness"}, *single], maps)
    (test,) = correlations(read_sweep(str(tmp_path / "s")), metrics=["faithfulness:gradient"], until="all").tests
    assert test.rho.rho == pytest.approx(1.0)
    assert (test.images[0] == test.images[0]) == (folds == 1)  # nan is not equal to itself


def test_the_report_says_so(sweep: Sweep) -> None:
    page = report(sweep)
    assert "2 folds × 2 seeds" in page
    assert "1, fold 0" in page
    assert "Nadeau" in page


def test_the_commands_say_so(sweep: Sweep, command: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = command(main, sweep.path)
    assert (code, err) == (0, "")
    assert "runs, 2 folds × 2 seeds" in " ".join(out.split())
