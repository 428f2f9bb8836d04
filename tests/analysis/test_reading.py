"""Of a record the columns and rows that are wanted are read, and no more; whatever is read, its files are checked."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from matplotlib.figure import Figure

from analysis import comparisons, correlations, record_file, records, tables, tipping_points
from analysis.by_epoch import recorded_columns, series
from analysis.command_line import InputError
from analysis.figures import curves, render
from analysis.paper import __main__ as paper
from analysis.report import __main__ as report
from analysis.schema import PER_IMAGE, TABLES
from analysis.single_images import image_values

Record = Callable[..., bool]
Command = Callable[..., tuple[int, str, str]]
STRENGTHS, SEEDS, EPOCHS, IMAGES = (1.0, 10.0, 100.0, 1000.0), (0, 1), 7, 5


def write(sweep: Path) -> None:
    """A baseline and four strengths, with epochs, numbers of all images and of single ones, and maps."""
    rng = np.random.default_rng(0)
    for alpha in (None, *STRENGTHS):
        for seed in SEEDS:
            trial = {
                "trial_id": f"{alpha or 0:06.0f}-{seed}",
                "status": "completed",
                "method": "baseline" if alpha is None else "pilcro",
                "dataset": "digits",
                "model": "resnet8",
                "crop": 0,
                "alpha": alpha,
                "seed": seed,
                "epochs": EPOCHS,
                "top1": 0.9 - (0.5 if alpha and alpha > 50 else 0.0) + 0.01 * rng.random(),
                "total_variation": float(rng.random()),
                "config": "{}",
            }
            epochs = [
                {"epoch": epoch, "top1": float(rng.random()), "total_variation": 1.0 if epoch > 2 else None}
                for epoch in range(1, EPOCHS + 1)
            ]
            value = {"epoch": EPOCHS, "component": "gradient", "direction": "max"}
            measured: list[dict[str, Any]] = [{**value, "metric": "faithfulness", "value": float(rng.random())}]
            measured += [
                {**value, "metric": f"faithfulness{PER_IMAGE}", "level": float(image), "value": float(rng.random())}
                for image in range(IMAGES)
            ]
            maps = [
                {"epoch": EPOCHS, "name": name, "height": 2, "width": 2, "values": rng.random(4)}
                for name in ("importance_landscape", "other")
            ]
            records.write_trial(str(sweep), trial, epochs, measured, maps)


@pytest.fixture(params=["single", "compacted", "both"])
def sweep(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write(tmp_path)
    if request.param != "single":
        records.compact(str(tmp_path))
    if request.param == "both":
        # a trial that failed and was run again: its own files count
        rows = records.read_table(str(tmp_path), "trials").to_pylist()
        again = {**next(row for row in rows if row["trial_id"] == "000010-1"), "top1": 0.5}
        path = tmp_path / "trials" / "compacted.parquet"
        table = record_file.decode(path.read_bytes())
        failed = pc.if_else(pc.equal(table["trial_id"], "000010-1"), "failed", table["status"])
        place = table.column_names.index("status")
        path.write_bytes(record_file.encode(table.set_column(place, table.field(place), failed), compacted=True))
        assert records.write_trial(str(tmp_path), again, [{"epoch": 1, "top1": 0.25}], [], [])
    return tmp_path


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a large record is read: files in parts of three rows, tables of files put together by threes."""
    monkeypatch.setattr(tables, "_READ_WHOLE", 0)
    monkeypatch.setattr(tables, "_JOINED_AT_ONCE", 3)
    monkeypatch.setattr(record_file, "_ROWS_AT_ONCE", 3)
    monkeypatch.setattr(record_file, "_READ_AT_ONCE", 100)


def test_in_parts_it_is_the_same(sweep: Path, request: pytest.FixtureRequest) -> None:
    whole = {table: records.read_table(str(sweep), table) for table in TABLES}
    request.getfixturevalue("in_parts")
    for table, content in whole.items():
        assert records.read_table(str(sweep), table).equals(content)
        some = records.read_table(str(sweep), table, where=lambda part: pc.equal(part["trial_id"], "000100-1"))
        assert some.equals(content.filter(pc.equal(content["trial_id"], "000100-1")))
        assert 0 < len(some) < len(content)
        nothing = records.read_table(str(sweep), table, where=lambda part: pc.is_null(part["trial_id"]))
        assert nothing.equals(content.slice(0, 0))
    columns = ["top1", "trial_id"]
    assert records.read_table(str(sweep), "epochs", columns).equals(whole["epochs"].select(columns))
    assert records.scan(str(sweep)).corrupted == {}


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("table", TABLES)
def test_damage_is_found_in_parts_too(tmp_path: Path, table: str) -> None:
    """In any byte, though none of its rows or columns is wanted."""
    write(tmp_path)
    records.compact(str(tmp_path))
    file = tmp_path / table / "compacted.parquet"
    whole = file.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        content = bytearray(whole)
        content[place] ^= 4
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"damaged \((its checksum is of another content|no readable Parquet)"):
            records.read_table(str(tmp_path), table, ["trial_id"], where=lambda part: pc.is_null(part["trial_id"]))
        with pytest.raises(InputError, match=f"{table}/compacted.parquet: damaged"):
            records.scan(str(tmp_path))


