"""Correlations of arrays: Spearman's ρ with permutations, Pearson's r, and what the unit of such a test is."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.lazily import lazily

optimize, special = lazily("scipy.optimize"), lazily("scipy.special")

Floats = NDArray[np.float64]

EXACT_UP_TO = 7
"""Trials whose orders are all enumerated; as many orders within seeds are, too."""
PERMUTATIONS = 9999
MOST_PERMUTATIONS = 999_999
BOOTSTRAPS = 999
_TIES = 1e-12
"""Correlations of equal rank orders differ by rounding."""
_DECIDED = 25
"""Random orders as far out as the one seen, of the first 9999, from which on p is known well enough."""
_AT_ONCE = 4_000_000
"""Numbers of random orders that are drawn at a time."""
_COMPUTED_AT_ONCE = 250_000
_SIGNIFICANCE = 0.05


class Correlation(NamedTuple):
    """ρ in [−1, 1] and its p-value in (0, 1]; both nan where x or y is constant."""

    rho: float
    p_value: float


def permutations_for(tests: int) -> int:
    """How many permutations let the smallest p reach .05/10 after Holm's adjustment for so many tests; it is 2/(m + 1)
    before. At least 9999, at most a million less one."""
    return min(max(PERMUTATIONS, 400 * tests - 1), MOST_PERMUTATIONS)


def spearman_permutation(
    x: ArrayLike,
    y: ArrayLike,
    *,
    within: ArrayLike | None = None,
    permutations: int = PERMUTATIONS,
    rng: np.random.Generator | None = None,
) -> Correlation:
    """Spearman's ρ of two samples (n,) and its two-sided permutation p-value, midranks for ties.

    With b of m random orders at least as far out as the one seen, p = (b + 1)/(m + 1) of the smaller tail, doubled, as
    `scipy.stats.permutation_test` does: at least 2/(m + 1). Up to n = 7 all n! orders are enumerated, and p is the
    exact share. m is `permutations`; of more than 9999, the rest is drawn only where few of the first were as far out.
    `rng` draws the orders (default: a new generator, so that p differs from call to call).

    `within` (n,) names each one's block, such as its seed: orders are changed within the blocks alone, so that what
    the blocks differ in is no noise. All orders are enumerated where there are no more of them than 7!.

    Raises `ValueError` for samples of different or less than three entries, entries that are not finite, and fewer than
    one permutation.
    """
    left, right = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if left.ndim != 1 or left.shape != right.shape:
        raise ValueError(f"x, y: shapes {left.shape}, {right.shape}, allowed are two equal ones of at least 3 entries")
    return spearman_permutations(left, right[None], within=within, permutations=permutations, rng=rng)[0]


def spearman_permutations(
    x: ArrayLike,
    metrics: ArrayLike,
    *,
    within: ArrayLike | None = None,
    permutations: int = PERMUTATIONS,
    rng: np.random.Generator | None = None,
) -> list[Correlation]:
    """`spearman_permutation` of x (n,) with each row of `metrics` (K, n), all by the same permutations.

    Raises `ValueError` as it does.
    """
    left, right = np.asarray(x, dtype=float), np.asarray(metrics, dtype=float)
    if left.ndim != 1 or right.ndim != 2 or right.shape[1:] != left.shape or len(left) < 3:
        raise ValueError(f"x, y: shapes {left.shape}, {right.shape[1:]}, allowed are equal ones of at least 3 entries")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ValueError("x, y: not finite somewhere, allowed are finite numbers; leave the others out of both")
    if permutations < 1:
        raise ValueError(f"permutations: {permutations}, allowed are whole numbers of at least 1")
    labels = np.zeros(left.shape) if within is None else np.asarray(within)
    if labels.shape != left.shape:
        raise ValueError(f"within: shape {labels.shape}, allowed is {left.shape}, one block for each entry")
    blocks = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    rng = np.random.default_rng() if rng is None else rng
    u, v = _standard_ranks(left), _standard_ranks(right)
    rho = np.clip(v @ u, -1, 1)
    testable = np.array([bool(u.any() and ranks.any()) for ranks in v])
    above, below, drawn = (np.zeros(len(v), dtype=np.int64) for _ in range(3))
    left_over = testable.copy()

    def add(orders: NDArray[np.integer]) -> None:
        for part in np.array_split(orders, math.ceil(orders.size / _COMPUTED_AT_ONCE)):
            null = u[part] @ v[left_over].T
            above[left_over] += (null >= rho[left_over] - _TIES).sum(0)
            below[left_over] += (null <= rho[left_over] + _TIES).sum(0)
        drawn[left_over] += len(orders)

    exact = math.prod(math.factorial(min(len(block), 20)) for block in blocks) <= math.factorial(EXACT_UP_TO)
    if exact:
        add(_all_orders(blocks))
    else:
        total = 0
        while total < permutations and left_over.any():
            number = max(1, _AT_ONCE // max(len(left), len(v)))
            number = min(number, (PERMUTATIONS if total < PERMUTATIONS < permutations else permutations) - total)
            add(_random_orders(blocks, number, rng))
            total += number
            if total >= PERMUTATIONS:
                left_over &= np.minimum(above, below) < _DECIDED
    unseen = 0 if exact else 1  # the order seen is one of those that could have been drawn
    found = []
    for index in range(len(v)):
        if not testable[index]:
            found.append(Correlation(math.nan, math.nan))
            continue
        smaller = (min(above[index], below[index]) + unseen) / (drawn[index] + unseen)
        found.append(Correlation(float(rho[index]), float(min(1.0, 2 * smaller))))
    return found


def _all_orders(blocks: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    several = itertools.product(*(itertools.permutations(block.tolist()) for block in blocks))
    orders = np.array([list(itertools.chain.from_iterable(parts)) for parts in several])
    found = np.empty_like(orders)
    found[:, np.concatenate(blocks)] = orders
    return found


def _random_orders(blocks: list[NDArray[np.int64]], number: int, rng: np.random.Generator) -> NDArray[np.integer]:
    n = sum(map(len, blocks))
    orders = np.empty((number, n), dtype=np.uint16 if n <= 1 << 16 else np.int32)
    for block in blocks:
        orders[:, block] = rng.permuted(np.tile(block.astype(orders.dtype), (number, 1)), axis=1)
    return orders


def _standard_ranks(values: Floats) -> Floats:
    """Midranks along the last axis with mean 0 and norm 1; zeros where all are equal."""
    ranks = _midranks(values)
    centred = ranks - ranks.mean(-1, keepdims=True)
    norm = np.linalg.norm(centred, axis=-1, keepdims=True)
    return np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 1e-9)


def _midranks(values: Floats) -> Floats:
    """Ranks from 1 on along the last axis, equal values' the mean of theirs."""
    order = np.argsort(values, axis=-1)
    ordered = np.take_along_axis(values, order, axis=-1)
    places = np.broadcast_to(np.arange(values.shape[-1]), values.shape)
    new = np.ones(values.shape, dtype=bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first = np.maximum.accumulate(np.where(new, places, 0), axis=-1)
    ends = np.roll(new, -1, axis=-1)  # the first value is a new one, so that the last one ends
    last = np.minimum.accumulate(np.where(ends, places, values.shape[-1])[..., ::-1], axis=-1)[..., ::-1]
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=-1)
    return ranks


