"""What a search makes large or small: names, directions, and the values of trials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.command_line import InputError
from analysis.groups import find_quantity, values_of
from analysis.objectives import Objective, objective_of, row_of, rows_of
from analysis.records import compact, read_sweep, write_trial
from analysis.search import search
from analysis.study import searched, study_of

MEASURED = ("landscape", "attacks", "entropy", "paths")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("top1", Objective("top1", "max")),
        ("loss", Objective("loss", "min")),
        ("validation_loss", Objective("validation_loss", "min")),
        ("validation_top1:max", Objective("validation_top1", "max")),
        ("total_variation:min", Objective("total_variation", "min")),
        ("train_seconds:min", Objective("train_seconds", "min")),
        ("robust_accuracy:pgd@0.1:max", Objective("robust_accuracy:pgd@0.1", "max")),
        ("entropy:max", Objective("entropy", "max")),
    ],
)
def test_objectives(text: str, found: Objective) -> None:
    assert objective_of(text, MEASURED) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("accuracy", "objective: accuracy, allowed are validation_top1, "),
        ("alpha", "objective: alpha, allowed are "),
        ("loss:max", "objective: loss:max, allowed is loss:min"),
        ("iou:max", "objective: iou, allowed with --measure iou: it is not measured"),
        ("entropy", "objective: entropy, allowed are entropy:max and entropy:min"),
        ("entropy@x:min", "objective: entropy@x, allowed after @ is a number"),
        ("", "objective: , allowed are "),
        ("importance_landscape:max", "objective: importance_landscape (a map), allowed are validation_top1, "),
        ("importance_landscape:nope:max", "objective: importance_landscape:nope (a map), allowed are "),
        ("initial_landscape:max", "objective: initial_landscape (a map), allowed are "),
        ("saliency_mean:min", "objective: saliency_mean (a map), allowed are "),
        ("path_importance_correlation:max", "objective: path_importance_correlation (a measurement of the network bef"),
        ("total_variation:sideways", "objective: total_variation:sideways, allowed is total_variation: it is a single"),
        ("total_variation:sideways:max", "objective: total_variation:sideways:max, allowed is total_variation: "),
        ("total_variation@1", "objective: total_variation@1, allowed is total_variation: "),
    ],
)
def test_what_is_none(text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        objective_of(text, MEASURED)
    assert str(error.value).startswith(said)
    advice = str(error.value).partition("allowed are ")[2]
    assert not {"importance_landscape", "initial_landscape", "path_importance_correlation"} & {*advice.split(", ")}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    def attacked(component: str, level: float, value: float, epoch: int = 2) -> dict[str, object]:
        row = {"epoch": epoch, "metric": "robust_accuracy", "component": component, "level": level, "value": value}
        return {**row, "direction": "max", "unit": "fraction"}

    for number, alpha in enumerate((1.0, 10.0)):
        trial = {"trial_id": f"t{number}", "status": "completed", "method": "pilcro", "dataset": "digits", "seed": 0}
        write_trial(
            str(tmp_path),
            {**trial, "alpha": alpha, "epochs": 2, "top1": 0.9 - number / 10, "train_seconds": 5.0 + number},
            [{"epoch": 2, "top1": 0.8 + number / 10, "loss": 0.5}, {"epoch": 1, "top1": 0.3, "loss": 2.0}],
            [
                attacked("fgsm", 0.1, 0.7),
                attacked("pgd", 0.1, 0.6 - number / 10),
                attacked("pgd", 0.1, 0.2, epoch=1),
                attacked("pgd", 0.2, 0.5),
                {"epoch": 2, "metric": "entropy", "component": "gradient", "value": 3.0, "direction": "min"},
                {"epoch": 2, "metric": "entropy_per_image", "component": "gradient", "level": 0.0, "value": 9.0},
            ],
            [],
        )
    write_trial(str(tmp_path), {"trial_id": "t2", "status": "failed", "error": "oom"}, [], [], [])
    return tmp_path


COLUMNS = ("status", "top1", "validation_top1", "validation_loss", "robust_accuracy:pgd@0.1", "entropy")


@pytest.mark.parametrize("compacted", [False, True])
def test_values_are_those_of_the_last_epoch(sweep: Path, compacted: bool) -> None:
    if compacted:
        compact(str(sweep))
    rows = {row["trial_id"]: [row[name] for name in COLUMNS] for row in rows_of(str(sweep), COLUMNS)}
    assert rows["t0"] == ["completed", 0.9, 0.8, 0.5, 0.6, 3.0]
    assert rows["t1"] == ["completed", pytest.approx(0.8), 0.9, 0.5, 0.5, 3.0]
    assert rows["t2"] == ["failed", None, None, None, None, None]
    for name, values in rows.items():
        one = row_of(str(sweep), name, COLUMNS)
        if compacted:
            assert one is None
        else:
            assert one is not None
            assert [one[column] for column in COLUMNS] == values


def test_a_measurement_of_which_there_are_several_is_refused(sweep: Path) -> None:
    for name in ("robust_accuracy", "robust_accuracy:pgd", "robust_accuracy:square"):
        with pytest.raises(InputError) as error:
            rows_of(str(sweep), ["status", name])
        there = "robust_accuracy:fgsm@0.1, robust_accuracy:pgd@0.1, robust_accuracy:pgd@0.2"
        assert str(error.value) == f"objective: {name}, allowed is one of {there}, which are recorded"


def test_what_is_advised_is_accepted(tmp_path: Path) -> None:
    """A level is written with six digits; without a component the mean over the layers is meant."""
    row = {"epoch": 1, "metric": "robust_accuracy", "component": "fgsm"}
    layers = [
        {"epoch": 1, "metric": "smooth", "component": name, "value": value} for name, value in (("", 1.0), ("a", 2.0))
    ]
    own = [{**row, "level": 8 / 255, "value": 0.5}, {**row, "level": 4 / 255, "value": 0.7}, *layers]
    write_trial(str(tmp_path), {"trial_id": "t", "status": "completed"}, [], own, [])
    with pytest.raises(InputError, match=r"allowed is one of robust_accuracy:fgsm@0.0313725, "):
        rows_of(str(tmp_path), ["robust_accuracy"])
    (found,) = rows_of(str(tmp_path), ["robust_accuracy:fgsm@0.0313725", "smooth", "smooth:a"])
    assert [found[name] for name in ("robust_accuracy:fgsm@0.0313725", "smooth", "smooth:a")] == [0.5, 1.0, 2.0]


def test_the_analysis_knows_them_by_the_same_names(sweep: Path) -> None:
    record = read_sweep(sweep)
    found = values_of(record, find_quantity("--metric", "validation_top1", record))
    assert {trial: value.value for trial, value in found.items()} == {"t0": 0.8, "t1": 0.9}
    objectives = searched(record, ["validation_top1", "robust_accuracy:pgd@0.1:max", "train_seconds:min"])
    assert [one.direction for one in objectives] == ["max", "max", "min"]
    (task,) = search(record, objectives)
    assert [(one.configuration.means, one.place) for one in task.found] == [
        ([0.9, 0.5, 6.0], 1),
        ([0.8, 0.6, 5.0], 1),
    ]
    study = study_of(record, metrics=["validation_loss", "train_seconds:max"])
    assert [way.name for way in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    with pytest.raises(InputError, match=r"^--metric top1:min: allowed is top1:max"):
        searched(record, "top1:min")


def test_a_record_without_validation_has_no_such_quantity(record: Callable[..., bool], tmp_path: Path) -> None:
    write_trial(str(tmp_path), {"trial_id": "a", "status": "completed", "top1": 0.5, "seed": 0}, [], [], [])
    with pytest.raises(InputError, match=r"^--metric validation_top1: no such metric; there are top1"):
        searched(read_sweep(tmp_path), "validation_top1")
