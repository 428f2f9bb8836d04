"""Where to look next: what `next_trials` proposes, and that what it proposes ends with the truth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from analysis.tipping_fit import fit_curve
from analysis.tipping_search import FIRST, MOST, MOST_FIRST, _Curve, _logistic, next_trials
from tests.analysis.search_simulation import BARS, DECADES, KINDS, MOST_TRIALS, WIDTH, search, study, summary

RANGE = {"low": 1.0, "high": 1e8}


def step(strength: float) -> float:
    return 0.9 if strength < 10**3.3 else 0.1


def searched(score=step, slots: int = 1, **how):  # type: ignore[no-untyped-def]
    """The recorded trials of a search; trials end in the order in which they began."""
    how = {**RANGE, "width": 0.3, **how}
    recorded: list[tuple[float, float, int]] = []
    running: list[tuple[float, int]] = []
    while True:
        strengths, scores, seeds = zip(*recorded, strict=True) if recorded else ((), (), ())
        free = slots - len(running)
        proposed = next_trials(strengths, scores, seeds, slots=free, running=running, **how) if free else []
        if proposed is None:
            assert not running
            return recorded
        assert len(proposed) <= free
        running += proposed
        assert running, "neither done nor anything to wait for"
        strength, seed = running.pop(0)
        recorded.append((strength, score(strength), seed))


def test_it_begins_with_the_ends_of_the_range_exactly() -> None:
    first = next_trials((), (), (), **RANGE, slots=2)
    assert first is not None
    assert sorted(strength for strength, _ in first) == [1.0, 1e8]
    whole = next_trials((), (), (), **RANGE, slots=8)
    assert whole is not None
    assert len(whole) == 6  # two more than of one slot: each has to wait for what they say
    assert np.diff(np.log10(sorted(strength for strength, _ in whole))) == pytest.approx([8 / 5] * 5)


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_a_step_is_found(slots: int) -> None:
    recorded = searched(slots=slots)
    strengths, scores, seeds = zip(*recorded, strict=True)
    fit = fit_curve(strengths, scores, seeds, rng=np.random.default_rng(0))
    assert fit.status == "tipping point"
    assert fit.low <= 3.3 <= fit.high
    assert fit.high - fit.low <= 0.3
    assert len(recorded) <= 14  # 8 decades divided by two 5 times, ends confirmed, a plateau of three strengths
    assert all(1 <= strength <= 1e8 for strength in strengths)
    assert len({(strength, seed) for strength, _, seed in recorded}) == len(recorded)  # nothing twice
    assert len(set(seeds)) > 1


def test_equal_records_give_equal_proposals_and_a_killed_search_goes_on() -> None:
    recorded = searched()
    for known in range(len(recorded)):
        strengths, scores, seeds = zip(*recorded[:known], strict=True) if known else ((), (), ())
        (pair,) = next_trials(strengths, scores, seeds, **RANGE, width=0.3) or []
        assert pair == (recorded[known][0], recorded[known][2])


def test_the_order_of_the_record_says_nothing() -> None:
    recorded = searched()[:9]
    strengths, scores, seeds = zip(*recorded, strict=True)
    turned = zip(*recorded[::-1], strict=True)
    assert next_trials(strengths, scores, seeds, **RANGE, slots=2) == next_trials(*turned, **RANGE, slots=2)


def test_a_single_diverged_run_misleads_nobody() -> None:
    failing = {0: None}

    def score(strength: float) -> float:
        # the first trial between 10 and 1000 diverges
        if 10 < strength < 1000 and failing.setdefault(1, strength) == strength and not failing.get(2):
            failing[2] = True  # type: ignore[assignment]
            return 0.1
        return step(strength)

    strengths, scores, seeds = zip(*searched(score), strict=True)
    fit = fit_curve(strengths, scores, seeds, rng=np.random.default_rng(0))
    assert fit.low <= 3.3 <= fit.high
    assert fit.high - fit.low <= 0.3


def test_what_never_falls_is_none_in_range_in_two_seeds() -> None:
    recorded = searched(lambda strength: 0.9)
    assert len(recorded) == FIRST + 1
    assert [strength for strength, *_ in recorded].count(1e8) == 2
    strengths, scores, seeds = zip(*recorded, strict=True)
    assert fit_curve(strengths, scores, seeds).status == "none in range"


def test_what_has_fallen_everywhere_ends_with_the_baseline_as_plateau() -> None:
    recorded = searched(lambda strength: 0.1, baseline=[0.9, 0.91])
    assert [strength for strength, *_ in recorded].count(1.0) == 2
    assert len(recorded) <= FIRST + 2
    strengths, scores, seeds = zip(*recorded, strict=True)
    assert fit_curve(strengths, scores, seeds, baseline=[0.9, 0.91]).status in ("below range", "inconclusive")


def test_smaller_is_stronger_and_only_whole_numbers_are_allowed() -> None:
    recorded = searched(
        lambda pixels: 0.9 if pixels >= 6 else 0.2, low=1, high=64, stronger="smaller", allowed=range(1, 65), width=0.05
    )
    strengths, scores, seeds = zip(*recorded, strict=True)
    assert all(strength == int(strength) for strength in strengths)
    fit = fit_curve(strengths, scores, seeds, stronger="smaller", rng=np.random.default_rng(0))
    # no interval is narrower than from one whole number to the next
    assert (10**fit.low, 10**fit.high) == pytest.approx((5, 6))


def test_less_is_better() -> None:
    recorded = searched(lambda strength: 0.1 if strength < 10**3.3 else 2.0, direction="min")
    strengths, scores, seeds = zip(*recorded, strict=True)
    fit = fit_curve(strengths, scores, seeds, direction="min", rng=np.random.default_rng(0))
    assert fit.status == "tipping point"
    assert fit.low <= 3.3 <= fit.high
    assert fit.high - fit.low <= 0.3


def test_trials_that_run_are_not_proposed_again_and_are_waited_for() -> None:
    first = next_trials((), (), (), **RANGE, slots=4 * MOST_FIRST, most=100)
    assert first is not None
    assert len(first) == MOST_FIRST
    assert next_trials((), (), (), **RANGE, slots=1, running=first) == []
    recorded = searched()
    strengths, scores, seeds = zip(*recorded[:-1], strict=True)
    last = [(recorded[-1][0], recorded[-1][2])]
    assert next_trials(strengths, scores, seeds, **RANGE, running=last) == []


def test_the_budget_is_kept() -> None:
    assert len(searched(most=7)) == 7
    recorded = searched(most=7, slots=5)
    assert len(recorded) == 7
    noise = np.random.default_rng(0)
    assert len(searched(lambda strength: noise.uniform(0.3, 0.9), width=0.01)) <= MOST


def test_the_most_telling_strength_has_the_least_variance() -> None:
    """Against the variance of t80 by brute force: the inverse of the whole information matrix with each trial added."""
    curve = _Curve(0.9, 0.1, 2.0, 4.0, 0.8, 0.01)
    known = np.array([0.0, 2.0, 3.0, 4.0, 5.0, 8.0])

    def slopes(x: float) -> np.ndarray:
        steps = np.diag([1e-6] * 4)
        at = np.array([x])
        return np.array(
            [
                (_logistic(np.array(curve[:4]) + step, at) - _logistic(np.array(curve[:4]) - step, at))[0] / 2e-6
                for step in steps
            ]
        )

    def where(parameters: np.ndarray) -> float:
        high, low, k, middle = parameters
        return middle + math.log((high - low) / (0.8 * high - low) - 1) / k

    gradient = np.array(
        [(where(np.array(curve[:4]) + step) - where(np.array(curve[:4]) - step)) / 2e-6 for step in np.diag([1e-6] * 4)]
    )
    prior = np.diag([0.3**-2, 0.3**-2, 2.0**-2, 1.0])

    def variance(x: float) -> float:
        rows = np.array([slopes(at) for at in (*known, x)]) / 0.01
        return float(gradient @ np.linalg.inv(rows.T @ rows + prior) @ gradient)

    best = min(np.linspace(0, 8, 401), key=variance)
    assert curve.most_telling(known, 0.0, 8.0) == pytest.approx(best, abs=0.021)
    assert curve.where == pytest.approx(where(np.array(curve[:4])))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"low": 0.0}, "low, high"),
        ({"high": 0.5}, "low, high"),
        ({"width": 0.0}, "width"),
        ({"slots": 0}, "slots"),
        ({"most": 0}, "most"),
        ({"share": 1.0}, "share"),
        ({"allowed": [1e9]}, "allowed"),
    ],
)
def test_what_is_refused(change: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        next_trials((1.0,), (0.9,), (0,), **{**RANGE, **change})  # type: ignore[arg-type]


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="strength, score, seed"):
        next_trials((1.0, 2.0), (0.9,), (0,), **RANGE)
    with pytest.raises(ValueError, match="finite"):
        next_trials((1.0,), (math.nan,), (0,), **RANGE)


def test_one_curve_of_each_kind() -> None:
    """The simulation's own harness on seven curves; the bars of hundreds are `test_the_bars_are_kept`."""
    for one in (search(number, 2) for number in range(len(KINDS))):
        if one.kind == "flat":
            assert one.status != "tipping point"
        else:
            assert one.status == "tipping point"
            assert abs(one.found - one.truth) < 0.3
        assert one.trials <= MOST


