"""Settings and quantities of a record, worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.command_line import InputError
from analysis.groups import (
    check_pure,
    count,
    differing,
    evenly,
    find_quantity,
    grouped,
    label,
    quantities,
    strengths_of,
    values_of,
)
from analysis.records import read_sweep, write_trial
from analysis.single_images import image_values
from tests.analysis.conftest import make_trial

Record = Callable[..., bool]


def test_words() -> None:
    assert label({"variant": "target", "alpha": 1e7, "interval": None}) == "target, alpha=1e+07, no interval"
    assert label({}) == "all trials"
    assert label({"fpn": True, "pixels": 8}) == "fpn=True, pixels=8"
    assert len({label({"fpn": value}) for value in (True, False, None)}) == 3
    assert (count(1, "seed"), count(2, "seed")) == ("1 seed", "2 seeds")


def test_settings_differ_in_what_differs(tmp_path: Path, record: Record) -> None:
    record(tmp_path, "a", alpha=1.0, interval=5)
    record(tmp_path, "b", alpha=2.0, interval=10, alpha_per_image=2.0, alpha_pixel=9.0)
    rows = read_sweep(str(tmp_path)).trials.to_pylist()
    assert differing(rows) == ["alpha", "interval"]
    assert differing(rows, "alpha") == ["interval"]
    assert differing(rows, "alpha_per_image") == ["interval"]  # the same strength in other units
    assert differing(rows, "alpha_pixel") == ["interval"]
    assert {"alpha_batch", "alpha_element", "alpha_pixel"} < set(strengths_of(read_sweep(str(tmp_path)).trials))


def test_a_baseline_belongs_to_what_it_agrees_with(tmp_path: Path, record: Record) -> None:
    for name, columns in {
        "a": {"variant": "target", "width": 8},
        "b": {"variant": "curvature", "width": 16},
        "c": {"variant": None, "width": 8, "method": "baseline"},
    }.items():
        record(tmp_path, name, **columns)
    rows = {row["trial_id"]: row for row in read_sweep(str(tmp_path)).trials.to_pylist()}
    groups = grouped([rows["a"], rows["b"]], ["width", "variant"], [rows["c"]])
    found = [(group.label(), len(group.baseline)) for group in groups]
    assert found == [("width=8, target", 1), ("width=16, curvature", 0)]
    with pytest.raises(InputError, match="mixes 2 values of width"):
        check_pure(grouped([rows["a"], rows["b"]], []), [])


def test_an_even_choice() -> None:
    assert evenly(list(range(10)), 4) == [0, 3, 6, 9]
    assert evenly(list(range(3)), 12) == [0, 1, 2]
    assert evenly([], 3) == []


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    rows: list[dict[str, Any]] = [
        {"epoch": 0, "metric": "smoothness", "component": "layer1", "value": 9.0, "direction": "min"},
        {"epoch": 1, "metric": "smoothness", "component": "layer1", "value": 1.0, "direction": "min"},
        {"epoch": 2, "metric": "smoothness", "component": "layer1", "value": 2.0, "std": 0.5, "n": 4},
        {"epoch": 2, "metric": "robust", "component": "pgd", "level": 20.0, "value": 0.5, "direction": "max"},
        {"epoch": 2, "metric": "robust", "component": "pgd", "level": 50.0, "value": 0.4, "direction": "max"},
        {"epoch": 2, "metric": "faith", "component": "", "level": 784.0, "value": 0.1, "direction": "max"},
        {"epoch": 2, "metric": "faith_per_image", "component": "", "level": 7.0, "value": 0.2, "n": 1},
        {"epoch": 2, "metric": "faith_per_image", "component": "", "level": 3.0, "value": 0.0, "n": 1},
        {"epoch": 0, "metric": "at_start", "component": "", "value": 0.1, "direction": "max"},
    ]
    rows[2]["direction"] = "min"
    for name, status in (("a", "completed"), ("b", "failed")):
        trial, epochs, _, maps = make_trial(name, status=status, top1=0.9 if status == "completed" else None)
        write_trial(str(tmp_path), trial, epochs, rows, maps)
    return tmp_path


def test_quantities(measured: Path) -> None:
    """Trained values of aggregates; a level that does not tell two apart is not in the name."""
    sweep = read_sweep(str(measured))
    assert list(quantities(sweep)) == ["top1", "faith", "robust:pgd@20", "robust:pgd@50", "smoothness:layer1"]
    # the last epoch counts, failed trials do not
    value = values_of(sweep, find_quantity("--metric", "smoothness:layer1", sweep))
    assert {trial: (one.value, one.std, one.n) for trial, one in value.items()} == {"a": (2.0, 0.5, 4)}
    assert values_of(sweep, find_quantity("--metric", "robust:pgd@50", sweep))["a"].value == 0.4
    images = image_values(sweep, find_quantity("--metric", "faith", sweep))
    assert images is not None
    found = images.of(["a"])
    assert found is not None
    assert found.tolist() == [[0.0, 0.2]]  # by the images' numbers, 3 and 7
    assert images.of(["a", "c"]) is None
    assert image_values(sweep, find_quantity("--metric", "robust:pgd@20", sweep)) is None
    assert not math.isnan(found.sum())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("accuracy", "--metric accuracy: no such metric; there are top1, faith"),
        ("top5", "--metric top5: no trial of"),
        ("train_seconds", "neither more nor less of it is better"),
        ("robust:pgd", "no such metric"),
        ("at_start", "no such metric"),
    ],
)
def test_unknown_quantities(measured: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_quantity("--metric", name, read_sweep(str(measured)))
