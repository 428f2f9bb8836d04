"""Trials that a scheduler ended early: left out where others did better, unless asked; those that collapsed count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.command_line import InputError
from analysis.records import compact, read_sweep
from analysis.report.trials import _message
from tests.analysis.test_bad_records import COMMANDS


@pytest.fixture
def sweep(tmp_path: Path, record: Callable[..., bool]) -> Path:
    """Four strengths × two seeds; t21 was ended by ASHA, t30 and t31 as collapsed."""
    for index, alpha in enumerate((None, 1.0, 10.0, 100.0)):
        for seed in (0, 1):
            method = {"method": "baseline", "variant": None} if alpha is None else {}
            ended = {"t21": "asha", "t30": "collapse", "t31": "collapse"}.get(f"t{index}{seed}")
            how = {"status": "stopped", "stopped_at_epoch": 1, "stopped_by": ended} if ended else {}
            score = 0.1 if index == 3 else 0.9 - 0.01 * seed
            record(tmp_path / "s", f"t{index}{seed}", alpha=alpha, seed=seed, top1=score, **method, **how)
    return tmp_path / "s"


@pytest.mark.parametrize("compacted", [False, True])
def test_they_are_in_no_table_unless_asked(sweep: Path, compacted: bool) -> None:
    every = {f"t{index}{seed}" for index in range(4) for seed in (0, 1)}
    if compacted:
        compact(str(sweep))
    found, asked = read_sweep(str(sweep)), read_sweep(str(sweep), with_stopped=True)
    assert (found.stopped, asked.stopped) == (("t21",), ())
    for name in ("trials", "epochs", "measurements", "maps", "averages"):
        assert set(getattr(found, name)["trial_id"].to_pylist()) == every - {"t21"}
        assert set(getattr(asked, name)["trial_id"].to_pylist()) == every
    assert found.content_hash != asked.content_hash


def test_every_command_tells_it(sweep: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    for name, main in COMMANDS.items():
        code, _, err = command(main, sweep)
        assert code == 0, name
        assert err.startswith("left out, as stopped early: 1 trial (--with-stopped counts them)"), name
        if name == "report":
            page = (sweep / "analysis" / "report.html").read_text()
            assert "Left out, as stopped early: 1 trial" in page
            assert "2 trials stopped" in page
            assert "analysis.report" in page
            assert "--with-stopped counts them" in page
            assert page.count("--with-stopped") == 1
        code, _, err = command(main, sweep, "--with-stopped")
        assert code == 0, name
        assert "stopped early" not in err
    page = (sweep / "analysis" / "report.html").read_text()
    assert "3 trials stopped" in page
    assert "--with-stopped" in page  # in the commands that it shows, which give its own numbers


def test_of_nothing_else_nothing_is_said(tmp_path: Path, record: Callable[..., bool]) -> None:
    record(tmp_path / "s", "a", status="stopped", stopped_at_epoch=1, stopped_by="median")
    with pytest.raises(InputError, match="every trial was stopped early; --with-stopped counts them"):
        read_sweep(str(tmp_path / "s"))
    assert len(read_sweep(str(tmp_path / "s"), with_stopped=True).rows) == 1


def test_a_stopped_trial_is_not_run_again_and_not_written_over(sweep: Path, record: Callable[..., bool]) -> None:
    assert not record(sweep, "t21", status="completed")
    rows = {row["trial_id"]: row for row in read_sweep(str(sweep), with_stopped=True).rows}
    assert rows["t21"]["status"] == "stopped"
    assert _message(rows["t21"]).text == "after epoch 1 of 2, by asha"
