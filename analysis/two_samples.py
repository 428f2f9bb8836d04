"""A setting's scores against a reference's: their difference with its interval, tests, how many seeds it needs."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.lazily import lazily

special, stats = lazily("scipy.special"), lazily("scipy.stats")

Alternative = Literal["two-sided", "greater", "less"]
Floats = NDArray[np.float64]

SIGNIFICANCE = 0.05
POWER = 0.8
BOOTSTRAPS = 9999
# from how many seeds on
WILCOXON_FROM = 6
IQM_FROM = 10

# differences that are equal on paper differ by rounding; relative to the largest score
_ROUNDING = 1e-12
# arrangements of two arms with ties that are enumerated: all of up to eight seeds each
_ENUMERATED = 12870
_NOT_ASKED_FOR = "not asked for"
# numbers of seeds whose power is computed at once
_AT_ONCE = 8


@dataclass(frozen=True)
class Comparison:
    """A setting's scores against a reference's. What cannot be computed is nan or None, with its reason beside it."""

    test: Literal["paired t", "Welch t"]
    alternative: Alternative
    n: int
    """Scores of the setting; if paired, the pairs."""
    n_reference: int
    mean: float
    mean_reference: float
    sd: float
    """Standard deviation over seeds (n − 1); nan for fewer than two."""
    sd_reference: float
    difference: float
    """mean − mean_reference."""
    low: float
    """Ends of the 95% interval of the difference: two-sided, whatever the alternative."""
    high: float
    t: float
    df: float
    p_value: float
    """In (0, 1]; nan: not testable, for `reason`."""
    effect_size: float
    effect: Literal["d_z", "Hedges' g"]
    """d_z: mean over standard deviation of the pairs' differences. Hedges' g: difference over the pooled standard
    deviation, corrected for its bias."""
    wilcoxon_p: float | None
    """Signed-rank test if paired, else Mann–Whitney; exact where small."""
    wilcoxon_reason: str
    """Why there is none."""
    iqm_difference: float | None
    """Difference of the interquartile means."""
    iqm_low: float | None
    iqm_high: float | None
    iqm_reason: str
    seeds_needed: int | None
    """Seeds (of each) with which a two-sided test at .05 shows the difference seen, with the spread seen, with a chance
    of 80%; None: not testable, or no difference seen."""
    reason: str
    """Why it is not testable; empty: it is."""

    @property
    def testable(self) -> bool:
        return not self.reason


def compare(
    scores: ArrayLike,
    reference: ArrayLike,
    *,
    paired: bool,
    alternative: Alternative = "two-sided",
    rng: np.random.Generator | int | None = None,
    robust: bool = True,
) -> Comparison:
    """Scores (n,) of a setting against those (m,) of a reference, one per seed; `paired`: entries i are of one seed.

    Student's t-test of the differences if paired, else Welch's, with a two-sided 95% t interval. "greater": the
    alternative is that the setting's mean is greater. From 6 seeds (of each) on Wilcoxon's signed-rank test or
    Mann–Whitney's. From 10 on the difference of interquartile means (the mean without the lowest and the highest
    quarter: `scipy.stats.trim_mean`, as rliable, Agarwal et al. 2021, has it) with the percentile interval of 9999
    stratified bootstraps: each arm is drawn from itself, and pairs are drawn as pairs. `rng` draws them (default: a new
    generator); equal seeds in its place draw the same. Both are left out where they are not asked for (`robust`).

    Not testable are fewer than two seeds, and scores without any variance, whether they differ or not: equal
    differences of all pairs, or two arms of equal values. Differences below 1e-12 of the largest score are rounding.

    Raises `ValueError` for scores that are not finite or not in one dimension, pairs of different lengths, and another
    alternative.
    """
    x, y = np.asarray(scores, dtype=float), np.asarray(reference, dtype=float)
    if alternative not in get_args(Alternative):
        raise ValueError(f"alternative: {alternative!r}, allowed are {', '.join(get_args(Alternative))}")
    for name, values in (("scores", x), ("reference", y)):
        if values.ndim != 1:
            raise ValueError(f"{name}: shape {values.shape}, allowed is one dimension")
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: not finite somewhere, allowed are finite numbers; leave the others out")
    if paired and len(x) != len(y):
        raise ValueError(f"reference: {len(y)} values for {len(x)} scores, allowed is one each where they are paired")
    scale = float(np.abs(np.concatenate([x, y, [0.0]])).max())
    reason = _not_testable(x, y, paired, _ROUNDING * scale)
    difference = _mean(x - y) if paired else _mean(x) - _mean(y)
    low = high = t = df = p_value = effect_size = math.nan
    needed = None
    if not reason:
        if paired:
            spread, spread_reference = _sd(x - y), None
            error, df = spread / math.sqrt(len(x)), len(x) - 1.0
            effect_size = difference / spread
        else:
            spread, spread_reference = _sd(x), _sd(y)
            error, df = _welch(spread, spread_reference, len(x), len(y))
            effect_size = _hedges_g(difference, spread, spread_reference, len(x), len(y))
        t = difference / error
        # the functions of scipy's `stats.t`, which takes a hundred times as long to call them
        tail = {"two-sided": -abs(t), "greater": -t, "less": t}[alternative]
        p_value = (2 if alternative == "two-sided" else 1) * float(special.stdtr(df, tail))
        # never zero, where the tail is too small for a float
        p_value = max(p_value, sys.float_info.min)
        half = -float(special.stdtrit(df, SIGNIFICANCE / 2)) * error
        low, high = difference - half, difference + half
        if abs(difference) > _ROUNDING * scale:
            needed = seeds_needed(difference, spread, spread_reference)
    wilcoxon_p, wilcoxon_reason = None, _NOT_ASKED_FOR
    iqm, iqm_reason = None, _NOT_ASKED_FOR
    if robust:
        wilcoxon_p, wilcoxon_reason = _wilcoxon(x, y, paired, alternative, _ROUNDING * scale, reason)
        iqm, iqm_reason = _iqm(x, y, paired, rng)
    return Comparison(
        test="paired t" if paired else "Welch t",
        alternative=alternative,
        n=len(x),
        n_reference=len(y),
        mean=_mean(x),
        mean_reference=_mean(y),
        sd=_sd(x),
        sd_reference=_sd(y),
        difference=difference,
        low=low,
        high=high,
        t=t,
        df=df,
        p_value=p_value,
        effect_size=effect_size,
        effect="d_z" if paired else "Hedges' g",
        wilcoxon_p=wilcoxon_p,
        wilcoxon_reason=wilcoxon_reason,
        iqm_difference=None if iqm is None else iqm[0],
        iqm_low=None if iqm is None else iqm[1],
        iqm_high=None if iqm is None else iqm[2],
        iqm_reason=iqm_reason,
        seeds_needed=needed,
        reason=reason,
    )


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _sd(values: Floats) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _not_testable(x: Floats, y: Floats, paired: bool, rounding: float) -> str:
    """Why, in words; empty: testable."""
    for n, said in enumerate(("no seed", "one seed")):
        for values, where in ((x, ""), (y, " in the reference")):
            if len(values) == n:
                return f"{said}{where}"
    if not paired:
        return "no variance in either arm" if max(np.ptp(x), np.ptp(y)) <= rounding else ""
    if np.ptp(x - y) > rounding:
        return ""
    if abs(_mean(x - y)) <= rounding:
        return "no variance: equal to the reference in every seed"
    return "no variance: the same difference in every seed"


def _welch(sd: float, sd_reference: float, n: int, n_reference: int) -> tuple[float, float]:
    """Standard error of the difference of two means, and its degrees of freedom by Welch and Satterthwaite."""
    error, error_reference = sd / math.sqrt(n), sd_reference / math.sqrt(n_reference)
    both = math.hypot(error, error_reference)
    return both, 1 / ((error / both) ** 4 / (n - 1) + (error_reference / both) ** 4 / (n_reference - 1))


def _hedges_g(difference: float, sd: float, sd_reference: float, n: int, n_reference: int) -> float:
    """Hedges (1981): Cohen's d of the pooled deviation times the exact correction by the gamma function."""
    df = n + n_reference - 2
    pooled = math.sqrt(((n - 1) * sd**2 + (n_reference - 1) * sd_reference**2) / df)
    correction = math.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / math.sqrt(df / 2)
    return difference / pooled * correction


