"""Falling curves through scores against strength: a logistic one, and the isotonic one, and where they cross a level.

Strength rises to the right and scores fall with it; `analysis.tipping_fit` turns what is otherwise round.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.lazily import lazily

optimize, special = lazily("scipy.optimize"), lazily("scipy.special")

Floats = NDArray[np.float64]

BOOTSTRAPS = 999
PARAMETERS = 4
"""Of the logistic curve."""
_STEEPNESS = (2.0, 6.0, 20.0)
_STEEPEST = 500.0
_SMALLEST_SCALE = 0.005
_REMAINDER = 0.05
_WINDOW = 5
"""Strengths of the running median that single trials far away from the curve are told by."""
_AT_ONCE = 500_000
"""Numbers of resampled trials that are held at a time."""


class _Logistic:
    """y = c + (A − c)/(1 + exp(k (x − m))), fitted by soft-ℓ1, and its fall to the share of A."""

    def __init__(
        self, x: Floats, y: Floats, group: NDArray[np.int64], share: float, plateau: float, bracket: tuple[float, float]
    ) -> None:
        self.x, self.y, self.share = x, y, share
        self.scale = noise_scale(x, y, group)
        self.floor = float(min(y.min(), 0))
        self.top = float(y.max())
        self.lowest, self.highest = float(x[0]), float(x[-1])
        self.strengths = len(np.unique(x))
        beyond = y[x >= min(bracket[1], x[-1])]  # a part of the trials may end before the bracket does
        start = plateau, float(np.median(beyond)), sum(bracket) / 2
        starts = [(start[0], min(start[1], 0.99 * start[0]), k, start[2]) for k in _STEEPNESS]
        self.parameters = self._best(starts, self._curve, self._slopes, "soft_l1")
        self.location = math.nan if self.parameters is None else self._t(*self.parameters)

    def _curve(self, parameters: Floats, at: Floats | None = None) -> Floats:
        high, low, k, middle = parameters
        x = self.x if at is None else at
        return low + (high - low) / (1 + np.exp(np.clip(k * (x - middle), -500, 500)))

    def _slopes(self, parameters: Floats) -> Floats:
        """The curve's derivatives (n, 4) by its parameters."""
        high, low, k, middle = parameters
        away = self.x - middle
        part = 1 / (1 + np.exp(np.clip(k * away, -500, 500)))
        by_exponent = (low - high) * part * (1 - part)
        return np.stack([part, 1 - part, by_exponent * away, -k * by_exponent], axis=1)

    def _fits(
        self,
        starts: list[tuple[float, float, float, float]],
        curve: Callable[[Floats], Floats],
        slopes: Callable[[Floats], Floats],
        loss: str,
        enough: float = 0.0,
    ) -> Iterator[tuple[float, Floats]]:
        """The cost at each start's optimum, and where that is; once a cost is `enough`, where that was."""
        span = self.highest - self.lowest
        margin = 0.5 * (self.top - self.floor) + 1e-9
        lower = [self.floor, self.floor - 1e-9, 0.05, self.lowest - span]
        upper = [self.top + margin, self.top + margin, _STEEPEST, self.highest + span]

        def is_enough(intermediate_result: Any) -> None:
            if intermediate_result.cost <= enough:
                raise StopIteration

        for start in starts:
            inside = np.clip(start, np.array(lower) + 1e-12, np.array(upper) - 1e-12)
            try:
                fit = optimize.least_squares(
                    lambda parameters: curve(parameters) - self.y,
                    inside,
                    slopes,
                    bounds=(lower, upper),
                    loss=loss,
                    f_scale=self.scale,
                    max_nfev=100,
                    callback=is_enough,
                )
            except ValueError:
                continue  # residuals that are not finite: this start leads nowhere
            yield fit.cost, fit.x

    def _best(
        self,
        starts: list[tuple[float, float, float, float]],
        curve: Callable[[Floats], Floats],
        slopes: Callable[[Floats], Floats],
        loss: str,
    ) -> Floats | None:
        return min(self._fits(starts, curve, slopes, loss), key=lambda fit: fit[0], default=(math.inf, None))[1]

    def _offset(self, high: float, low: float, k: float) -> float:
        """How far above the middle the curve falls to the share of its plateau; nan if it never does."""
        fraction = (high - low) / (self.share * high - low) - 1 if self.share * high > low else math.nan
        return math.log(fraction) / k if fraction > 0 else math.nan

    def _t(self, high: float, low: float, k: float, middle: float) -> float:
        return middle + self._offset(high, low, k)

    def is_steeper_than(self, bracket: tuple[float, float]) -> bool:
        """Whether the whole fall lies within the bracket, but for the noise: then no trial tells where in the bracket,
        and every such curve fits as well."""
        if self.parameters is None:
            return False
        high, low = self.parameters[:2]
        ends = self._curve(self.parameters, np.array(bracket))
        # where strengths are few, the scale is of the fall itself
        least = min(self.scale, _REMAINDER * (high - low))
        return bool(high - ends[0] <= least and ends[1] - low <= least)

    def at(self, strength: Floats) -> Floats:
        """The curve at these log₁₀ strengths."""
        assert self.parameters is not None
        return self._curve(self.parameters, strength)

    def effect(self, part: float) -> float:
        """log₁₀ strength at which the curve has lost this part of its fall."""
        if self.parameters is None:
            return math.nan
        _, _, k, middle = self.parameters
        return float(middle + math.log(part / (1 - part)) / k)

    def profile(
        self, lowest: float, highest: float, inside: tuple[float, float], contained: Sequence[float] = ()
    ) -> list[float]:
        """Ends of the 95% profile-likelihood interval of t80 within the sweep, linear loss, F(1, n − 4); no nearer than
        those of `inside`. Where an end is no further than the furthest of `contained`, which the interval is to contain
        anyway, it is not looked for: that of `inside` stands for it."""
        assert self.parameters is not None
        high, low, k, middle = (float(value) for value in self.parameters)
        starts = [(high, low, k, middle), *((high, low, k, middle) for k in _STEEPNESS)]
        full = self._best(starts, self._curve, self._slopes, "linear")
        if full is None:
            return []
        least = float(((self._curve(full) - self.y) ** 2).sum())
        limit = least * (1 + special.fdtri(1, len(self.x) - 4, 0.95) / (len(self.x) - 4))
        centre = self._t(*full)
        if not math.isfinite(centre):
            return []
        centre = min(max(centre, lowest), highest)

        def is_within(t: float) -> bool:
            return self._has_curve(t, full, limit)

        ends = []
        for furthest_of, end, known in (
            (min, lowest, min(inside[0], centre)),
            (max, highest, max(inside[1], centre)),
        ):
            within, outside = known, known
            furthest = furthest_of((known, *contained))
            if furthest == end or not is_within(furthest) or not is_within(known):
                ends.append(known)
                continue
            step = (highest - lowest) / 64 * (1 if end > centre else -1)
            while outside != end:
                outside = min(outside + step, end) if step > 0 else max(outside + step, end)
                if not is_within(outside):
                    break
                within, step = outside, 1.5 * step
            else:
                ends.append(end)
                continue
            for _ in range(8):
                half = (within + outside) / 2
                within, outside = (half, outside) if is_within(half) else (within, half)
            ends.append((within + outside) / 2)
        return ends

    def _has_curve(self, t: float, full: Floats, limit: float) -> bool:
        """Whether a curve that falls to the share of its plateau at t has a sum of squares up to the limit."""
        curve, slopes = self._through(t)
        starts = [(float(full[0]), float(full[1]), k, t) for k in (float(full[2]), _STEEPNESS[1])]
        tried = itertools.chain(
            map(np.array, starts), (best for _, best in self._fits(starts, curve, slopes, "linear", limit / 2))
        )
        return any(float(((curve(parameters) - self.y) ** 2).sum()) <= limit for parameters in tried)

    def _through(self, t: float) -> tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]:
        """The curve that falls to the share of its plateau at t, whatever its fourth parameter, and its derivatives."""

        def curve(parameters: Floats) -> Floats:
            high, low, k, _ = parameters
            offset = self._offset(high, low, k)
            if not math.isfinite(offset):
                return np.full_like(self.x, high)
            return self._curve(np.array([high, low, k, t - offset]))

        def slopes(parameters: Floats) -> Floats:
            high, low, k, _ = parameters
            offset = self._offset(high, low, k)
            if not math.isfinite(offset):
                return np.tile([1.0, 0.0, 0.0, 0.0], (len(self.x), 1))
            found = self._slopes(np.array([high, low, k, t - offset]))
            beyond = self.share * high - low
            found[:, :3] += found[:, 3:] * [(self.share / beyond - 1 / high) / k, -1 / (beyond * k), offset / k]
            found[:, 3] = 0
            return found

        return curve, slopes


