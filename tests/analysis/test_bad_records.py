"""Records that nobody should have, and every command of the analysis: one clear sentence, nothing half written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from analysis import comparisons, correlations, paper, report, tipping_points
from analysis.command_line import InputError
from analysis.records import compact, read_sweep

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


class TestSkipDamaged:
    """One damaged file ends no command of somebody who cannot run the trial again."""

    @pytest.fixture
    def sweep(self, tmp_path: Path, record: Callable[..., bool]) -> Path:
        for index, alpha in enumerate((None, 1.0, 10.0, 100.0)):
            for seed in (0, 1):
                method = {"method": "baseline", "variant": None} if alpha is None else {}
                score = 0.9 - 0.2 * index + 0.01 * seed
                record(tmp_path / "s", f"t{index}{seed}", alpha=alpha, seed=seed, top1=score, **method)
        return tmp_path / "s"

    @pytest.mark.parametrize("table", ["trials", "epochs", "measurements", "maps"])
    @pytest.mark.parametrize("harm", ["cut", "gone"])
    def test_the_trial_is_left_out_of_every_table(self, sweep: Path, table: str, harm: str) -> None:
        file = sweep / table / "t21.parquet"
        if harm == "gone" and table == "trials":
            return  # that is no recorded trial
        file.write_bytes(file.read_bytes()[:50]) if harm == "cut" else file.unlink()
        found = read_sweep(str(sweep), skip_damaged=True)
        assert list(found.damaged) == ["t21"]
        assert f"s/{table}/t21.parquet: " in found.damaged["t21"]
        for name in ("trials", "epochs", "measurements", "maps"):
            ids = set(getattr(found, name)["trial_id"].to_pylist())
            assert ids == {f"t{index}{seed}" for index in range(4) for seed in (0, 1)} - {"t21"}

    def test_every_command_tells_it(self, sweep: Path, command: Callable[..., tuple[int, str, str]]) -> None:
        file = sweep / "trials" / "t21.parquet"
        file.write_bytes(file.read_bytes()[:50])
        for name, main in COMMANDS.items():
            code, out, err = command(main, sweep)
            assert (code, out) == (2, ""), name
            assert "t21.parquet: damaged" in err
            assert "--skip-damaged leaves such trials out" in err
            code, out, err = command(main, sweep, "--skip-damaged")
            assert code == 0, err
            assert err.startswith("left out, as damaged: 1 trial: ")
            assert "t21.parquet: damaged" in err
        assert "Left out, as damaged: 1 trial" in (sweep / "analysis" / "report.html").read_text()

    def test_of_nothing_that_is_sound_nothing_is_said(self, sweep: Path) -> None:
        for file in (sweep / "trials").iterdir():
            file.write_bytes(b"")
        with pytest.raises(InputError, match=r"every trial is damaged \(8 of them\)"):
            read_sweep(str(sweep), skip_damaged=True)

    def test_compacted_trials_that_are_run_again_and_damaged(self, sweep: Path, record: Callable[..., bool]) -> None:
        """A damaged file of its own stands for a compacted trial: neither is read."""
        compact(str(sweep))
        (sweep / "trials" / "t21.parquet").write_bytes(b"")
        found = read_sweep(str(sweep), skip_damaged=True)
        assert len(found.trials) == 7
        assert len(found.epochs) == 14

    def test_it_is_never_worse_with_the_flag(self, sweep: Path, command: Callable[..., tuple[int, str, str]]) -> None:
        """What a command does not read does not end it."""
        compact(str(sweep))
        file = sweep / "epochs" / "compacted.parquet"
        file.write_bytes(file.read_bytes()[:50])
        without = command(tipping_points.main, sweep)
        assert without[0] == 0
        assert command(tipping_points.main, sweep, "--skip-damaged") == without
