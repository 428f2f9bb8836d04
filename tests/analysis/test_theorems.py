"""LOCO-REG's theorems: bounds against all corners of the box, weights against a search of the sphere."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from analysis.theorems import (
    CASES,
    FEATURE_MAPS,
    best_weights,
    best_weights_of_sum_one,
    cohesion_bound,
    cohesion_derivative,
    difference_variance,
    gaps,
    least_variance_weights,
    theorem_quantities,
    worst_masses,
)

ROOT = Path(__file__).resolve().parents[2]


def test_derivatives_are_equation_4_2() -> None:
    """As printed, row by row."""
    assert cohesion_derivative((1, 1)) == pytest.approx([1 / 2, 1, 1 / 2, 1, 0, 1, 1 / 2, 1, 1 / 2])
    assert cohesion_derivative((0, 1)) == pytest.approx([1, 0, 1, 1 / 2, 1, 1 / 2, 1 / 5, 1 / 4, 1 / 5])
    assert cohesion_derivative((0, 0)) == pytest.approx([0, 1, 1 / 4, 1, 1 / 2, 1 / 5, 1 / 4, 1 / 5, 1 / 8])


@pytest.mark.parametrize("case", CASES)
def test_the_worst_masses_are_the_worst_of_all_corners(case: str) -> None:
    """A linear function is least at a corner of the box: all 512 of them."""
    first, second = (cohesion_derivative(place) for place in CASES[case])
    for epsilon in (0.1, 0.675, 2.0):
        corners = np.array(list(itertools.product([1.0, 1.0 + epsilon], repeat=9)))
        assert worst_masses(first, second, epsilon).difference == pytest.approx(
            (corners @ (first - second)).min(), abs=1e-12
        )


def test_bounds_by_hand() -> None:
    """Of the proof: 6 + ε = 4.65 + 3ε, 1.125 = 1.55ε, 1.125 = 1.5ε; centre against corner 6 = 3.525 + 0.5ε."""
    expected = {"c-n": 1.35 / 2, "c-co": 2.475 / 0.5, "n-co-near": 1.125 / 1.55, "n-co-far": 1.125 / 1.5}
    for case, places in CASES.items():
        assert cohesion_bound(*places) == pytest.approx(expected[case], abs=1e-9)
    assert theorem_quantities()["cohesion_bound:all"] == pytest.approx(0.675, abs=1e-9)


@pytest.mark.parametrize("name", FEATURE_MAPS)
@pytest.mark.parametrize("nonnegative", [False, True])
def test_best_weights_are_those_a_search_finds(name: str, nonnegative: bool) -> None:
    """The least gap on a grid of the sphere, 0.5° apart, is at most that of the weights, and nearly reaches it."""
    g = FEATURE_MAPS[name]
    coefficients = gaps(g)
    # the theorem's conditions: falling, and most steeply near 0
    steps = [g(x) - g(x + 1) for x in range(6)]
    assert all(a > b > 0 for a, b in itertools.pairwise(steps))
    found = best_weights(coefficients, nonnegative=nonnegative)
    assert np.linalg.norm(found) == pytest.approx(1)
    angles = np.radians(np.arange(0, 360, 0.5))
    polar, azimuth = np.meshgrid(angles[:361], angles)
    sphere = np.stack([np.sin(polar) * np.cos(azimuth), np.cos(polar), np.sin(polar) * np.sin(azimuth)], -1).reshape(
        -1, 3
    )
    if nonnegative:
        sphere = sphere[(sphere >= -1e-12).all(1)]
    searched = (sphere @ coefficients.T).min(1).max()
    least = (coefficients @ found).min()
    assert searched <= least + 1e-9
    assert least - searched < 2e-3
    if nonnegative:
        assert found == pytest.approx([0, 1, 0], abs=1e-6)
    else:
        assert found[0] == pytest.approx(found[2], abs=1e-6)
        assert found[0] < -0.2


@pytest.mark.parametrize("name", FEATURE_MAPS)
def test_with_weights_of_sum_one_the_theorem_holds(name: str) -> None:
    """No corner of {Σ|w_j| ≤ 1} and no mix of two of them has a greater least gap."""
    coefficients = gaps(FEATURE_MAPS[name])
    found = best_weights_of_sum_one(coefficients)
    assert found == pytest.approx([0, 1, 0], abs=1e-9)
    corners = np.vstack([np.eye(3), -np.eye(3)])
    mixes = [t * a + (1 - t) * b for a in corners for b in corners for t in np.linspace(0, 1, 101)]
    assert (np.array(mixes) @ coefficients.T).min(1).max() <= (coefficients @ found).min() + 1e-12


def test_best_weights_by_hand() -> None:
    """x = ±1 bind, and the mean of their coefficients is (v, u, v): u = g(0) − g(1), v = (2g(1) − g(0) − g(2))/2."""
    g = FEATURE_MAPS["exp(-|x|)"]
    vector = np.array([g(1) - (g(0) + g(2)) / 2, g(0) - g(1), g(1) - (g(0) + g(2)) / 2])
    assert best_weights(gaps(g)) == pytest.approx(vector / np.linalg.norm(vector), abs=1e-6)


def test_the_variance_is_that_of_simulated_noise() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((200_000, 9))
    for weights in ([0.6, 0.0, 0.8], [1 / math.sqrt(3)] * 3, [0.5, math.sqrt(0.5), 0.5]):
        for x in (1, -1, 2):
            at_zero = sum(weight * noise[:, 4 + j] for j, weight in zip((-1, 0, 1), weights, strict=True))
            at_x = sum(weight * noise[:, 4 + j + x] for j, weight in zip((-1, 0, 1), weights, strict=True))
            # 200,000 draws: the variance's relative standard error is 0.3%
            assert difference_variance(weights, x) == pytest.approx(np.var(at_x - at_zero), rel=0.02)
    assert least_variance_weights(3) == pytest.approx([0.5, math.sqrt(0.5), 0.5])


def test_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "analysis.theorems"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "0.725806" in done.stdout
    assert "-0.2885" in done.stdout
    assert " -0.0000" not in done.stdout