def noise_scale(x: Floats, y: Floats, group: NDArray[np.int64]) -> float:
    """How far from a curve a score is no noise: 3 MADσ of the differences of successive strengths, at least .005."""
    return max(3 * _noise(x, y, group), _SMALLEST_SCALE)


def _noise(x: Floats, y: Floats, group: NDArray[np.int64]) -> float:
    """MADσ of the differences of successive strengths within a seed: 1.4826 times their median absolute deviation."""
    if is_scattered(x):
        group = np.zeros(len(x), int)
    steps = np.concatenate(
        [np.diff(y[group == one][np.argsort(x[group == one], kind="stable")]) for one in np.unique(group)]
    )
    return float(1.4826 * np.median(np.abs(steps - np.median(steps)))) if len(steps) else 0.0


def is_scattered(x: Floats) -> bool:
    """Whether most strengths have one trial, as after a search: then seeds are spread over strengths, not crossed with
    them, and what two trials differ in is told by neighbouring strengths, not by those of one seed."""
    return bool(np.median(np.unique(x, return_counts=True)[1]) < 2)


def medians_of(y: Floats, at: NDArray[np.int64]) -> Floats:
    """Each strength's median; trials sorted by strength, `at` numbers them."""
    return np.array([np.median(part) for part in np.split(y, np.flatnonzero(np.diff(at)) + 1)])


