"""Falling curves through scores against strength: a logistic one, and the isotonic one, and where they cross a level.

Strength rises to the right and scores fall with it; `analysis.tipping_fit` turns what is otherwise round.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from analysis.lazily import lazily

optimize, stats = lazily("scipy.optimize"), lazily("scipy.stats")

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
        beyond = y[x >= bracket[1]]
        start = plateau, float(np.median(beyond)), sum(bracket) / 2
        self.parameters = self._best(
            [(start[0], min(start[1], 0.99 * start[0]), k, start[2]) for k in _STEEPNESS], self._curve, "soft_l1"
        )
        self.location = math.nan if self.parameters is None else self._t(*self.parameters)

    def _curve(self, parameters: Floats, at: Floats | None = None) -> Floats:
        high, low, k, middle = parameters
        x = self.x if at is None else at
        return low + (high - low) / (1 + np.exp(np.clip(k * (x - middle), -500, 500)))

    def _best(
        self, starts: list[tuple[float, float, float, float]], curve: Callable[[Floats], Floats], loss: str
    ) -> Floats | None:
        span = self.highest - self.lowest
        margin = 0.5 * (self.top - self.floor) + 1e-9
        lower = [self.floor, self.floor - 1e-9, 0.05, self.lowest - span]
        upper = [self.top + margin, self.top + margin, _STEEPEST, self.highest + span]
        best = None
        for start in starts:
            inside = np.clip(start, np.array(lower) + 1e-12, np.array(upper) - 1e-12)
            try:
                fit = optimize.least_squares(
                    lambda parameters: curve(parameters) - self.y,
                    inside,
                    bounds=(lower, upper),
                    loss=loss,
                    f_scale=self.scale,
                    max_nfev=100,
                )
            except ValueError:
                continue  # residuals that are not finite: this start leads nowhere
            if best is None or fit.cost < best.cost:
                best = fit
        return None if best is None else best.x

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

    def profile(self, lowest: float, highest: float, inside: tuple[float, float]) -> list[float]:
        """Ends of the 95% profile-likelihood interval of t80 within the sweep, linear loss, F(1, n − 4); no nearer than
        those of `inside`, which the interval is to contain anyway."""
        assert self.parameters is not None
        high, low, k, middle = (float(value) for value in self.parameters)
        full = self._best(
            [(high, low, k, middle), *((high, low, k, middle) for k in _STEEPNESS)], self._curve, "linear"
        )
        if full is None:
            return []
        least = float(((self._curve(full) - self.y) ** 2).sum())
        limit = least * (1 + stats.f.ppf(0.95, 1, len(self.x) - 4) / (len(self.x) - 4))
        centre = self._t(*full)
        if not math.isfinite(centre):
            return []
        centre = min(max(centre, lowest), highest)

        def excess(t: float) -> float:
            return self._profile_rss(t, full) - limit

        ends = []
        for end, known in ((lowest, min(inside[0], centre)), (highest, max(inside[1], centre))):
            within, outside = known, known
            if excess(known) > 0:
                ends.append(known)
                continue
            step = (highest - lowest) / 64 * (1 if end > centre else -1)
            while outside != end:
                outside = min(outside + step, end) if step > 0 else max(outside + step, end)
                if excess(outside) > 0:
                    break
                within, step = outside, 1.5 * step
            else:
                ends.append(end)
                continue
            for _ in range(8):
                half = (within + outside) / 2
                within, outside = (half, outside) if excess(half) <= 0 else (within, half)
            ends.append((within + outside) / 2)
        return ends

    def _profile_rss(self, t: float, full: Floats) -> float:
        """Least sum of squares of a curve that falls to the share of its plateau at t."""

        def curve(parameters: Floats) -> Floats:
            high, low, k, _ = parameters
            offset = self._offset(high, low, k)
            if not math.isfinite(offset):
                return np.full_like(self.x, high)
            return self._curve(np.array([high, low, k, t - offset]))

        starts = [(float(full[0]), float(full[1]), k, t) for k in (float(full[2]), _STEEPNESS[1])]
        best = self._best(starts, curve, "linear")
        return math.inf if best is None else float(((curve(best) - self.y) ** 2).sum())


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
        return float(stats.chi2.sf((squares[0] - squares[1]) / (self.scale / 3) ** 2, free))


def _bootstrap(
    x: Floats, y: Floats, swept: Floats, share: float, plateau: float, rng: np.random.Generator
) -> list[float]:
    """2.5% and 97.5% of where falling isotonic curves through resampled trials cross the share of the plateau.

    Pairs of strength and score are drawn; where seeds are scattered over strengths, which are the design's, scores
    within each strength: to leave strengths out would tell of the design and not of the noise."""
    at = np.searchsorted(swept, x)
    _, begins, number = np.unique(at, return_index=True, return_counts=True)
    begins, number = np.repeat(begins, number), np.repeat(number, number)
    scattered, found = is_scattered(x), []
    for _ in range(BOOTSTRAPS):
        rows = begins + rng.integers(0, number) if scattered else rng.integers(0, len(x), len(x))
        found.append(_isotonic_crossing(swept, at[rows], y[rows], np.ones(len(rows)), share * plateau))
    return [float(value) for value in np.quantile(found, [0.025, 0.975])]


def _isotonic_crossing(swept: Floats, at: NDArray[np.int64], y: Floats, weight: Floats, level: float) -> float:
    """Where the falling isotonic curve through weighted scores at strengths `swept[at]` crosses the level."""
    total = np.bincount(at, weight, minlength=len(swept))
    there = total > 0
    mean = np.bincount(at, weight * y, minlength=len(swept))[there] / total[there]
    curve = optimize.isotonic_regression(mean, weights=total[there], increasing=False).x
    return _crossing(swept[there], curve, level)


def _crossing(x: Floats, y: Floats, level: float) -> float:
    """Where a falling curve crosses the level, between its points linearly; its ends where it does not."""
    below = np.flatnonzero(y < level)
    if len(below) == 0:
        return float(x[-1])
    j = int(below[0])
    if j == 0:
        return float(x[0])
    return float(x[j - 1] + (y[j - 1] - level) / (y[j - 1] - y[j]) * (x[j] - x[j - 1]))
