"""Where a curve of scores against strength tips over: decision, location, interval (the project's statistics).

The quantity is t80, the log₁₀ strength at which the noise-free, seed-averaged curve falls to 80% of its plateau (the
share is a parameter). Whether there is one is decided by a permutation test on which trials have collapsed, where it
is by a robust fit of a logistic curve, and how well that is known by the union of three intervals: the gap in the grid,
the fit's profile likelihood, and with several seeds a bootstrap.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.lazily import lazily

optimize, stats = lazily("scipy.optimize"), lazily("scipy.stats")

Status = Literal["tipping point", "none in range", "inconclusive", "below range"]
Floats = NDArray[np.float64]

PERMUTATIONS = 9999
BOOTSTRAPS = 999
SIGNIFICANCE = 0.05
_STEEPNESS = (2.0, 6.0, 20.0)
_STEEPEST = 500.0
_SMALLEST_SCALE = 0.005
_REMAINDER = 0.05
_PARAMETERS = 4


@dataclass(frozen=True)
class TippingPoint:
    """A decision, and where the status is "tipping point" a location with its 95% interval, all in log₁₀ strength."""

    status: Status
    log10_strength: float
    """t80; nan where the status is another."""
    low: float
    high: float
    p_value: float
    """Of the decision, by permutation; 1 where no trial has collapsed."""
    plateau: float
    """The score that weak strengths have."""
    bracket: tuple[float, float]
    """The two neighbouring strengths between which trials collapse (log₁₀); nan where the status is another."""
    ec10: float
    """log₁₀ strength at which the fitted curve has lost 10% of its fall; nan where there is no fit."""
    ec50: float
    n: int
    """Trials with a strength above zero."""
    strengths: int
    seeds: int
    flags: tuple[str, ...]
    paper_threshold: float = math.nan
    """The paper's own rule beside it: the strength (not its logarithm); nan: none."""