def seeds_needed(
    difference: float,
    sd: float,
    sd_reference: float | None = None,
    *,
    power: float = POWER,
    level: float = SIGNIFICANCE,
) -> int:
    """The smallest number of seeds with which a two-sided t-test at `level` shows `difference` with power `power`.

    From the noncentral t distribution (both tails, as R's `power.t.test(strict = TRUE)`). Without `sd_reference` the
    test is paired and `sd` that of the pairs' differences; with it, Welch's test with this many seeds in each arm, its
    degrees of freedom by Welch and Satterthwaite (equal deviations: R's two-sample test).

    Raises `ValueError` for a difference of zero, deviations that are negative or both zero, numbers that are not
    finite, and a power or level outside (0, 1).
    """
    spreads = [sd] if sd_reference is None else [sd, sd_reference]
    if not (math.isfinite(difference) and difference != 0):
        raise ValueError(f"difference: {difference}, allowed are finite numbers other than 0")
    if not all(math.isfinite(value) and value >= 0 for value in spreads) or max(spreads) == 0:
        raise ValueError(f"sd: {', '.join(map(str, spreads))}, allowed are finite numbers, one of them above 0")
    for name, value in (("power", power), ("level", level)):
        if not 0 < value < 1:
            raise ValueError(f"{name}: {value}, allowed are numbers between 0 and 1")
    effect = abs(difference) / math.hypot(*spreads)
    # what a test with known deviation needs: less than a t-test does, and the same in the limit
    n = (float(-special.ndtri(level / 2) + special.ndtri(power)) / effect) ** 2
    if n > 1e6:
        return math.ceil(n)
    numbers = max(2, math.floor(n) - 2) + np.arange(_AT_ONCE)
    while True:
        found = _power(effect, numbers, spreads, level)
        enough = [*np.flatnonzero(found >= power), len(found)][0]
        assert np.isfinite(found[: enough + 1]).all()
        if enough < len(found):
            return int(numbers[enough])
        numbers = numbers + _AT_ONCE


