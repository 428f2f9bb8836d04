"""The statistics against R, on the fixtures that r/fixtures.R makes.

Closed forms agree to 1e-10, relative: both sides evaluate the same distributions to about 1e-13, and differences of
accuracies lose three digits before that.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.comparisons import Comparison, compare, seeds_needed
from analysis.correlations import spearman_permutation
from analysis.multiplicity import Adjustment, adjust
from analysis.tipping_curves import _Logistic
from analysis.tipping_points import fit_tipping_point
from tests.analysis.tipping_simulation import two_segments

FIXTURES: dict[str, Any] = json.loads((Path(__file__).parent / "r" / "fixtures.json").read_text())
CLOSED = 1e-10

Case = dict[str, Any]


def cases(table: str, **wanted: Any) -> list[Any]:
    found = [case for case in FIXTURES[table] if all(case[name] == value for name, value in wanted.items())]
    assert found
    return [pytest.param(case, id=f"{case['name']}, {case.get('alternative', '')}".strip(", ")) for case in found]


def compared(case: Case, paired: bool) -> Comparison:
    return compare(case["x"], case["y"], paired=paired, alternative=case["alternative"], rng=np.random.default_rng(0))


@pytest.mark.parametrize("case", cases("cor_test", method="spearman", exact=True))
def test_exact_spearman(case: Case) -> None:
    """cor.test(exact = TRUE) enumerates all orders and doubles the smaller tail, as we do."""
    found = spearman_permutation(case["x"], case["y"])
    assert found.rho == pytest.approx(case["estimate"], rel=CLOSED)
    assert found.p_value == pytest.approx(case["p_value"], rel=CLOSED)


@pytest.mark.parametrize("case", cases("cor_test", method="spearman", exact=False))
def test_spearman_with_ties(case: Case) -> None:
    assert spearman_permutation(case["x"], case["y"], rng=np.random.default_rng(0)).rho == pytest.approx(
        case["estimate"], rel=CLOSED
    )


@pytest.mark.parametrize("table", FIXTURES["permp"], ids=lambda table: f"m = {table['m']}")
def test_permutation_p_is_that_of_phipson_and_smyth(table: Case) -> None:
    """Each tail is statmod::permp's p for some b of m, and b = 0 where no random order comes near the one seen."""
    m, known = table["m"], dict(zip(table["b"], table["p_value"], strict=True))
    draw = np.random.default_rng(8)
    x = np.arange(20.0)
    for y in (x, -x):
        found = spearman_permutation(x, y, permutations=m, rng=draw).p_value
        assert found == pytest.approx(2 * known[0], rel=CLOSED)
    for _ in range(20 if len(known) > m else 0):
        found = spearman_permutation(x, draw.permutation(x), permutations=m, rng=draw).p_value
        b = round(found / 2 * (m + 1) - 1)
        assert found == pytest.approx(2 * known[b], rel=CLOSED)


@pytest.mark.parametrize("case", cases("t_test", kind="paired") + cases("t_test", kind="welch"))
def test_t_tests(case: Case) -> None:
    found = compared(case, case["kind"] == "paired")
    assert found.testable
    assert found.t == pytest.approx(case["t"], rel=CLOSED)
    assert found.df == pytest.approx(case["df"], rel=CLOSED)
    assert found.p_value == pytest.approx(case["p_value"], rel=CLOSED)
    # the interval is two-sided for every alternative; its ends may lie near zero, so relative to its width
    width = case["high"] - case["low"]
    assert (found.low, found.high) == pytest.approx((case["low"], case["high"]), abs=CLOSED * width)
    assert found.difference == pytest.approx((case["low"] + case["high"]) / 2, abs=CLOSED * width)


@pytest.mark.parametrize("case", cases("wilcox_test"))
def test_wilcoxons_tests(case: Case) -> None:
    """Exact without ties, and with few seeds with them (coin); else approximated as R does it, to rounding."""
    found = compared(case, case["kind"] == "paired").wilcoxon_p
    assert found == pytest.approx(case["p_value"], rel=CLOSED)


@pytest.mark.parametrize("case", FIXTURES["p_adjust"], ids=lambda case: f"n = {len(case['p'])}")
def test_adjustments(case: Case) -> None:
    """NA does not count as a test, in R as here."""
    p = [math.nan if value is None else value for value in case["p"]]
    methods: tuple[Adjustment, ...] = ("holm", "bh")
    for method in methods:
        expected = [math.nan if value is None else value for value in case[method]]
        assert adjust(p, method) == pytest.approx(expected, rel=CLOSED, nan_ok=True)


@pytest.mark.parametrize("case", FIXTURES["power_t_test"], ids=lambda case: f"{case['type']} {case['delta']}")
def test_seeds_needed(case: Case) -> None:
    """R's n is a fraction: ours is the next whole number."""
    two = case["sd"] if case["type"] == "two.sample" else None
    found = seeds_needed(case["delta"], case["sd"], two, power=case["power"], level=case["level"])
    assert found == math.ceil(case["n"])


@pytest.mark.parametrize("case", cases("ssfpl"))
def test_the_logistic_fit(case: Case) -> None:
    """nls with SSfpl and our least squares stop within about 1e-8 of the optimum of the same sum of squares. The robust
    fit that locates the tipping point differs from it by a small part of the noise there."""
    x, y, seed = np.array(case["x"]), np.array(case["y"]), np.array(case["seed"])
    bracket = math.floor(case["x80"]), math.ceil(case["x80"])
    fit = _Logistic(x, y, seed, 0.8, case["A"], bracket)
    found = fit._best([(case["A"], case["B"], 1.0, float(np.mean(x)))], fit._curve, fit._slopes, "linear")
    assert found is not None
    high, low, k, middle = found
    assert (high, low, middle) == pytest.approx((case["A"], case["B"], case["xmid"]), abs=1e-6)
    assert 1 / k == pytest.approx(case["scal"], abs=1e-6)
    assert fit._t(*found) == pytest.approx(case["x80"], abs=1e-6)
    robust = fit_tipping_point(10**x, y, seed, rng=np.random.default_rng(0))
    if robust.located_by == "logistic":
        assert robust.log10_strength == pytest.approx(case["x80"], abs=0.03)
    else:
        # a fit outside of the bracket gives way to the isotonic curve, which is within it
        assert robust.bracket[0] <= robust.log10_strength <= robust.bracket[1]
        assert not robust.bracket[0] <= case["x80"] <= robust.bracket[1]
    assert robust.low < case["x80"] < robust.high


@pytest.mark.parametrize("case", cases("segmented"))
def test_the_two_segment_fit_of_the_simulation(case: Case) -> None:
    """The comparison method of the simulation study is that of R's segmented: equal to where both stop searching."""
    breakpoint, below, above, p_value = two_segments(np.array(case["x"]), np.array(case["y"]))
    assert breakpoint == pytest.approx(case["psi"], abs=1e-5)
    assert (below, above) == pytest.approx((case["slope_below"], case["slope_above"]), abs=1e-6)
    assert p_value < 0.001
