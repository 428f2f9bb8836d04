"""What a plan says of the decisions that it can reach, by hand."""

from __future__ import annotations

import pytest

from analysis.holding import least_fallen
from sweeps.driver.decisions import told_of_decisions
from sweeps.flags import read_flags
from sweeps.pilcro import PRESETS, PilcroSweep
from sweeps.plan import make_plan
from sweeps.top_gap import PRESETS as TOP_GAP
from sweeps.top_gap import TopGapSweep


@pytest.mark.parametrize(
    ("strengths", "seeds", "baselines", "fallen"),
    [
        # two of eight trials have fallen, the baseline's among them, as the plateau is theirs: 1 / C(8, 2) = 1/28
        (3, 2, 2, 1),
        # one of four trials, or two: 1/4, 1/6
        (3, 1, 1, None),
        # without a baseline a plateau needs three strengths: of four one may fall, 1/4 in each seed
        (4, 2, 0, None),
        (4, 3, 0, 1),
        (3, 9, 0, None),
        # 1/7, and 1 / C(7, 2) = 1/21
        (7, 1, 0, 2),
        (21, 1, 0, 1),
        (2000, 3, 3, 1),
        (2, 1, 0, None),
    ],
)
def test_least_fallen(strengths: int, seeds: int, baselines: int, fallen: int | None) -> None:
    assert least_fallen(strengths, seeds, baselines) == fallen


def told(*argv: str) -> list[str]:
    return list(told_of_decisions(make_plan(read_flags(PilcroSweep, PRESETS, list(argv), ""))))


def test_the_default_sweep_can_decide() -> None:
    (line,) = told()
    assert line == (
        "pilcro, 3 values of α × 2 seeds, 2 unregularised trials: that accuracy tips over can be decided where it "
        "falls at the strongest or more of them in each seed (p < .05); differences from the baseline ± 9.0 standard "
        "deviations of theirs over seeds"  # 12.706205 / √2
    )


def test_one_that_cannot_says_what_would() -> None:
    (line,) = told("--seeds", "1")
    assert line == (
        "pilcro, 3 values of α × 1 seed, 1 unregularised trial: too few to decide whether accuracy tips over, wherever "
        "it falls: 1 seed more or 3 strengths more would"
    )


def test_what_sweeps_no_strength_decides_nothing() -> None:
    assert told("--alpha", "1") == [
        "pilcro: one strength, which cannot tell where accuracy tips over, wherever that is: sweep more"
    ]


def test_folds_and_other_strengths_count() -> None:
    assert "3 values of α × 4 seeds, 4 unregularised trials" in told("--folds", "2")[0]
    lines = list(told_of_decisions(make_plan(read_flags(TopGapSweep, TOP_GAP, [], ""))))
    assert lines
    assert all(line.startswith("top_gap, ") and " values of k × " in line for line in lines)
