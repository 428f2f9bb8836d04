"""Receptive fields, class activation maps, masks and shift in a sweep and afterwards: the same numbers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from analysis.command_line import InputError
from analysis.records import read_sweep
from tests.sweeps.driving import ONE_BY_ONE
from trainables.data import identify
from trainables.metrics.__main__ import Flags, measure_afterwards

SCRIPT = str(Path(__file__).parents[2] / "sweeps" / "gradient_reg.py")
METRICS = ("erf", "cam", "iou", "parameters")
SMALL = [
    *("--alpha", "1", "--seeds", "1", "--epochs", "1", "--model", "resnet8", "--width", "4", "--keep-models"),
    *("--measure", *METRICS, "--erf-images", "5"),
]
KEY = ("trial_id", "metric", "component", "level")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets of squares, bright in one class and dark in the other; the first with masks."""
    top = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for place, number in (("home", 30), ("away", 7)):
        for name, grey in (("bright", 255), ("dark", 100)):
            for index in range(number):
                image = np.zeros((16, 16), dtype=np.uint8)
                row, column = draw.integers(0, 10, 2)
                image[row : row + 6, column : column + 6] = grey
                for path in (top / place / name / f"{index}.png", top / "home" / "masks" / name / f"{index}.png"):
                    if place == "home" or "masks" not in path.parts:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        Image.fromarray(image).save(path)
    return top


@pytest.fixture(scope="module")
def sweep(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    storage = tmp_path_factory.mktemp("maps")
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    data = ["--dataset", f"folder:{folder}/home", "--shift", f"folder:{folder}/away"]
    command = [sys.executable, SCRIPT, "--storage", str(storage), *SMALL, *ONE_BY_ONE, *data]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "iou at threshold" not in done.stdout
    return str(storage / "gradient_reg")


def by_key(sweep: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    return {tuple(row[name] for name in KEY): row for row in read_sweep(sweep).measurements.to_pylist()}


@pytest.mark.ray
class TestSweep:
    def test_the_record(self, sweep: str, folder: Path) -> None:
        read = read_sweep(sweep)
        trials = read.trials.to_pylist()
        assert {trial["status"] for trial in trials} == {"completed"}
        rows = by_key(sweep)
        for trial in trials:
            own = {key[1:]: row for key, row in rows.items() if key[0] == trial["trial_id"]}
            assert {(metric, component) for metric, component, _ in own} == {
                *(("erf", "centre"), ("erf", "corner"), ("erf_distance", ""), ("cam_sparsity", "")),
                *(("iou", ""), ("iou_at_threshold", ""), ("iou_threshold", "")),
                *(("parameters", ""), ("shift_accuracy", "away")),
            }
            assert own["shift_accuracy", "away", None]["n"] == 14
            assert own["erf_distance", "", None]["n"] == 5
            measured = json.loads(trial["measured"])
            assert measured["shift"] == {"sets": [identify(f"folder:{folder}/away", "unused")]}
            assert str(folder) not in trial["measured"] + trial["config"]
        names = set(read.maps["name"].to_pylist())
        assert {"erf/centre", "erf/corner"} < names
        assert len([name for name in names if name.startswith("cam/")]) == 2
        assert str(folder) not in (Path(sweep) / "sweep.json").read_text()

    def test_afterwards_the_same_numbers(self, sweep: str, folder: Path, tmp_path: Path) -> None:
        copy = str(tmp_path / "copy")
        shutil.copytree(sweep, copy)
        data = {"dataset": f"folder:{folder}/home", "shift": (f"folder:{folder}/away",)}
        flags = Flags(sweep=copy, metrics=METRICS, erf_images=5, device="cpu", **data)  # type: ignore[arg-type]
        assert measure_afterwards(flags) == 2
        before, after = by_key(sweep), by_key(copy)
        assert before.keys() == after.keys()
        for key, row in before.items():
            assert after[key]["value"] == pytest.approx(row["value"], rel=1e-5), key
            assert after[key]["n"] == row["n"]

    def test_afterwards_what_does_not_match_or_has_no_masks_is_an_error(
        self, sweep: str, folder: Path, tmp_path: Path
    ) -> None:
        home = f"folder:{folder}/home"
        other = tmp_path / "other"
        for name in ("bright", "dim"):
            shutil.copytree(folder / "away" / "bright", other / name)
        with pytest.raises(InputError, match=f"shift: folder:{other} has dim, which {home} has not, and lacks dark"):
            measure_afterwards(Flags(sweep=sweep, dataset=home, shift=(f"folder:{other}",), device="cpu"))
        away = f"folder:{folder}/away"
        with pytest.raises(InputError, match=f"dataset: 3 of 3 test images of {away} have no mask"):
            measure_afterwards(Flags(sweep=sweep, dataset=away, metrics=("iou",), device="cpu"))
