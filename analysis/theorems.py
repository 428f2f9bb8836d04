"""The two theorems of LOCO-REG's paper, checked numerically (Schneider 2022, Section 4): `python -m analysis.theorems`.

**Theorem 1** (Section 4.1). The cohesion of a 3×3 feature is the sum of m_i·m_j/d(i, j)² over pairs of its masses. With
all masses in [m', (1 + ε)m'] increasing the centre is said to raise it most, and a direct neighbour more than a corner,
up to ε = 0.675. Here the bound of each of the proof's cases is found by optimisation: for a given ε the difference of
two derivatives is linear in the masses, and its least value over the box is a linear program; the bound is the ε at
which that is 0.

**Theorem 2** (Section 4.2). A feature map g, symmetric, falling away from 0, most steeply there, is filtered by weights
w; E f(0, w) − f(x, w) = Σ_j w_j (g(j) − g(x + j)). The theorem says that the worst x ≠ 0 is best provided for by w_0
alone, w_±1 = 0, and that the variance, with ‖w‖ = 1, is least for uniform weights. Found here:

- the theorem names no bound of the weights for its first part, and without one there is no best. With Σ|w_j| = 1, or
  weights of at least 0, it holds. With ‖w‖ = 1, which it has for the variance, the best weights beside the centre are
  negative, as a sharpening filter's are: the best for x = 1 and for x = −1 differ, and the proof takes what is best for
  neither. How negative depends on g. [reading] ‖w‖ = 1 and g(x) = exp(−|x|) are taken beside the paper's numbers.
- the proof's variance, s²Σw_j², is the same for all w with ‖w‖ = 1; it is least for uniform weights if Σ w_j = 1. It
  also leaves out that f(0, w) has noise of its own: the variance of the difference is s²Σ_i (w_{i−x} − w_i)², which for
  three weights of norm 1 and x = ±1 is least at (1/2, 1/√2, 1/2), not at uniform ones.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.command_line import parse, run
from analysis.formats import Format, Table, print_tables
from analysis.lazily import lazily

optimize = lazily("scipy.optimize")

Array = NDArray[np.float64]

# --- Theorem 1 -------------------------------------------------------------------------------------------------------

PLACES = list(itertools.product(range(3), range(3)))
CENTRE, NEIGHBOUR, NEAR_CORNER, FAR_CORNER = (1, 1), (0, 1), (0, 0), (2, 0)

# the proof's cases: whose derivative is to be the larger, and whose the smaller
CASES = {
    "c-n": (CENTRE, NEIGHBOUR),
    "c-co": (CENTRE, NEAR_CORNER),
    "n-co-near": (NEIGHBOUR, NEAR_CORNER),
    "n-co-far": (NEIGHBOUR, FAR_CORNER),
}


def cohesion_derivative(place: tuple[int, int], exponent: float = 2.0) -> Array:
    """Coefficients (9,) of the masses, row by row, in the derivative of F_tot with respect to the mass at `place`, in
    units of c_0: 1/d^q, 0 for itself (Equation 4.2)."""
    distances = np.array([math.hypot(row - place[0], column - place[1]) for row, column in PLACES])
    return np.array([0.0 if distance == 0 else distance**-exponent for distance in distances])


@dataclass(frozen=True)
class Worst:
    """Masses in [1, 1 + ε] for which one derivative exceeds another least, and by how much (in units of c_0·m')."""

    masses: Array
    difference: float


def worst_masses(larger: Array, smaller: Array, epsilon: float) -> Worst:
    """The linear program: minimise (larger − smaller)·m over the box of masses."""
    found = optimize.linprog(larger - smaller, bounds=[(1.0, 1.0 + epsilon)] * len(larger), method="highs")
    assert found.success, found.message
    return Worst(np.asarray(found.x), float(found.fun))


def cohesion_bound(larger: tuple[int, int], smaller: tuple[int, int], exponent: float = 2.0) -> float:
    """The greatest ε up to which the first place's derivative is at least the second's for all masses in the box."""
    first, second = cohesion_derivative(larger, exponent), cohesion_derivative(smaller, exponent)
    return float(
        optimize.brentq(lambda epsilon: worst_masses(first, second, epsilon).difference, 0.0, 100.0, xtol=1e-12)
    )


# --- Theorem 2 -------------------------------------------------------------------------------------------------------

FEATURE_MAPS: dict[str, Callable[[float], float]] = {
    "exp(-|x|)": lambda x: math.exp(-abs(x)),
    "1/(1 + |x|)": lambda x: 1 / (1 + abs(x)),
    "2^-|x|": lambda x: 2.0 ** -abs(x),
}
"""Symmetric, falling, and most steeply near 0, as the theorem asks."""


def gaps(g: Callable[[float], float], half: int = 1, reach: int = 12) -> Array:
    """For each x ≠ 0 up to ±`reach`, the coefficients of w_−half … w_half in E f(0, w) − f(x, w) (Equation 4.4)."""
    offsets = range(-half, half + 1)
    return np.array([[g(j) - g(x + j) for j in offsets] for x in range(-reach, reach + 1) if x != 0])


def best_weights(coefficients: Array, *, nonnegative: bool = False) -> Array:
    """The w of norm 1 that makes the least of `coefficients` @ w greatest.

    That is the direction of the shortest vector of the coefficients' convex hull (and, with `nonnegative`, of what is
    above it in every entry): by duality max_{‖w‖ ≤ 1} min_x a_x·w = min_λ ‖Σ λ_x a_x‖.
    """
    rows = coefficients if not nonnegative else np.vstack([coefficients, np.eye(coefficients.shape[1])])
    # λ ≥ 0 with Σ λ = 1 over the coefficients: by least squares, the last equation weighed heavily
    weight = 1e6
    sums = np.concatenate([np.ones(len(coefficients)), np.zeros(len(rows) - len(coefficients))])
    solution, _ = optimize.nnls(np.vstack([rows.T, weight * sums]), np.append(np.zeros(rows.shape[1]), weight))
    shortest = solution @ rows
    return np.asarray(shortest / np.linalg.norm(shortest))


def best_weights_of_sum_one(coefficients: Array) -> Array:
    """The w with Σ|w_j| = 1 that makes the least of `coefficients` @ w greatest: a linear program in its positive and
    negative parts and the least gap."""
    count = coefficients.shape[1]
    objective = np.concatenate([np.zeros(2 * count), [-1.0]])
    above = np.hstack([-coefficients, coefficients, np.ones((len(coefficients), 1))])
    total = np.concatenate([np.ones(2 * count), [0.0]])
    found = optimize.linprog(
        objective,
        A_ub=np.vstack([above, total]),
        b_ub=np.concatenate([np.zeros(len(coefficients)), [1.0]]),
        bounds=[(0, None)] * (2 * count) + [(None, None)],
        method="highs",
    )
    assert found.success, found.message
    return np.asarray(found.x[:count] - found.x[count : 2 * count])


def difference_variance(weights: Sequence[float] | Array, x: int) -> float:
    """Var(f(x, w) − f(0, w)) in units of s²: the noise of both, Σ_i (w_{i−x} − w_i)²."""
    width = len(weights) + abs(x)
    one, other = np.zeros(width), np.zeros(width)
    one[: len(weights)] = weights
    other[abs(x) : abs(x) + len(weights)] = weights
    return float(((one - other) ** 2).sum())


def least_variance_weights(count: int, x: int = 1) -> Array:
    """The w of norm 1 and `count` entries whose `difference_variance` is least, of positive sum."""
    shifts = np.zeros((count, count + abs(x)))
    for index in range(count):
        shifts[index, index] += 1
        shifts[index, index + abs(x)] -= 1
    _, vectors = np.linalg.eigh(shifts @ shifts.T)
    least = vectors[:, 0]
    return np.asarray(least * np.sign(least.sum()))


# --- beside the paper ------------------------------------------------------------------------------------------------


@functools.cache
def theorem_quantities() -> dict[str, float]:
    """Ours for the numbers of `loco-t1` and `loco-t2` in `claims.csv`, by their quantity."""
    found: dict[str, float] = {}
    for case, (larger, smaller) in CASES.items():
        first, second = cohesion_derivative(larger), cohesion_derivative(smaller)
        found[f"cohesion_bound:{case}"] = cohesion_bound(larger, smaller)
        raised = first < second - 1e-12  # where it does not matter, the least mass
        for side, coefficients in (("larger", first), ("smaller", second)):
            found[f"cohesion_derivative:{case}/{side}/constant"] = float(coefficients.sum())
            found[f"cohesion_derivative:{case}/{side}/epsilon"] = float(coefficients[raised].sum())
    found["cohesion_bound:all"] = min(found[f"cohesion_bound:{case}"] for case in CASES)
    left, _, right = best_weights(gaps(FEATURE_MAPS["exp(-|x|)"]))
    found |= {"minimax_weight:w-1": float(left), "minimax_weight:w1": float(right)}
    return found


@dataclass
class Flags:
    """The two theorems of LOCO-REG's paper, checked numerically."""

    format: Format | None = None
    """Print the tables as CSV (numbers in full; an empty line between two), Markdown or LaTeX (for booktabs)."""


def tables() -> list[Table]:
    """What there is of both theorems, with their numbers in full."""
    paper = {"c-n": "0.675", "c-co": "0.675 (subsumed)", "n-co-near": "0.725…", "n-co-far": "0.75"}
    values = theorem_quantities()
    rows: list[tuple[str, ...]] = []
    full: list[tuple[Any, ...]] = []
    for case, places in CASES.items():
        numbers = [
            values[f"cohesion_derivative:{case}/{side}/{part}"]
            for side in ("larger", "smaller")
            for part in ("constant", "epsilon")
        ]
        sides = [f"{numbers[i]:.4g} + {numbers[i + 1]:.4g}ε" for i in (0, 2)]
        bound = values[f"cohesion_bound:{case}"]
        over = " over ".join(map(str, places))
        rows.append((case, over, *sides, f"{bound:.6f}", paper[case]))
        full.append((case, over, *numbers, bound, paper[case]))
    first = Table(
        ("case", "places", "larger, at worst", "smaller", "ε", "paper"),
        rows,
        caption="Theorem 1: the greatest ε for which a derivative of the cohesion is the larger for all masses",
        data=_full("case places larger_constant larger_epsilon smaller_constant smaller_epsilon bound paper", full),
    )
    rows, full = [], []
    for name, g in FEATURE_MAPS.items():
        coefficients = gaps(g)
        of_norm_1 = best_weights(coefficients)
        kinds_of = {
            "‖w‖ = 1": of_norm_1,
            "‖w‖ = 1, w ≥ 0": best_weights(coefficients, nonnegative=True),
            "Σ|w| = 1": best_weights_of_sum_one(coefficients),
        }
        for kind, best in kinds_of.items():
            gap = float((coefficients @ best).min())
            cells = [f"{round(weight, 4) + 0.0:.4f}" for weight in best]
            rows.append((name, kind, *cells, f"{gap:.4f}"))
            full.append((name, kind, *map(float, best), gap))
    second = Table(
        ("g", "with", "w-1", "w0", "w1", "least gap"),
        rows,
        caption="Theorem 2: the weights that are best for the worst x (paper: 0, 1, 0)",
        data=_full("g with w-1 w0 w1 least_gap", full),
    )
    kinds = {"uniform": np.full(3, 1 / math.sqrt(3)), "the centre alone": np.array([0.0, 1.0, 0.0])}
    kinds["least"] = least_variance_weights(3)
    full = [(name, *map(float, w), float(w @ w), float(difference_variance(w, 1))) for name, w in kinds.items()]
    third = Table(
        ("weights", "w-1", "w0", "w1", "the proof's Σw²", "with the noise of both"),
        [(name, *(f"{number:.4f}" for number in numbers)) for name, *numbers in full],
        caption="Variance of f(x, w) − f(0, w) for three weights of norm 1 and x = 1, in s² (paper: least for uniform)",
        data=_full("weights w-1 w0 w1 sum_of_squares variance", full),
    )
    return [first, second, third]


def _full(names: str, rows: Sequence[Sequence[Any]]) -> pa.Table:
    return pa.table(dict(zip(names.split(), map(list, zip(*rows, strict=True)), strict=True)))


def main() -> None:
    flags = parse(Flags, prog="python -m analysis.theorems")
    print_tables(tables(), flags.format)


if __name__ == "__main__":
    run(main)