def _power(effect: float, n: NDArray[np.int64], spreads: Sequence[float], level: float) -> Floats:
    df = (
        n - 1.0
        if len(spreads) == 1
        else np.array([_welch(spreads[0], spreads[1], each, each)[1] for each in n.tolist()])
    )
    limit, shift = -special.stdtrit(df, level / 2), effect * np.sqrt(n)
    # beyond where the noncentral distribution is evaluated well, and far beyond any power asked for, it is 1
    found = np.ones(len(n))
    within = shift <= 30 * np.maximum(1.0, limit)
    limit, df, shift = limit[within], df[within], shift[within]
    beyond = stats.nct.sf(limit, df, shift)
    # the other tail, less than that of the normal distribution below -shift, is nan where it is next to nothing
    found[within] = beyond + np.nan_to_num(special.nctdtr(df, shift, -limit))
    return found


def _wilcoxon(
    x: Floats, y: Floats, paired: bool, alternative: Alternative, rounding: float, reason: str
) -> tuple[float | None, str]:
    if min(len(x), len(y)) < WILCOXON_FROM:
        if paired and alternative == "two-sided":
            return None, f"cannot reach .05 below {WILCOXON_FROM} seeds"
        return None, f"from {WILCOXON_FROM} seeds{'' if paired else ' of each'} on"
    if reason:
        return None, reason
    if paired:
        difference = x - y
        if rounding:
            # ties are ties, though they may differ by rounding
            difference = np.round(difference / rounding) * rounding
        # exact up to 13 pairs; without ties and zeros up to 50
        return float(stats.wilcoxon(difference, alternative=alternative).pvalue), ""
    method: Any = "asymptotic"
    if len(np.unique(np.concatenate([x, y]))) < len(x) + len(y):
        if math.comb(len(x) + len(y), len(x)) <= _ENUMERATED:
            method = stats.PermutationMethod(n_resamples=_ENUMERATED)
    elif max(len(x), len(y)) < 50:
        method = "exact"
    return float(stats.mannwhitneyu(x, y, alternative=alternative, method=method).pvalue), ""


def _iqm(
    x: Floats, y: Floats, paired: bool, rng: np.random.Generator | int | None
) -> tuple[tuple[float, float, float] | None, str]:
    """Difference of the interquartile means and the ends of its 95% bootstrap interval."""
    if min(len(x), len(y)) < IQM_FROM:
        return None, f"from {IQM_FROM} seeds{'' if paired else ' of each'} on"
    sizes = (len(x),) if paired else (len(x), len(y))
    counts = _equally_drawn(rng, *sizes) if isinstance(rng, int) else _drawn(np.random.default_rng(rng), *sizes)
    replicates = _iqm_of(x, counts[0]) - _iqm_of(y, counts[-1])
    low, high = np.quantile(replicates, [SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2])
    return (float(stats.trim_mean(x, 0.25) - stats.trim_mean(y, 0.25)), float(low), float(high)), ""


def _drawn(rng: np.random.Generator, *sizes: int) -> list[Floats]:
    """How often each entry of samples of these sizes is in each bootstrap: (BOOTSTRAPS, size) each."""
    counts = []
    for size in sizes:
        drawn = rng.integers(size, size=(BOOTSTRAPS, size)) + size * np.arange(BOOTSTRAPS)[:, None]
        counts.append(np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(float))
    return counts


@functools.lru_cache(maxsize=4)
def _equally_drawn(seed: int, *sizes: int) -> list[Floats]:
    return _drawn(np.random.default_rng(seed), *sizes)


def _iqm_of(values: Floats, counts: Floats) -> Floats:
    """Interquartile means of bootstraps with so many of each value: of a sorted sample, its middle."""
    order = np.argsort(values, kind="stable")
    cut = len(values) // 4
    # how many of a bootstrap's middle are among the so many smallest values
    among = np.clip(counts[:, order].cumsum(axis=1), cut, len(values) - cut)
    return np.diff(among, axis=1, prepend=cut) @ values[order] / (len(values) - 2 * cut)


def stars(p_value: float) -> str:
    """As in the tables of the LOCO-REG paper: "***" for p < .001, "**" for p < .01, "*" for p < .1; nan has none."""
    return next((marks for limit, marks in ((0.001, "***"), (0.01, "**"), (0.1, "*")) if p_value < limit), "")