def fit_curve(
    strength: ArrayLike,
    score: ArrayLike,
    seed: ArrayLike | None = None,
    *,
    share: float = 0.8,
    reference_below: float | None = None,
    baseline: ArrayLike = (),
    rng: np.random.Generator | None = None,
) -> TippingPoint:
    """Decide whether scores collapse with strength, and where; one entry per trial, diverged ones with their score.

    The location is t80 of a logistic curve fitted by soft-ℓ1, clipped to the bracket; its middle (flagged) where the
    whole fall lies between two strengths, so that every place between them fits as well; with four strengths or fewer,
    which cannot tell the curve's four parameters, interpolated between the means (flagged, and without EC10 and EC50).

    Plateau P: the median over the strengths below `reference_below` (default: the lowest quarter of them, at least
    three) of each one's median score; if more than a fifth of those medians lie below `share` of their largest, the
    median of the highest quarter of all (at least three), flagged. A trial has collapsed below share · P. The split of
    the strengths with the greatest excess of collapsed over other trials above it is tested by permuting which trials
    have collapsed, within each seed where every seed has every strength.

    A sweep that has tipped over before it begins has no plateau of its own. `baseline`, the scores of unregularised
    trials, shows that: where `share` of its median is above the plateau of the sweep, it is the plateau (flagged), and
    its trials count as those of one more strength, below all others. Without it such a sweep has nothing to collapse
    from and is "none in range" or, as an excess that is greatest over all strengths is the same in every permutation
    (p = 1), "inconclusive", flagged with the advice to sweep weaker strengths.

    Raises `ValueError` for lengths that differ, strengths that are negative or not finite, scores that are not finite,
    fewer than two distinct strengths above zero, a share outside (0, 1), and a baseline that is not finite.
    """
    x, y, group = check_scores(strength, score, seed, share)
    x = np.log10(x)
    unregularised = np.asarray(baseline, dtype=float)
    if not np.isfinite(unregularised).all():
        raise ValueError("baseline: not finite somewhere, allowed are finite scores")
    rng = np.random.default_rng() if rng is None else rng
    swept = np.unique(x)
    flags: list[str] = []
    plateau = _plateau(x, y, swept, share, reference_below, flags)
    order = np.lexsort((group, x))
    x, y, group = x[order], y[order], group[order]
    seeds = len(np.unique(group))
    starts = np.searchsorted(x, swept)
    before = 0  # trials of the baseline that stand before all others
    if len(unregularised) and plateau < share * np.median(unregularised):
        plateau = float(np.median(unregularised))
        flags.append("plateau taken from the baseline: the weakest strengths lie below it")
        before = len(unregularised)
    scores, blocks = np.concatenate([unregularised[:before], y]), np.concatenate([np.zeros(before, int), group])
    if before:
        starts, blocks = np.concatenate([[0], starts + before]), np.zeros(len(scores), int)
    collapsed = scores < share * plateau
    excess = _excess(collapsed, starts)
    greatest = int(excess.max())

    def answer(
        status: Status,
        p_value: float,
        location: tuple[float, float, float] = (math.nan,) * 3,
        bracket: tuple[float, float] = (math.nan,) * 2,
        effects: tuple[float, float] = (math.nan,) * 2,
    ) -> TippingPoint:
        numbers = (*location, p_value, plateau, bracket, *effects, len(x), len(swept), seeds)
        return TippingPoint(status, *numbers, flags=tuple(flags))

    if greatest <= 0 or plateau <= 0:
        if plateau <= 0:
            flags.append("plateau not above zero")
        return answer("none in range", 1.0)
    p_value = _permutation_p(collapsed, blocks, starts, greatest, rng)
    best = np.flatnonzero(excess == greatest) - bool(before)
    if p_value >= SIGNIFICANCE:
        if best[0] <= 0:
            flags.append("most of the whole range has collapsed: sweep weaker strengths")
        return answer("inconclusive", p_value)
    if best[0] <= 0:
        return answer("below range", p_value)
    bracket = float(swept[best[0] - 1]), float(swept[best[-1]])
    fit = _Logistic(x, y, group, share, plateau, bracket)
    where = fit.location
    if len(swept) <= _PARAMETERS:
        at = np.searchsorted(swept, x)
        where = _isotonic_crossing(swept, at, y, np.ones(len(y)), share * plateau)
        where = min(max(where, bracket[0]), bracket[1])
        flags.append(f"{len(swept)} strengths are too few for the fit: interpolated between the means")
    elif not math.isfinite(where):
        where = sum(bracket) / 2
        flags.append("no fit: the middle of the bracket")
    elif fit.is_steeper_than(bracket):
        where = sum(bracket) / 2
        flags.append("steeper than the grid: the middle of the bracket")
    elif not bracket[0] <= where <= bracket[1]:
        where = min(max(where, bracket[0]), bracket[1])
        flags.append("clipped to the bracket")
    ends = [*bracket]
    if len(x) > _PARAMETERS and math.isfinite(fit.location):
        ends += fit.profile(swept[0], swept[-1], bracket)
    else:
        flags.append("interval without profile")
    if seeds > 1:
        ends += _bootstrap(x, y, swept, share, plateau, rng)
    effects = (fit.effect(0.1), fit.effect(0.5)) if len(swept) > _PARAMETERS else (math.nan,) * 2
    return answer("tipping point", p_value, (float(where), float(min(ends)), float(max(ends))), bracket, effects)


