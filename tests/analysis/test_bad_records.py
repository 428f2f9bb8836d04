"""Records that nobody should have, and every command of the analysis: one clear sentence, nothing half written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from analysis import comparisons, correlations, paper, report, tipping_points

Record = Callable[..., bool]
Command = Callable[..., tuple[int, str, str]]

COMMANDS = {
    "tipping_points": tipping_points.main,
    "correlations": correlations.main,
    "comparisons": comparisons.main,
    "paper": paper.main,
    "report": report.main,
}
STRENGTHS = [{"alpha": 10.0**k, "seed": seed, "top1": 0.9 - 0.01 * k} for k in range(6) for seed in (0, 1)]
BASELINE = {"method": "baseline", "alpha": None, "variant": None}


def changed(**columns: Any) -> list[dict[str, Any]]:
    """A sound sweep, one trial of it with other columns."""
    return [{**BASELINE, "seed": 0}, {**BASELINE, "seed": 1}, *STRENGTHS[:-1], {**STRENGTHS[-1], **columns}]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"seed": None}, "seed is missing"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"alpha": float("inf")}, "alpha is inf"),
        ({"alpha": 1e300}, "alpha is 1e+300"),
        ({"weight_decay": float("nan")}, "weight_decay is nan"),
    ],
)
def test_trials_that_cannot_be_computed_with(
    tmp_path: Path, record: Record, command: Command, name: str, columns: dict[str, Any], message: str
) -> None:
    for index, row in enumerate(changed(**columns)):
        record(tmp_path / "demo", f"{index:02}", **row)
    code, out, err = command(COMMANDS[name], tmp_path / "demo")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "demo" / "analysis").exists()


@pytest.mark.parametrize("name", ["tipping_points", "correlations"])
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"alpha": -1.0}, "alpha is -1.0; allowed are 0 and"),
        ({"alpha": 5e-324}, "alpha is 5e-324"),
    ],
)
def test_strengths_and_scores_out_of_range(
    tmp_path: Path, record: Record, command: Command, name: str, columns: dict[str, Any], message: str
) -> None:
    for index, row in enumerate(changed(**columns)):
        record(tmp_path / "demo", f"{index:02}", **row)
    code, out, err = command(COMMANDS[name], tmp_path / "demo")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "demo" / "analysis").exists()


@pytest.mark.parametrize("name", ["tipping_points", "correlations", "comparisons"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e308])
def test_a_value_that_is_not_finite_leaves_out_its_trial(
    tmp_path: Path, record: Record, command: Command, name: str, value: float
) -> None:
    """What is said of the others is what is said of a record without the trial, and its number is told."""
    tables, said = [], []
    for sweep, rows in (("with", changed(top1=value)), ("without", changed()[:-1])):
        for index, row in enumerate(rows):
            record(tmp_path / sweep, f"{index:02}", **row)
        argv = ["--metrics", "top1"] if name == "correlations" else []
        code, out, err = command(COMMANDS[name], tmp_path / sweep, *argv)
        assert (code, err) == (0, "")
        found = pq.read_table(tmp_path / sweep / "analysis" / f"{name}.parquet").to_pylist()
        # how many were left out is the one difference, in a number or in words
        tables.append([{k: v for k, v in row.items() if k not in ("missing", "reason", "verdict")} for row in found])
        said.append(out)
    assert tables[0] == tables[1]
    left_out = (
        "1 model without a finite value left out" if name == "correlations" else "top1 that is not finite: left out"
    )
    assert left_out in said[0]
    assert left_out not in said[1]


@pytest.mark.parametrize("name", ["tipping_points", "correlations", "comparisons", "paper"])
def test_a_place_that_is_none(
    tmp_path: Path, record: Record, command: Command, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for index, row in enumerate(changed()):
        record(tmp_path / "demo", f"{index:02}", **row)
    code, out, err = command(COMMANDS[name], tmp_path / "demo", "--out", "s3://")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no bucket" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo"]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_sound_one_is_taken(tmp_path: Path, record: Record, command: Command, name: str) -> None:
    """What the others are changed from."""
    for index, row in enumerate(changed()):
        record(tmp_path / "demo", f"{index:02}", **row)
    code, _, err = command(COMMANDS[name], tmp_path / "demo")
    assert (code, err) == (0, "")