@pytest.mark.long
@pytest.mark.parametrize("slots", [1, 2, 8, 32])
def test_the_bars_are_kept(slots: int) -> None:
    """140 curves; 500 by `python -m tests.analysis.search_simulation`."""
    found = summary(study(140, slots, jobs=2))
    assert found["trials"] <= MOST_TRIALS.get(slots, math.inf)
    assert found["rmse"] <= BARS["rmse"]
    assert found["covered"] >= BARS["covered"]
    assert found["far"] <= BARS["far"]
    assert found["missed"] <= BARS["missed"]
    assert found["invented"] <= BARS["invented"]
    assert found["width"] <= WIDTH * 1.2
    assert DECADES == 8


@pytest.mark.parametrize(
    "wrong",
    [
        {"direction": "up"},
        {"stronger": "x"},
        {"baseline": [math.nan]},
        {"allowed": [math.nan, 1, 2]},
        {"allowed": [0, 1, 2]},
        {"running": [(0.0, 0)]},
        {"running": [(math.nan, 0)]},
        {"running": [(1.0, 0.5)]},
        {"slots": 1.5},
        {"most": 2.5},
    ],
)
def test_what_cannot_be_searched_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        next_trials([1.0], [0.9], [0], **{**RANGE, **wrong})


@pytest.mark.parametrize("seed", [math.nan, 0.5])
def test_seeds_are_whole_numbers(seed: float) -> None:
    with pytest.raises(ValueError, match="seed"):
        next_trials([1.0], [0.9], [seed], **RANGE)


def test_strengths_are_floats_whatever_the_range_is_written_as() -> None:
    found = next_trials((), (), (), low=1, high=10, slots=4)
    assert found is not None
    assert {type(strength) for strength, _ in found} == {float}


@pytest.mark.filterwarnings("error")
def test_a_part_that_ends_before_the_bracket_is_fitted() -> None:
    """A fall at 10 with a fifth of the trials at 0: the part of the curve before it has nothing beyond the bracket."""
    draws = np.random.default_rng(0)

    def score(strength: float) -> float:
        return 0.0 if draws.random() < 0.2 else 0.9 / (1 + (strength / 10) ** 2)

    recorded = searched(score)
    strengths, scores, seeds = zip(*recorded, strict=True)
    fit_curve(strengths, scores, seeds, rng=np.random.default_rng(0))