def test_what_is_wrong_with_the_question_is_no_damage(sweep: Path) -> None:
    with pytest.raises(KeyError, match="no_such"):
        records.read_table(str(sweep), "epochs", ["epoch"], where=lambda part: pc.equal(part["no_such"], 1))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[set[str] | None, int]]]:
    """For each table what was read of it: the columns (None: all), and how many rows of it were kept."""
    found: dict[str, list[tuple[set[str] | None, int]]] = defaultdict(list)
    read_table = records.read_table

    def watched(sweep: str, table: str, columns: Any = None, **how: Any) -> pa.Table:
        content = read_table(sweep, table, columns, **how)
        found[table].append((None if columns is None else set(columns), len(content)))
        return content

    monkeypatch.setattr(records, "read_table", watched)
    return found


@pytest.mark.parametrize("module", [tipping_points, comparisons])
def test_statistics_of_accuracy_read_the_trials_and_averages(
    sweep: Path, module: Any, command: Command, read: dict[str, Any]
) -> None:
    assert command(module.main, sweep)[0] == 0
    assert len(read["trials"]) == 1
    (averages,) = read["measurements"]
    assert averages[1] <= len(STRENGTHS) * len(SEEDS) + len(SEEDS)  # none of single images
    assert not read["epochs"]
    assert not read["maps"]


def test_correlations_read_the_images_of_what_is_tested(sweep: Path, command: Command, read: dict[str, Any]) -> None:
    assert command(correlations.main, sweep)[0] == 0
    kept = [rows for _, rows in read["measurements"]]
    trials = len(STRENGTHS) * len(SEEDS) + len(SEEDS)
    assert len(kept) == 3  # averages, of what there are single images, and those
    assert max(kept) <= IMAGES * trials
    assert not read["epochs"]
    assert not read["maps"]


@pytest.mark.parametrize(("main", "out"), [(report.main, "page.html"), (paper.main, "")])
def test_report_and_papers_read_few_columns_of_the_epochs(
    tmp_path: Path, command: Command, read: dict[str, Any], main: Callable[[], None], out: str
) -> None:
    write(tmp_path)
    code, _, err = command(main, tmp_path, "--out", tmp_path / "out" / out)
    assert code == 0, err
    assert len(read["trials"]) == 1
    asked = [columns for columns, _ in read["epochs"]]
    assert asked
    assert all(columns is not None and columns <= {"trial_id", "epoch", "top1", "total_variation"} for columns in asked)
    # of the maps their names, and the rows of one
    trials = len(STRENGTHS) * len(SEEDS) + len(SEEDS)
    assert all(columns == {"trial_id", "name"} or rows <= trials for columns, rows in read["maps"])
    assert sum(rows for columns, rows in read["measurements"] if columns is None) <= trials


def test_series_of_epochs(sweep: Path) -> None:
    opened = records.read_sweep(str(sweep))
    whole = [row for row in opened.epochs.to_pylist() if row["trial_id"] == "000100-0"]
    found = series(opened, ["000100-0", "no trial"], ["top1", "total_variation"])
    assert list(found) == ["000100-0"]
    assert found["000100-0"].epochs.tolist() == [row["epoch"] for row in whole]
    assert found["000100-0"].values["top1"].tolist() == [row["top1"] for row in whole]
    np.testing.assert_array_equal(found["000100-0"].values["total_variation"], [math.nan] * 2 + [1.0] * (EPOCHS - 2))
    known = series(opened, ["000100-0"], ["total_variation"], known=True)
    assert known["000100-0"].epochs.tolist() == list(range(3, EPOCHS + 1))
    assert series(opened, [], ["top1"]) == {}
    recorded = recorded_columns(opened, ["top1", "penalty"])
    assert recorded == {"top1": set(opened.trials["trial_id"].to_pylist()), "penalty": set()}


def test_values_of_single_images(tmp_path: Path) -> None:
    write(tmp_path)
    opened = records.read_sweep(str(tmp_path))
    known = tipping_points.quantities(opened)
    found = image_values(opened, known["faithfulness:gradient"])
    assert found is not None
    rows = opened.measurements.filter(pc.equal(opened.measurements["metric"], f"faithfulness{PER_IMAGE}")).to_pylist()
    wanted = {(row["trial_id"], row["level"]): row["value"] for row in rows}
    assert found.values.shape == (len(opened.trials), IMAGES)
    for trial, place in found.trials.items():
        assert found.values[place].tolist() == [wanted[trial, float(image)] for image in range(IMAGES)]
    assert image_values(opened, known["total_variation"]) is None
    assert len(opened.averages) == len(opened.trials)


def test_rows_are_those_of_the_settings(sweep: Path) -> None:
    opened = records.read_sweep(str(sweep))
    assert opened.rows == opened.settings.to_pylist()
    assert opened.rows is opened.rows


def test_a_figure_is_drawn_once_for_each_file(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    draw = Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda figure, renderer: (drawn.append(figure), draw(figure, renderer))[1])
    opened = records.read_sweep(str(sweep))
    figure = curves({"a": (np.arange(3), np.ones((2, 3)))})
    for number, kind in enumerate(("png", "svg", "pdf"), start=1):
        render(figure, opened, "a", kind)
        assert len(drawn) == number
