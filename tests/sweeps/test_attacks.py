"""Robust accuracy in a sweep and afterwards: the same numbers, with how they came about."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from analysis.command_line import InputError, run
from analysis.paper import _Ours
from analysis.records import read_sweep
from sweeps.gradient_reg import GradientSweep
from trainables.metrics.__main__ import Flags, main, measure_afterwards

SCRIPT = str(Path(__file__).parents[2] / "sweeps" / "gradient_reg.py")
SMALL = [
    *("--preset", "digits", "--alpha", "1", "--seeds", "1", "--train-images", "200", "--epochs", "1", "--width", "4"),
    *("--keep-models", "--measure", "attacks", "--attacks", "fgsm", "pgd", "square", "--epsilon", "8/255", "1/255"),
    *("--attack-steps", "2", "5", "--attack-queries", "4", "--attack-images", "30", "--step-size", "eps/30"),
]
COMPONENTS = ("fgsm", "pgd2", "pgd5", "square4")
METRICS = ("robust_accuracy", "robust_accuracy_correct", "zero_gradient_share")
KEY = ("trial_id", "metric", "component", "level")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> str:
    storage = tmp_path_factory.mktemp("attacks")
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    command = [sys.executable, SCRIPT, "--storage", str(storage), *SMALL]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    # with several ε each has its line
    assert "pgd5@0.0313725" in done.stdout
    assert "pgd5@0.00392157" in done.stdout
    return str(storage / "gradient_reg")


def by_key(sweep: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    return {tuple(row[name] for name in KEY): row for row in read_sweep(sweep).measurements.to_pylist()}


@pytest.mark.long  # test_maps_and_shift goes the same way in CI
@pytest.mark.ray
class TestSweep:
    def test_the_record(self, sweep: str) -> None:
        rows = by_key(sweep)
        trials = read_sweep(sweep).trials.to_pylist()
        assert {trial["method"] for trial in trials} == {"baseline", "gradient_reg"}
        assert rows.keys() == {
            (trial["trial_id"], metric, component, epsilon)
            for trial in trials
            for metric in METRICS
            for component in COMPONENTS
            if metric != "zero_gradient_share" or component != "square4"
            for epsilon in (1 / 255, 8 / 255)
        }
        assert {(row["n"], row["epoch"], row["unit"]) for row in rows.values()} == {(30, 1, "fraction")}
        for (trial, metric, *rest), row in rows.items():
            if metric == "robust_accuracy_correct":
                assert row["value"] <= rows[trial, "robust_accuracy", *rest]["value"]

    def test_how_the_numbers_came_about_is_recorded(self, sweep: str) -> None:
        for trial in read_sweep(sweep).trials.to_pylist():
            assert json.loads(trial["measured"])["attacks"] == {
                "attacks": ["fgsm", "pgd", "square"],
                "epsilon": ["8/255", "1/255"],
                "steps": [2, 5],
                "step_size": "eps/30",
                "restarts": 1,
                "queries": 4,
                "images": 30,
                "seed": 0,
            }

    def test_the_papers_names_find_them(self, sweep: str) -> None:
        ((quantity, scale, shift, unlike),) = _Ours(read_sweep(sweep)).quantity("robust_accuracy:fgsm@0.00392")
        assert (quantity.level, scale, shift, unlike) == (1 / 255, 1.0, 0.0, "")

    def test_measured_afterwards_as_during_the_sweep(self, sweep: str, tmp_path: Path) -> None:
        """The same options give the same numbers; other options replace them, and are recorded."""
        copy = str(tmp_path / "copy")
        shutil.copytree(sweep, copy)
        same: dict[str, Any] = {
            "attacks": ("fgsm", "pgd", "square"), "epsilon": ("8/255", "1/255"), "attack_steps": (2, 5),
            "attack_queries": 4, "attack_images": 30, "step_size": "eps/30", "device": "cpu",
        }  # fmt: skip
        assert measure_afterwards(Flags(sweep=copy, metrics=("attacks",), **same)) == 2
        left, right = by_key(sweep), by_key(copy)
        assert left == right
        other: dict[str, Any] = {**same, "attacks": ("apgd",), "epsilon": ("0.1",), "attack_restarts": 2}
        assert measure_afterwards(Flags(sweep=copy, metrics=("attacks",), **other)) == 2
        assert {key[1:] for key in by_key(copy)} == {
            (metric, f"apgd{steps}", 0.1) for metric in METRICS for steps in (2, 5)
        }
        measured = json.loads(read_sweep(copy).trials["measured"][0].as_py())["attacks"]
        assert (measured["attacks"], measured["epsilon"], measured["restarts"]) == (["apgd"], ["0.1"], 2)

    def test_bad_input_is_one_line_and_exit_2(
        self, sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["trainables.metrics", sweep, "--metrics", "attacks", "--epsilon", "8/255", "2"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stop:
            run(main)
        assert stop.value.code == 2
        assert capsys.readouterr().err == "error: --epsilon: '2', allowed are numbers and fractions in [0, 1]\n"


def test_refused_by_a_sweep() -> None:
    for options, named in (
        ({"attacks": ("deepfool",)}, "attacks"),
        ({"epsilon": ("8/x",)}, "epsilon"),
        ({"attack_steps": (0,)}, "attack_steps: 0"),
        ({"step_size": "big"}, "step_size"),
    ):
        with pytest.raises(InputError, match=named):
            GradientSweep(measure=("attacks",), **options).metrics()
