"""LOW..HIGH/N: so many values of a flag, against hand-computed ones."""

from __future__ import annotations

import pytest

from analysis.command_line import InputError
from sweeps.flags import SweepFlags, read_flags
from sweeps.loco_reg import PRESETS as LOCO_PRESETS
from sweeps.loco_reg import LocoSweep
from sweeps.pilcro import PRESETS, PilcroSweep
from sweeps.plan import make_plan
from sweeps.top_gap import PRESETS as GAP_PRESETS
from sweeps.top_gap import TopGapSweep


def pilcro(*argv: str) -> PilcroSweep:
    return read_flags(PilcroSweep, PRESETS, argv, "")  # type: ignore[return-value]


def test_evenly_in_the_logarithm_for_strengths_learning_rate_and_weight_decay() -> None:
    assert pilcro("--alpha", "1..1000/4").alpha == (1, 10, 100, 1000)
    assert pilcro("--learning-rate", "1e-3..1e-1/3").learning_rate == (0.001, 0.01, 0.1)
    assert pilcro("--weight-decay=1e-6..1e-4/3").weight_decay == (1e-6, 1e-5, 1e-4)
    # as --alpha-range has them, and so the same trials
    with_range = make_plan(pilcro("--alpha-range", "0.01", "1e4", "50")).ids
    assert make_plan(pilcro("--alpha", "0.01..1e4/50")).ids == with_range


def test_evenly_else_and_whole_for_whole_numbers() -> None:
    assert pilcro("--epochs", "10..30/3").epochs == (10, 20, 30)
    assert pilcro("--width", "4..7/3").width == (4, 6, 7)  # 5.5 is rounded to even
    assert pilcro("--interval", "1..3/9").interval == (1, 2, 3)
    gap: SweepFlags = read_flags(TopGapSweep, GAP_PRESETS, ["--pixels", "1..64/4", "all"], "")
    assert gap.pixels == ("1", "4", "16", "64", "all")  # type: ignore[attr-defined]
    loco: SweepFlags = read_flags(LocoSweep, LOCO_PRESETS, ["--gamma", "0.2..0.6/3"], "")
    assert loco.gamma == pytest.approx((0.2, 0.4, 0.6))  # type: ignore[attr-defined]


def test_with_other_values_it_is_a_grid() -> None:
    flags = pilcro("--alpha", "0.5", "1..100/3", "100")
    assert flags.alpha == (0.5, 1, 10, 100)
    assert flags.search == "grid"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--alpha", "0..10/3"), r"alpha: 0\.\.10/3, allowed are LOW\.\.HIGH/N, two rising numbers, above 0, and at"),
        (("--alpha", "10..1/3"), "two rising numbers"),
        (("--alpha", "1..10/1"), "at least 2"),
        (("--alpha", "1..10/x"), "at least 2"),
        (("--alpha", "1..inf/3"), "two rising numbers"),
        (("--alpha", "1..2..3/3"), "two rising numbers"),
        (("--epochs", "1.5..3/2"), "two rising whole numbers and at least 2"),
        (("--alpha", "1..10/1e9"), "at least 2"),
        (("--alpha", "1..10/2000000"), "at most 1,000,000 values"),
    ],
)
def test_what_is_none_is_refused_in_a_line(argv: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        pilcro(*argv)