class _Isotonic:
    """The falling isotonic curve through the means of the strengths, and where it crosses the level.

    Single trials far off, diverged ones among them, would pull it down at all the strengths before them: scores are
    taken as no further than `scale` from the running median over strengths (Hampel's filter, which leaves a falling
    curve as it is), and the strengths of a dip (`dips`, of those swept) are left out."""

    def __init__(
        self,
        swept: Floats,
        at: NDArray[np.int64],
        y: Floats,
        level: float,
        scale: float,
        dips: NDArray[np.bool_],
    ) -> None:
        self.level, self.scale = level, scale
        medians = medians_of(y, at)
        last = len(swept) - 1
        near = [min(_WINDOW // 2, index, last - index) for index in range(last + 1)]
        centre = np.array([np.median(medians[i - half : i + half + 1]) for i, half in enumerate(near)])[at]
        self.y = np.clip(y, centre - scale, centre + scale)
        self.kept = ~dips[at]

        there = np.bincount(at[self.kept], minlength=len(swept))
        total = np.bincount(at[self.kept], self.y[self.kept], minlength=len(swept))
        self.swept, self.n = swept[there > 0], there[there > 0]
        self.mean = total[there > 0] / self.n
        self.curve = optimize.isotonic_regression(self.mean, weights=self.n, increasing=False).x

    def crossing(self) -> float:
        """Where it crosses the level."""
        return _crossing(self.swept, self.curve, self.level)

    def part_within(self, bracket: tuple[float, float]) -> float:
        """The part of its whole fall that lies within the bracket."""
        first = np.searchsorted(self.swept, bracket[0], side="right") - 1
        last = np.searchsorted(self.swept, bracket[1])
        fall = float(self.curve[0] - self.curve[-1])
        return float(self.curve[first] - self.curve[last]) / fall if fall > 0 else 0.0

    def misfit(self, fit: _Logistic) -> float:
        """p of the fitted curve against the isotonic one, by χ² of what their sums of squares differ in.

        The noise is taken as that of a difference of two scores, twice a score's variance: known from few trials, it
        had better not be taken for too small."""
        squares = [(self.n * (self.mean - other) ** 2).sum() for other in (fit.at(self.swept), self.curve)]
        free = max(len(np.unique(self.curve)) - PARAMETERS, 1)
        return float(special.chdtrc(free, max(squares[0] - squares[1], 0.0) / (self.scale / 3) ** 2))


def _bootstrap(
    x: Floats, y: Floats, swept: Floats, share: float, plateau: float, rng: np.random.Generator
) -> list[float]:
    """2.5% and 97.5% of where falling isotonic curves through resampled trials cross the share of the plateau.

    Pairs of strength and score are drawn; where seeds are scattered over strengths, which are the design's, scores
    within each strength: to leave strengths out would tell of the design and not of the noise."""
    at = np.searchsorted(swept, x)
    _, begins, number = np.unique(at, return_index=True, return_counts=True)
    begins, number = np.repeat(begins, number), np.repeat(number, number)
    scattered, found, level = is_scattered(x), [], share * plateau
    size = max(1, _AT_ONCE // max(len(x), len(swept)))
    for first in range(0, BOOTSTRAPS, size):
        shape = min(size, BOOTSTRAPS - first), len(x)
        rows = begins + rng.integers(0, number, shape) if scattered else rng.integers(0, len(x), shape)
        places = at[rows] + len(swept) * np.arange(shape[0])[:, None]
        weight, total = (
            np.bincount(places.ravel(), values, minlength=len(swept) * shape[0]).astype(float).reshape(-1, len(swept))
            for values in (None, y[rows].ravel())
        )
        found.append(isotonic_crossings(swept, weight, total, level))
    return [float(value) for value in np.quantile(np.concatenate(found), [0.025, 0.975])]


def isotonic_crossings(swept: Floats, weight: Floats, total: Floats, level: float) -> Floats:
    """Where falling isotonic curves through scores at strengths `swept` (S,) cross the level, (B,); given are each
    one's sums of weights and of weighted scores by strength (B, S). Strengths of weight 0 are none of the curve's.

    A falling isotonic curve is below a level from where on the scores' distance below it, summed to the end, is the
    largest; left and right of there it is what is isotonic through each part alone: it ends left at the least mean of
    scores from some strength to there, and begins right at the greatest mean from there to some strength.
    """
    curves, strengths = weight.shape
    ends = np.arange(curves)
    there, places = weight > 0, np.arange(strengths)
    below = np.zeros((curves, strengths + 1))
    below[:, :-1] = (level * weight - total)[:, ::-1].cumsum(1)[:, ::-1]
    # scores that are the level are not below it, whatever rounding says
    most = below.max(1, keepdims=True) - 1e-12 * (1 + abs(level)) * weight.sum(1, keepdims=True)
    first = strengths - (below >= most)[:, ::-1].argmax(1)
    previous = np.maximum.accumulate(np.where(there, places, -1), axis=1)
    left, right = previous[ends, np.maximum(first, 1) - 1], np.minimum(first, strengths - 1)
    n, y = (np.pad(part.cumsum(1), ((0, 0), (1, 0))) for part in (weight, total))
    with np.errstate(invalid="ignore", divide="ignore"):
        to_left = (y[ends, left + 1][:, None] - y[:, :-1]) / (n[ends, left + 1][:, None] - n[:, :-1])
        to_right = (y[:, 1:] - y[ends, first][:, None]) / (n[:, 1:] - n[ends, first][:, None])
        high = np.where(there & (places <= left[:, None]), to_left, math.inf).min(1)
        low = np.where(there & (places >= first[:, None]), to_right, -math.inf).max(1)
        crossing = swept[left] + (high - level) / (high - low) * (swept[right] - swept[left])
    last = previous[:, -1]
    return np.where(first > last, swept[last], np.where((first == 0) | (left < 0), swept[right], crossing))


def _crossing(x: Floats, y: Floats, level: float) -> float:
    """Where a falling curve crosses the level, between its points linearly; its ends where it does not."""
    below = np.flatnonzero(y < level)
    if len(below) == 0:
        return float(x[-1])
    j = int(below[0])
    if j == 0:
        return float(x[0])
    return float(x[j - 1] + (y[j - 1] - level) / (y[j - 1] - y[j]) * (x[j] - x[j - 1]))
