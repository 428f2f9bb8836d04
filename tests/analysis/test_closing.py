"""How a search closed in: of a search that was simulated, and of a grid nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from analysis import tipping_points
from analysis.closing import closing_of
from analysis.figures import ClosingPanel, closing_figure
from analysis.tipping_search import next_trials

TIPS_AT = 3.3
BEGAN = datetime(2026, 11, 1, 12, tzinfo=UTC)


def score(strength: float) -> float:
    return 0.9 if np.log10(strength) < TIPS_AT else 0.1


@pytest.fixture
def searched(tmp_path: Path, record: Callable[..., bool]) -> Path:
    """One trial at a time, and none of them recorded in the order of its name."""
    known: list[tuple[float, int]] = []
    while True:
        strengths, seeds = [at for at, _ in known], [seed for _, seed in known]
        found = next_trials(strengths, [score(at) for at in strengths], seeds, low=1.0, high=1e8)
        if found is None:
            break
        (pair,) = found
        began = BEGAN + timedelta(minutes=len(known))
        how = {"alpha": pair[0], "seed": pair[1], "top1": score(pair[0]), "search": "tipping"}
        record(tmp_path / "demo", f"t{(7 * len(known)) % 31:02}", started_at=began, **how)
        known.append(pair)
    for seed in (0, 1):
        record(tmp_path / "demo", f"b{seed}", method="baseline", variant=None, alpha=None, seed=seed, search="tipping")
    return tmp_path / "demo"


def test_the_trials_stand_in_the_order_in_which_they_began(searched: Path) -> None:
    result = tipping_points.tipping_points(searched)
    (panel,) = closing_of(result)
    fit = result[0].fit
    assert fit is not None
    assert sorted(panel.strength[:2]) == [1.0, 1e8]  # as the search begins, with the ends of its range
    assert list(panel.holds) == [at < 10**TIPS_AT for at in panel.strength]
    assert np.isnan(panel.location[:3]).all()
    # the last one is what the command says
    last = np.log10([panel.location[-1], panel.low[-1], panel.high[-1]])
    assert last == pytest.approx([fit.log10_strength, fit.low, fit.high])
    width = np.log10(panel.high / panel.low)
    assert width[-1] <= 0.3 < np.nanmax(width)


def test_of_a_grid_there_is_none(searched: Path, tmp_path: Path, record: Callable[..., bool]) -> None:
    for power in range(6):
        for seed in (0, 1):
            how = {"alpha": 10.0**power, "seed": seed, "top1": score(10.0**power)}
            record(tmp_path / "grid", f"t{power}{seed}", **how)
    assert closing_of(tipping_points.tipping_points(tmp_path / "grid")) == []


def test_command_and_report_show_it(searched: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = command(tipping_points.main, searched)
    assert code == 0, err
    assert "tipping_points_search.png" in out
    assert (searched / "analysis" / "tipping_points_search.svg").stat().st_size > 1000
    from analysis.report.__main__ import main

    code, _, err = command(main, searched)
    assert code == 0, err
    page = (searched / "analysis" / "report.html").read_text()
    assert "How the search closed in" in page


def test_bad_panels() -> None:
    nan = np.full(2, np.nan)
    with pytest.raises(ValueError, match="at least one"):
        closing_figure([])
    with pytest.raises(ValueError, match="allowed is one each"):
        closing_figure([ClosingPanel("x", [1.0, 2.0], [True], nan, nan, nan)])
    with pytest.raises(ValueError, match="above 0"):
        closing_figure([ClosingPanel("x", [0.0, 2.0], [True, True], nan, nan, nan)])