def check_scores(
    strength: ArrayLike, score: ArrayLike, seed: ArrayLike | None, share: float
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """The strengths above 0, their scores, and the number of each one's seed, (n,) each. Raises `ValueError` that names
    the argument for lengths that differ or are zero, numbers that are not finite, strengths below 0 or fewer than two
    of them, and a share outside (0, 1)."""
    x, y = np.asarray(strength, dtype=float), np.asarray(score, dtype=float)
    named = np.zeros(x.shape) if seed is None else np.asarray(seed)
    for name, other in (("score", y), ("seed", named)):
        if x.ndim != 1 or x.shape != other.shape:
            raise ValueError(f"{name}: {other.size} values for {x.size} strengths, allowed is one each")
    if len(x) == 0:
        raise ValueError("strength: empty, allowed is at least one trial")
    if not 0 < share < 1:
        raise ValueError(f"share: {share}, allowed are numbers between 0 and 1")
    for value in x[~(np.isfinite(x) & (x >= 0))]:
        raise ValueError(f"strength: {value}, allowed are finite numbers of at least 0")
    for value in y[~np.isfinite(y)]:
        raise ValueError(f"score: {value}, allowed are finite numbers; leave failed trials out")
    positive = x > 0
    distinct = len(np.unique(x[positive]))
    if distinct < 2:
        raise ValueError(f"strength: {distinct} distinct values above 0, allowed are at least 2")
    return x[positive], y[positive], np.unique(named[positive], return_inverse=True)[1]


def _plateau(
    x: Floats, y: Floats, swept: Floats, share: float, reference_below: float | None, flags: list[str]
) -> float:
    medians = np.array([np.median(y[x == value]) for value in swept])
    few = min(len(swept), max(3, math.ceil(len(swept) / 4)))
    if reference_below is None:
        reference = medians[:few]
    else:
        reference = medians[swept < math.log10(reference_below)] if reference_below > 0 else medians[:0]
        if len(reference) == 0:
            raise ValueError(
                f"reference_below: {reference_below}, allowed are numbers above the smallest strength "
                f"{10 ** swept[0]:.6g}"
            )
    if (reference < share * reference.max()).mean() > 0.2:
        flags.append("reference band contaminated")
        reference = np.sort(medians)[-few:]
    return float(np.median(reference))


def _excess(collapsed: NDArray[np.bool_], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Collapsed less other trials from each strength on, trials sorted by strength: (..., n) → (..., strengths)."""
    signs = 2 * collapsed.astype(np.int64) - 1
    return signs[..., ::-1].cumsum(-1)[..., ::-1][..., starts]


def _permutation_p(
    collapsed: NDArray[np.bool_],
    group: NDArray[np.int64],
    starts: NDArray[np.int64],
    greatest: int,
    rng: np.random.Generator,
) -> float:
    bounds = [*starts, len(collapsed)]
    per_strength = [sorted(group[a:b]) for a, b in itertools.pairwise(bounds)]
    crossed = all(members == per_strength[0] for members in per_strength)
    blocks = [np.flatnonzero(group == one) for one in np.unique(group)] if crossed else [np.arange(len(group))]
    reached = 0
    size = max(1, 2_000_000 // len(collapsed))
    for first in range(0, PERMUTATIONS, size):
        number = min(size, PERMUTATIONS - first)
        shuffled = np.empty((number, len(collapsed)), dtype=bool)
        for block in blocks:
            shuffled[:, block] = rng.permuted(np.tile(collapsed[block], (number, 1)), axis=1)
        reached += int((_excess(shuffled, starts).max(1) >= greatest).sum())
    return (reached + 1) / (PERMUTATIONS + 1)


class _Logistic:
    """y = c + (A − c)/(1 + exp(k (x − m))), fitted by soft-ℓ1, and its fall to the share of A."""

    def __init__(
        self, x: Floats, y: Floats, group: NDArray[np.int64], share: float, plateau: float, bracket: tuple[float, float]
    ) -> None:
        self.x, self.y, self.share = x, y, share
        self.scale = max(3 * _noise(x, y, group), _SMALLEST_SCALE)
        self.floor = float(min(y.min(), 0))
        self.top = float(y.max())
        self.lowest, self.highest = float(x[0]), float(x[-1])
        beyond = y[x >= bracket[1]]
        start = plateau, float(np.median(beyond)), sum(bracket) / 2
        self.parameters = self._best(
            [(start[0], min(start[1], 0.99 * start[0]), k, start[2]) for k in _STEEPNESS], self._curve, "soft_l1"
        )
        self.location = math.nan if self.parameters is None else self._t(*self.parameters)

    def _curve(self, parameters: Floats) -> Floats:
        high, low, k, middle = parameters
        return low + (high - low) / (1 + np.exp(np.clip(k * (self.x - middle), -500, 500)))

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
        high, low, k, middle = self.parameters
        ends = low + (high - low) / (1 + np.exp(np.clip(k * (np.array(bracket) - middle), -500, 500)))
        # where strengths are few, the scale is of the fall itself
        least = min(self.scale, _REMAINDER * (high - low))
        return bool(high - ends[0] <= least and ends[1] - low <= least)

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


def _noise(x: Floats, y: Floats, group: NDArray[np.int64]) -> float:
    """MADσ of the differences of successive strengths within a seed: 1.4826 times their median absolute deviation."""
    steps = np.concatenate([np.diff(y[group == one][np.argsort(x[group == one])]) for one in np.unique(group)])
    return float(1.4826 * np.median(np.abs(steps - np.median(steps)))) if len(steps) else 0.0


def _bootstrap(
    x: Floats, y: Floats, swept: Floats, share: float, plateau: float, rng: np.random.Generator
) -> list[float]:
    """2.5% and 97.5% of where falling isotonic curves through resampled trials cross the share of the plateau."""
    at = np.searchsorted(swept, x)
    found = []
    for _ in range(BOOTSTRAPS):
        rows = rng.integers(0, len(x), len(x))
        found.append(_isotonic_crossing(swept, at[rows], y[rows], np.ones(len(rows)), share * plateau))
    return [float(value) for value in np.quantile(found, [0.025, 0.975])]


def _isotonic_crossing(swept: Floats, at: NDArray[np.int64], y: Floats, weight: Floats, level: float) -> float:
    """Where the falling isotonic curve through weighted scores at strengths `swept[at]` crosses the level."""
    total = np.bincount(at, weight, minlength=len(swept))
    there = total > 0
    mean = np.bincount(at, weight * y, minlength=len(swept))[there] / total[there]
    curve = optimize.isotonic_regression(mean, weights=total[there], increasing=False).x
    return _crossing(swept[there], curve, level)


class Difference(NamedTuple):
    """log₁₀ of the ratio of two tipping points, with its 95% interval; nan with a reason where there is none."""

    value: float
    low: float
    high: float
    reason: str = ""


def resampled_locations(
    strength: ArrayLike,
    score: ArrayLike,
    seed: ArrayLike,
    fit: TippingPoint,
    *,
    share: float = 0.8,
    rng: np.random.Generator | None = None,
) -> Floats:
    """t80 of curves of resampled seeds (`BOOTSTRAPS`,), each seed's whole curve at a time: where the falling isotonic
    curve through the mean over seeds crosses `share` of the fitted plateau.

    Two settings that ran the same seeds are paired by equally seeded generators: the same seeds are drawn then.
    Raises `ValueError` as `fit_curve` does.
    """
    x, y, group = check_scores(strength, score, seed, share)
    x = np.log10(x)
    rng = np.random.default_rng() if rng is None else rng
    swept = np.unique(x)
    at, seeds = np.searchsorted(swept, x), len(np.unique(group))
    found = np.empty(BOOTSTRAPS)
    for index in range(BOOTSTRAPS):
        weight = np.bincount(rng.integers(0, seeds, seeds), minlength=seeds).astype(float)[group]
        found[index] = _isotonic_crossing(swept, at, y, weight, share * fit.plateau)
    return found


def location_difference(
    first: TippingPoint, second: TippingPoint, first_resampled: Floats, second_resampled: Floats
) -> Difference:
    """How far the first tipping point lies above the second, in log₁₀ strength.

    The 95% interval is the union of a basic bootstrap over seeds (`resampled_locations` of both) and of all differences
    that the two brackets of the grid allow: never narrower than the grid can tell.
    """
    for fit in (first, second):
        if fit.status != "tipping point":
            return Difference(math.nan, math.nan, math.nan, f"one of the two is {fit.status}")
    for fit in (first, second):
        if fit.seeds < 2:
            return Difference(math.nan, math.nan, math.nan, "one seed: how seeds differ is not known")
    value = first.log10_strength - second.log10_strength
    resampled = first_resampled - second_resampled
    spread = np.quantile(resampled - np.median(resampled), [0.025, 0.975])
    lows = [value - float(spread[1]), first.bracket[0] - second.bracket[1]]
    highs = [value - float(spread[0]), first.bracket[1] - second.bracket[0]]
    return Difference(value, min(lows), max(highs))


def _crossing(x: Floats, y: Floats, level: float) -> float:
    """Where a falling curve crosses the level, between its points linearly; its ends where it does not."""
    below = np.flatnonzero(y < level)
    if len(below) == 0:
        return float(x[-1])
    j = int(below[0])
    if j == 0:
        return float(x[0])
    return float(x[j - 1] + (y[j - 1] - level) / (y[j - 1] - y[j]) * (x[j] - x[j - 1]))
