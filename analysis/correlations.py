"""Correlation of a metric with strength.

Spearman's ρ with a permutation test whose p-value is never zero (Phipson and Smyth 2010), as the input-gradient
regularisation paper has it (Section 3.2).
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

EXACT_UP_TO = 7
_TIES = 1e-12
"""Correlations of equal rank orders differ by rounding."""


class Correlation(NamedTuple):
    """ρ in [−1, 1] and its p-value in (0, 1]; both nan where x or y is constant."""

    rho: float
    p_value: float


def spearman_permutation(
    x: ArrayLike, y: ArrayLike, *, permutations: int = 9999, rng: np.random.Generator | None = None
) -> Correlation:
    """Spearman's ρ of two samples (n,) and its two-sided permutation p-value, midranks for ties.

    With b of m = `permutations` random orders at least as far out as the one seen, p = (b + 1)/(m + 1) of the smaller
    tail, doubled, as `scipy.stats.permutation_test` does: at least 2/(m + 1). Up to n = 7 all n! orders are enumerated,
    and p is the exact share. `rng` draws the orders (default: a new generator, so that p differs from call to call).

    Raises `ValueError` for samples of different or less than three entries, entries that are not finite, and fewer than
    one permutation.
    """
    left, right = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if left.ndim != 1 or left.shape != right.shape or len(left) < 3:
        raise ValueError(f"x, y: shapes {left.shape}, {right.shape}, allowed are two equal ones of at least 3 entries")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ValueError("x, y: not finite somewhere, allowed are finite numbers; leave the others out of both")
    if permutations < 1:
        raise ValueError(f"permutations: {permutations}, allowed are whole numbers of at least 1")
    u, v = _standard_ranks(left), _standard_ranks(right)
    if u is None or v is None:
        return Correlation(math.nan, math.nan)
    rho = float(np.clip(u @ v, -1, 1))
    if len(u) <= EXACT_UP_TO:
        orders = np.array(list(itertools.permutations(range(len(u)))))
        unseen = 0
    else:
        rng = np.random.default_rng() if rng is None else rng
        orders = rng.permuted(np.tile(np.arange(len(u)), (permutations, 1)), axis=1)
        unseen = 1  # the order seen is one of those that could have been drawn
    null = u[orders] @ v
    above, below = (null >= rho - _TIES).sum(), (null <= rho + _TIES).sum()
    smaller = (min(above, below) + unseen) / (len(null) + unseen)
    return Correlation(rho, float(min(1.0, 2 * smaller)))


def _standard_ranks(values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Midranks with mean 0 and norm 1; None if all are equal."""
    ranks = stats.rankdata(values)
    centred = ranks - ranks.mean()
    norm = float(np.linalg.norm(centred))
    return centred / norm if norm > 0 else None
