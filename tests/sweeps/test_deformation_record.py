"""The record of a sweep over deformation stability: what it has, what the figures make of it, and measuring again."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from analysis import paper
from analysis.command_line import InputError
from analysis.paper.figures import FIGURES, missing
from analysis.records import read_sweep
from sweeps.deformation import PRESETS, DeformationSweep
from sweeps.flags import read_flags
from sweeps.plan import make_plan
from tests.trainables.test_tasks import small_mnist
from trainables.data import load_each
from trainables.metrics.__main__ import Flags, measure_afterwards
from trainables.trainable import Trial, TrialOptions

SMALL = (
    *("--width", "2", "--epochs", "3", "--measure-every", "1", "--deformation-images", "20", "--keep-models"),
    *("--seeds", "2", "--sigma", "0", "--downsampling", "max-pool"),
)


def trained(folder: Path, dataset: str, root: str, *argv: str) -> str:
    """Trials without Ray, and their record."""
    flags = read_flags(DeformationSweep, PRESETS, [*SMALL, *argv], "")
    plan = make_plan(flags)
    sweep = folder / "s"
    options = TrialOptions(str(sweep), "s", flags.metrics(), 0.0, True, True, 1, 1.0, 0.0, None, None, "0")
    data = load_each(dataset, root, list(dict.fromkeys(trial.config.data for trial in plan.trials)))
    for trial in plan.trials:
        actor = Trial.__new__(Trial)
        actor.setup({"trial": trial.payload()}, data={dataset: data}, options=options)
        while actor.step()["status"] is None:
            pass
    record = read_sweep(str(sweep))
    assert {row["status"] for row in record.trials.to_pylist()} == {"completed"}
    return str(sweep)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_mnist(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, root: str) -> str:
    argv = ("--preset", "mnist-tasks", "--data-root", root, "--deformation-strength", "1", "3")
    sizes = ("--task-images", "10", "--task-tests", "5")
    return trained(tmp_path_factory.mktemp("tasks"), "mnist-tasks", root, *argv, *sizes)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    argv = ("--labels", "real", "random", "--train-images", "100")
    return trained(tmp_path_factory.mktemp("digits"), "digits", "unused", *argv)


def drawable(sweep: str) -> set[str]:
    record = read_sweep(sweep)
    return {name for name in FIGURES if name.startswith("deform") and not missing(record, name)}


def test_tasks_have_every_figure_but_that_of_random_labels(
    tasks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert drawable(tasks) == {"deform-3", "deform-4", "deform-5", "deform-6", "deform-t"}
    monkeypatch.setattr(sys, "argv", ["paper", tasks, "--out", str(tmp_path)])
    paper.main()
    assert "no figure" not in capsys.readouterr().out
    # the paper's number at initialisation is found in the record, and so is its trend over C
    lines = pq.read_table(tmp_path / "deform-5.parquet").to_pylist()
    (trend,) = (line for line in lines if line["paper"] == "filter_total_variation falls with deformation_strength")
    assert trend["n"] == 4
    assert -1 <= trend["ours"] <= 1
    assert "dataset" not in trend["why"]
    numbers = [line for line in lines if line["paper"] == "1.87"]
    assert [line["ours"] for line in numbers] == [pytest.approx(1.87, abs=0.1)] * 2
    assert {path.stem.split("-")[1] for path in tmp_path.glob("deform-*.png")} == {"3", "4", "5", "6", "t"}


def test_labels_have_every_figure_but_that_of_tasks(
    digits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drawable(digits) == {"deform-3", "deform-4", "deform-6", "deform-7", "deform-t"}
    monkeypatch.setattr(sys, "argv", ["paper", digits, "--out", str(tmp_path)])
    paper.main()
    assert {path.stem.split("-")[1] for path in tmp_path.glob("deform-*.png")} == {"3", "4", "6", "7", "t"}


def test_measured_again_by_the_same_options_is_the_same(tasks: str, root: str, tmp_path: Path) -> None:
    sweep = str(shutil.copytree(tasks, tmp_path / "s"))
    before = read_sweep(sweep)
    metrics = ("deformation_sensitivity", "filter_smoothness")
    measure_afterwards(Flags(sweep=sweep, metrics=metrics, data_root=root, deformation_images=20))
    after = read_sweep(sweep)
    names = ["trial_id", "epoch", "metric", "component"]

    def values(record: object) -> dict[tuple[object, ...], float]:
        rows = record.measurements.to_pylist()  # type: ignore[attr-defined]
        return {tuple(row[name] for name in names): row["value"] for row in rows}

    assert values(after).keys() == values(before).keys()
    assert values(after) == pytest.approx(values(before), rel=1e-5)
    # how often it was measured while it trained is still told
    assert after.trials["measured"].to_pylist() == before.trials["measured"].to_pylist()


def test_other_options_than_along_the_epochs_are_refused(tasks: str, root: str, tmp_path: Path) -> None:
    """One row by another deformation than the others would be a wrong number in every figure along the epochs."""
    sweep = str(shutil.copytree(tasks, tmp_path / "s"))
    files = {path: path.read_bytes() for path in Path(sweep).rglob("*") if path.is_file()}
    same = {"sweep": sweep, "metrics": ("deformation_sensitivity",), "data_root": root}
    with pytest.raises(InputError, match="deformation_sensitivity was measured before the end of the training with"):
        measure_afterwards(Flags(**same, deformation_images=20, deformation_grid=4))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="measure_every: 2, allowed is 0"):
        measure_afterwards(Flags(**same, deformation_images=20, measure_every=2))  # type: ignore[arg-type]
    assert files == {path: path.read_bytes() for path in Path(sweep).rglob("*") if path.is_file()}


def test_tasks_networks_on_another_data_set(tasks: str, root: str, tmp_path: Path) -> None:
    """Its own images, as they are: no tasks are made of them, and none is deformed but by the metric."""
    sweep = str(shutil.copytree(tasks, tmp_path / "s"))
    measure_afterwards(
        Flags(sweep=sweep, metrics=("deformation_sensitivity",), dataset="mnist", data_root=root, deformation_grid=4)
    )
    rows = [row for row in read_sweep(sweep).measurements.to_pylist() if row["component"] == "input on mnist"]
    assert len(rows) == 4
    # the 10 test images that there are, and the same for both strengths of the tasks
    assert {row["n"] for row in rows} == {10}
    assert len({row["value"] for row in rows}) == 1