def crossed(strength: ArrayLike, seed: ArrayLike) -> bool:
    """Whether seeds are crossed with strengths: most trials are of a seed that ran several strengths."""
    named = np.unique(np.asarray(seed), return_inverse=True)[1]
    at = np.unique(np.asarray(strength, dtype=float), return_inverse=True)[1]
    several = np.bincount(np.unique(np.stack([named, at]), axis=1)[0]) > 1
    return bool(2 * several[named].sum() > len(named))


class Strengths(NamedTuple):
    """A metric by strength: the strengths (S,), rising, and the metric's mean at each, free of what seeds differ in."""

    strength: Floats
    mean: Floats
    p_value: float
    """Of the means differing by more than noise from any curve that only rises or only falls; nan: cannot be told."""

    @property
    def share_an_effect(self) -> bool:
        """Whether what trials of a strength have in common, beside the trend, is more than the noise between them: they
        do not tell of the trend independently of each other then."""
        return self.p_value < _SIGNIFICANCE


def by_strength(strength: ArrayLike, values: ArrayLike, seed: ArrayLike | None = None) -> Strengths:
    """The metric's means by strength, with seeds' differences taken out by least squares where `seed` (n,) is given,
    and an F test of how far they are, as ranks, from the isotonic curve (the better of rising and falling): its sum of
    squares over S − levels of that curve, against that of the trials around the means."""
    x, y = np.asarray(strength, dtype=float), np.asarray(values, dtype=float)
    swept, at = np.unique(x, return_inverse=True)
    named = np.zeros(len(x), int) if seed is None else np.unique(np.asarray(seed), return_inverse=True)[1]
    mean, _, _ = _additive(y, at, named)
    ranks = _midranks(y)
    effect, rest, free = _additive(ranks, at, named)
    n = np.bincount(at).astype(float)
    if free < 2 or len(swept) < 3:
        return Strengths(swept, mean, math.nan)
    p_value = 0.0
    for increasing in (True, False):
        curve = optimize.isotonic_regression(effect, weights=n, increasing=increasing).x
        between, degrees = float((n * (effect - curve) ** 2).sum()), len(swept) - len(np.unique(curve))
        if degrees == 0 or between <= 1e-9 * len(x):
            return Strengths(swept, mean, 1.0)
        ratio = between / degrees / max(rest / free, 1e-12)
        p_value = max(p_value, float(special.fdtrc(degrees, free, ratio)))
    return Strengths(swept, mean, p_value)


