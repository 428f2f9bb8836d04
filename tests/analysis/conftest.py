from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from analysis.command_line import run
from analysis.records import write_trial

Rows = tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]


def make_trial(trial_id: str, **columns: Any) -> Rows:
    """The four tables' rows of a small trial, some columns left out."""
    trial = {
        "trial_id": trial_id,
        "sweep": "demo",
        "method": "pilcro",
        "dataset": "digits",
        "model": "resnet8",
        "width": 16,
        "seed": 0,
        "epochs": 2,
        "batch_size": 128,
        "learning_rate": 0.1,
        "optimizer": "sgd",
        "crop": 0,
        "precision": "float32",
        "alpha": 1.0,
        "variant": "curvature",
        "config": '{"alpha": 1.0}',
        "status": "completed",
        "top1": 0.9,
        "git_dirty": True,
        "started_at": datetime(2026, 11, 1, 12, 30, 0, 123456, tzinfo=UTC),
        **columns,
    }
    epochs = [{"epoch": 1, "top1": 0.5, "train_loss": 1.5}, {"epoch": 2, "top1": 0.9, "train_loss": None}]
    measurements = [{"epoch": 0, "metric": "total_variation", "component": "", "value": 1.25, "direction": "min"}]
    maps = [{"epoch": 2, "name": trial_id, "height": 2, "width": 3, "values": [0.0, 1.0, 2.0, 3.0, 4.0, 0.5]}]
    return trial, epochs, measurements, maps


@pytest.fixture
def record() -> Callable[..., bool]:
    """Writes a small trial: `record(sweep, trial_id, **columns of trials)`."""

    def write(sweep: object, trial_id: str, **columns: Any) -> bool:
        return write_trial(str(sweep), *make_trial(trial_id, **columns))

    return write


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command's `main` as its script does: exit code, standard output, standard error."""

    def call(main: Callable[[], None], *argv: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, argv)])
        capsys.readouterr()
        code = 0
        try:
            run(main)
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes trials of a sweep: `write({"metric:component": 0.5}, alpha=…, seed=…, **columns)`; the sweep's folder."""
    number = 0

    def add(measured: Mapping[str, float] | None = None, **columns: Any) -> Path:
        nonlocal number
        number += 1
        trial, epochs, _, maps = make_trial(f"{number:03}", **columns)
        rows = []
        for name, value in (measured or {}).items():
            metric, _, component = name.partition(":")
            rows.append({"epoch": 2, "metric": metric, "component": component, "value": value, "direction": "max"})
            rows[-1] |= {"unit": "fraction", "n": 128, "std": 0.1}
        write_trial(str(tmp_path / "demo"), trial, epochs, rows, maps)
        return tmp_path / "demo"

    return add