def _additive(y: Floats, at: NDArray[np.int64], seed: NDArray[np.int64]) -> tuple[Floats, float, int]:
    """y as the sum of a strength's and a seed's part, by least squares: the means by strength at the average seed, the
    sum of squares around the sum, and its degrees of freedom."""
    n, m = np.bincount(at), np.bincount(seed)
    effect, part = np.bincount(at, y) / n, np.zeros(len(m))
    for _ in range(50 if len(m) > 1 else 0):  # backfitting: at once where every seed has every strength
        part = np.bincount(seed, y - effect[at]) / m
        part -= (part * m).sum() / m.sum()
        effect = np.bincount(at, y - part[seed]) / n
    rest = float(((y - effect[at] - part[seed]) ** 2).sum())
    return effect, rest, len(y) - len(n) - (len(m) - 1)


class Linear(NamedTuple):
    """Pearson's r with its 95% interval (Fisher's z) and two-sided p-value; nan where x or y is constant."""

    r: float
    low: float
    high: float
    p_value: float


def pearson(x: ArrayLike, y: ArrayLike) -> Linear:
    """Pearson's r of two samples (n,), as `scipy.stats.pearsonr` has it, which takes longer to load than all these take
    to compute. The interval needs n ≥ 4, and is nan below.

    Raises `ValueError` for samples of different or less than three entries.
    """
    left, right = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if left.ndim != 1 or left.shape != right.shape or len(left) < 3:
        raise ValueError(f"x, y: shapes {left.shape}, {right.shape}, allowed are two equal ones of at least 3 entries")
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return Linear(*(math.nan,) * 4)
    units = []
    for values in (left, right):
        centred = values - values.mean()
        largest = np.abs(centred).max()  # so that no square is too large
        units.append(centred / (largest * np.linalg.norm(centred / largest, axis=-1)))
    r = max(-1.0, min(1.0, float(np.vecdot(*units))))
    shape = len(left) / 2 - 1
    p_value = 2 * float(special.betaincc(shape, shape, (abs(r) + 1) / 2))
    if len(left) < 4:
        return Linear(r, math.nan, math.nan, p_value)
    half = float(special.ndtri(0.975)) / math.sqrt(len(left) - 3)
    with np.errstate(divide="ignore"):
        low, high = np.tanh(np.arctanh(r) + np.array([-half, half]))
    return Linear(r, float(low), float(high), p_value)


def rho_over_images(x: ArrayLike, values: ArrayLike, *, rng: np.random.Generator) -> tuple[float, float]:
    """95% percentile interval of Spearman's ρ between x (n,) and each model's mean over images, `values` (n, images)
    with nan where undefined, images drawn with replacement: how far ρ depends on which images were measured."""
    left, matrix = np.asarray(x, dtype=float), np.asarray(values, dtype=float)
    known = np.isfinite(matrix)
    drawn = rng.multinomial(matrix.shape[1], np.full(matrix.shape[1], 1 / matrix.shape[1]), size=BOOTSTRAPS)
    counts = drawn @ known.T.astype(float)
    means = (drawn @ np.where(known, matrix, 0).T) / np.where(counts > 0, counts, math.nan)
    means = means[np.isfinite(means).all(1)]
    if len(means) == 0:
        return math.nan, math.nan
    rho = np.clip(_standard_ranks(means) @ _standard_ranks(left), -1, 1)
    low, high = np.quantile(rho, [0.025, 0.975])
    return float(low), float(high)
