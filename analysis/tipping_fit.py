"""Where a curve of scores against strength tips over: decision, location, interval (the project's statistics).

The quantity is t80, the log₁₀ strength at which the noise-free, seed-averaged curve falls to 80% of its plateau (the
share is a parameter); of a metric of which less is better, where it rises to the plateau over the share. Whether there
is one is decided by a permutation test on which trials have collapsed, where it is by a robust fit of a logistic curve
or, where that does not fit, by the isotonic curve, and how well that is known by the union of three intervals: the gap
in the grid, the fit's profile likelihood, and with several seeds a bootstrap.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.lazily import lazily
from analysis.schema import Direction, Stronger
from analysis.tipping_curves import (
    BOOTSTRAPS,
    PARAMETERS,
    Floats,
    _bootstrap,
    _Isotonic,
    _Logistic,
    isotonic_crossings,
    medians_of,
    noise_scale,
)

Status = Literal["tipping point", "none in range", "inconclusive", "below range"]
LocatedBy = Literal["", "logistic", "isotonic", "middle of the bracket"]

special = lazily("scipy.special")

PERMUTATIONS = 9999
SIGNIFICANCE = 0.05
_MISFIT = 0.01
"""p of the logistic curve against the isotonic one below which the latter is the location."""
_CLIFF = 0.75
"""Part of an isotonic curve's fall within the bracket from which on it tells no place in it."""
_UPPER = 2.5
_NOISIER = 0.01
"""Of the test whether trials scatter more where the curve falls."""
_SAME = 1e-9
_DEEP = 0.1
"""Of the plateau: a strength that far below the level has not got there by noise."""
WEAK_END = "worse at the weak end"
"""How a reason begins where weak strengths have collapsed and the strongest has not: there is nothing to sweep."""
_KNOWN_FROM = 3
"""Strengths below the fall that a plateau is known from."""


@dataclass(frozen=True)
class TippingPoint:
    """A decision, and where the status is "tipping point" a location with its 95% interval, all in log₁₀ strength; low,
    high and bracket in the order of numbers, also where smaller strengths are the stronger ones."""

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
    reason: str = ""
    """Why there is no location, and what to do."""
    located_by: LocatedBy = ""
    dips: tuple[float, ...] = ()
    """Strengths (not their logarithms) weaker than the tipping point at which most seeds have collapsed."""
    stronger: Stronger = "larger"
    direction: Direction = "max"


def fit_curve(
    strength: ArrayLike,
    score: ArrayLike,
    seed: ArrayLike | None = None,
    *,
    share: float = 0.8,
    reference_below: float | None = None,
    baseline: ArrayLike = (),
    stronger: Stronger = "larger",
    direction: Direction = "max",
    rng: np.random.Generator | None = None,
) -> TippingPoint:
    """Decide whether scores collapse with strength, and where; one entry per trial, diverged ones with their score.

    `stronger` says which strengths are the stronger ones, `direction` whether more of the score is better ("max") or
    less ("min"). What is said of falling below `share` · P is said of rising above P / `share` where less is better.

    Plateau P: the median over the strengths weaker than `reference_below` (default: the weakest quarter of them, at
    least three) of each one's median score; if more than a fifth of those medians lie below `share` of the best of
    them, the median of the best quarter of all (at least three), flagged. A trial has collapsed below `share` · P. The
    split of the strengths with the greatest excess of collapsed over other trials beyond it is tested by permuting
    which trials have collapsed, within each seed where every seed has every strength, and the baseline is none of them
    (of which it is not known here which trial has which seed).

    A sweep that has tipped over before it begins has no plateau of its own. `baseline`, the scores of unregularised
    trials, shows that: where `share` of its median is above the plateau of the sweep, or fewer than three strengths lie
    below the fall, by either plateau, it is the plateau (flagged), and its trials count as those of one more strength,
    weaker than all others. So it is where fewer than six strengths were swept and no `reference_below` is given: the
    weakest three are most of them then, and have fallen with the others. Without it such a sweep has nothing to
    collapse from: with fewer than three strengths below the fall it is "inconclusive", as it is where the excess is
    greatest over all strengths, which it is in every permutation (p = 1).

    The location is t80 of a logistic curve fitted by soft-ℓ1 (`located_by` "logistic"). It is where the isotonic curve
    crosses the level, within the bracket, ("isotonic", flagged) if the fitted t80 lies outside of the bracket, if the
    fit is worse than the isotonic curve by more than the noise explains (p < .01), and for four strengths or fewer,
    which cannot tell the curve's four parameters (EC10 and EC50 are nan then). It is the bracket's middle (flagged)
    where the fall, or three quarters of it where the logistic curve does not fit, lies between two strengths, so that
    every place between them fits as well.

    Its 95% interval is the union of the bracket, the profile-likelihood interval of t80 and, of several seeds, that of
    a bootstrap. Both are of scores that are taken no further than the noise's scale from their neighbours' median: a
    single diverged trial would make the profile as wide as the sweep. Of a curve located by the isotonic one, or whose
    trials scatter more where it falls, the profile is that of the part up to half of the plateau (at a share of 0.8),
    and none where that does so, too: no logistic curve of one noise describes both.

    A strength weaker than the location at which most seeds have collapsed is a dip, flagged, and one beyond it at which
    most have not, a recovery; the isotonic curve leaves deep dips out, and of splits that are as good as each other the
    location is in the weakest that no deep dip follows.

    Raises `ValueError` for lengths that differ, strengths that are negative or not finite, scores that are not finite,
    fewer than two distinct strengths above zero, a share outside (0, 1), and a baseline that is not finite.
    """
    x, y, group, unregularised, limit = check_curve(
        strength, score, seed, share=share, reference_below=reference_below, baseline=baseline, stronger=stronger
    )
    rng = np.random.default_rng() if rng is None else rng
    # from here on strength rises to the right and scores fall: -x where smaller is stronger, -y where less is better
    to_right, up = 1.0 if stronger == "larger" else -1.0, 1.0 if direction == "max" else -1.0
    y, unregularised = up * y, up * unregularised
    fall = share if direction == "max" else 1 / share
    order = np.lexsort((group, x))
    x, y, group = x[order], y[order], group[order]
    swept = np.unique(x)
    at, starts = np.searchsorted(swept, x), np.searchsorted(x, swept)
    seeds = len(np.unique(group))
    flags: list[str] = []
    plateau = _plateau(x, y, swept, fall, limit, flags)

    def split(before: int, plateau: float) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
        """Which trials have collapsed from a plateau, where each strength starts, and the excess from there on; with so
        many trials of the baseline before all others."""
        collapsed = np.concatenate([unregularised[:before], y]) < fall * plateau
        begins = np.concatenate([[0], starts + before]) if before else starts
        return collapsed, begins, _excess(collapsed, begins)

    before = 0
    why = _why_baseline(split, plateau, unregularised, fall, few=limit is None and len(swept) < 2 * _KNOWN_FROM)
    if why:
        flags.append(f"plateau taken from the baseline: {why}")
        before, plateau = len(unregularised), float(np.median(unregularised))
    collapsed, begins, excess = split(before, plateau)
    greatest = int(excess.max())
    most = np.bincount(at, 2 * collapsed[before:] - 1.0) > 0  # of the trials at a strength
    what = Words(share, stronger, direction)
    # the weakest strengths have collapsed, and the strongest has not: no fall, and no dip in what holds
    weak_end = np.logical_and.accumulate(most) & (not most[-1] and up * plateau > 0)
    there = ", ".join(f"{value:.4g}" for value in 10 ** (to_right * swept[weak_end]))
    reverse = f"{WEAK_END} ({there}), {what.beyond}, than at the strongest" if weak_end.any() else ""

    def answer(status: Status, p_value: float, reason: str = "", dips: NDArray[np.bool_] | None = None) -> TippingPoint:
        none = (math.nan,) * 2
        found = TippingPoint(status, math.nan, *none, p_value, up * plateau, none, *none, len(x), len(swept), seeds, ())
        if status in ("none in range", "inconclusive") and reverse:
            flags.append(reverse)
            dips = (most if dips is None else dips) & ~weak_end
        weaker = 10 ** (to_right * swept[most if dips is None else dips])
        if len(weaker):
            flags.append(
                f"dip at {', '.join(f'{value:.4g}' for value in weaker)}: {what.beyond} in most seeds, though "
                f"{'weaker than the tipping point' if status == 'tipping point' else 'stronger ones are not'}"
            )
        return dataclasses.replace(
            found,
            reason=reason,
            dips=tuple(weaker.tolist()),
            stronger=stronger,
            direction=direction,
            flags=tuple(flags),
        )

    if greatest <= 0 or up * plateau <= 0:
        if up * plateau <= 0:
            flags.append("plateau not above zero")
            return answer("none in range", 1.0, "the plateau is not above zero: judge by another metric", most & False)
        single = int(collapsed[before:].sum())
        never = f"{what.beyond} in {single} of {len(x)} trials, most of no strength" if single else what.never
        never = f"does not stay {what.beyond}" if most.any() else never
        if reverse:
            return answer("none in range", 1.0, reverse)
        return answer("none in range", 1.0, f"{never}: sweep {what.stronger}")
    p_value = _permutation_p(collapsed, np.zeros(len(collapsed), int) if before else group, begins, greatest, rng)
    best = np.flatnonzero(excess == greatest) - bool(before)
    weaker = most & (np.arange(len(swept)) < best[0])
    if best[0] <= 0 and p_value >= SIGNIFICANCE and reverse:
        return answer("inconclusive", p_value, reverse, weaker)
    if best[0] <= 0 and p_value >= SIGNIFICANCE:
        flags.append(f"most of the whole range has collapsed: sweep {what.weaker} strengths")
        return answer("inconclusive", p_value, f"most of the range has collapsed: sweep {what.weaker}", weaker)
    if best[0] <= 0:
        return answer("below range", p_value, f"collapsed from the weakest strength on: sweep {what.weaker}", weaker)
    if best[0] < _KNOWN_FROM and not before:
        flags.append(
            f"plateau not known: fewer than {_KNOWN_FROM} strengths lie below the fall, and there is no baseline"
        )
        reason = f"the plateau is not known: sweep {what.weaker}, or add the baseline"
        return answer("inconclusive", p_value, reason, weaker)
    if p_value >= SIGNIFICANCE:
        return answer("inconclusive", p_value, "too few trials collapse to tell: add seeds or strengths", weaker)
    bracket = float(swept[best[0] - 1]), float(swept[best[-1]])
    # a unit in which the plateau is about 1, as the noise's least scale is of accuracies
    unit = 1.0 if direction == "max" and 0.05 <= plateau <= 1 else abs(plateau)
    y, plateau_here = y / unit, plateau / unit
    level, scale = fall * plateau_here, noise_scale(x, y, group)
    # of splits that are as good as each other the weakest without a dip beyond it: a fall that is not come back from
    deep = medians_of(y, at) < level - min(scale, _DEEP * abs(plateau_here))
    last = best[-1] - 1  # where most have not collapsed, or the split would be there
    own = next(int(j) for j in best if not deep[j:last].any())
    within = float(swept[own - 1]), bracket[1]
    fit = _Logistic(x, y, group, fall, plateau_here, within)
    isotonic = _Isotonic(swept, at, y, level, scale, deep & (swept <= within[0]))
    where, located_by = _locate(fit, isotonic, within, flags)
    ends = [*bracket]
    if seeds > 1:
        ends += _bootstrap(x[isotonic.kept], isotonic.y[isotonic.kept], swept, fall, plateau_here, rng)
    if len(x) > PARAMETERS and math.isfinite(fit.location):
        upper_part = _upper_part(x, isotonic, plateau_here, level)
        local = upper_part if located_by == "isotonic" else np.ones(len(x), bool)
        weaker = x < within[0] + _SAME
        if seeds > 1 and _is_noisier(x, isotonic, weaker, local):
            local = upper_part
            if _is_noisier(x, isotonic, weaker, local):
                local = np.zeros(len(x), bool)  # what the bootstrap says is all that can be said
        if not local.any():
            pass
        elif local.all() or local.sum() <= PARAMETERS:
            fit.y = isotonic.y  # single trials far off would make it as wide as the sweep
            ends += fit.profile(swept[0], swept[-1], bracket, ends)
        else:
            upper = _Logistic(x[local], isotonic.y[local], group[local], fall, plateau_here, within)
            if upper.parameters is not None:
                ends += upper.profile(swept[0], x[local][-1], bracket, ends)
    else:
        flags.append("interval without profile")
    effects = (fit.effect(0.1), fit.effect(0.5)) if len(swept) > PARAMETERS else (math.nan,) * 2
    recovered = 10 ** (
        to_right
        * swept[(np.arange(len(swept)) > best[-1]) & (np.bincount(at, collapsed[before:]) * 2 < np.bincount(at))]
    )
    if len(recovered):
        shown = ", ".join(f"{value:.4g}" for value in recovered)
        flags.append(f"recovers at {shown}: not {what.beyond} in most seeds, though stronger than the tipping point")
    low, high = sorted(to_right * end for end in (min(ends), max(ends)))
    first, last = sorted(to_right * end for end in bracket)
    return dataclasses.replace(
        answer("tipping point", p_value, dips=most & (swept < where)),
        log10_strength=to_right * where,
        low=float(low),
        high=float(high),
        bracket=(first, last),
        ec10=to_right * effects[0],
        ec50=to_right * effects[1],
        located_by=located_by,
    )


def collapsed(fit: TippingPoint, trials: int, baseline: ArrayLike) -> TippingPoint:
    """Of a curve whose trials have all diverged, and its baseline has not: whatever they score, there is nothing weaker
    than the fall among them."""
    weaker = Words(0.8, fit.stronger, fit.direction).weaker
    return TippingPoint(
        "below range",
        *(math.nan,) * 3,
        p_value=fit.p_value,
        plateau=float(np.median(np.asarray(baseline, float))),
        bracket=(math.nan, math.nan),
        ec10=math.nan,
        ec50=math.nan,
        n=fit.n,
        strengths=fit.strengths,
        seeds=fit.seeds,
        flags=("plateau taken from the baseline: all trials diverged",),
        reason=f"all {trials} trials diverged, from the weakest strength on: sweep {weaker}",
        stronger=fit.stronger,
        direction=fit.direction,
    )


@dataclass(frozen=True)
class Words:
    """What is said of a curve, by which way is stronger and which is better."""

    share: float
    which: Stronger
    direction: Direction

    @property
    def stronger(self) -> str:
        return "stronger" if self.which == "larger" else "stronger (smaller)"

    @property
    def weaker(self) -> str:
        return "weaker" if self.which == "larger" else "weaker (larger)"

    @property
    def level(self) -> str:
        return f"{100 * self.share:g}% of the plateau" if self.direction == "max" else f"the plateau / {self.share:g}"

    @property
    def beyond(self) -> str:
        return f"{'below' if self.direction == 'max' else 'above'} {self.level}"

    @property
    def never(self) -> str:
        return f"does not {'fall' if self.direction == 'max' else 'rise'} to {self.level}"


def _limit(reference_below: float, to_right: float, swept: Floats) -> float:
    """Where the strengths end that the plateau is taken from."""
    limit = to_right * math.log10(reference_below) if reference_below > 0 else math.nan
    if not (swept < limit).any():
        words = ("above the smallest", swept[0]) if to_right > 0 else ("above 0 and below the largest", -swept[0])
        raise ValueError(
            f"reference_below: {reference_below}, allowed are numbers {words[0]} strength {10 ** words[1]:.6g}"
        )
    return limit


def _why_baseline(split: Callable[..., Any], plateau: float, baseline: Floats, fall: float, *, few: bool) -> str:
    """Why the plateau is the baseline's and not that of the sweep; "" where it is that of the sweep."""
    if not len(baseline):
        return ""
    own = float(np.median(baseline))
    if plateau < fall * own:
        return "the weakest strengths lie below it"
    if any(0 < _below(split(0, level)[2]) < _KNOWN_FROM for level in (plateau, own)):
        return f"fewer than {_KNOWN_FROM} strengths lie below the fall"
    return f"fewer than {2 * _KNOWN_FROM} strengths" if few else ""


def _below(excess: NDArray[np.int64]) -> int:
    """How many strengths lie below the split with the greatest excess; 0 where there is none."""
    return int(np.argmax(excess)) if excess.max() > 0 else 0


def _locate(
    fit: _Logistic, isotonic: _Isotonic, bracket: tuple[float, float], flags: list[str]
) -> tuple[float, LocatedBy]:
    crossing = min(max(isotonic.crossing(), bracket[0]), bracket[1])
    strengths = fit.strengths
    if strengths <= PARAMETERS:
        flags.append(f"{strengths} strengths are too few for the fit: interpolated between the means")
        return crossing, "isotonic"
    if not math.isfinite(fit.location):
        flags.append("no fit: located by the isotonic curve")
        return crossing, "isotonic"
    if fit.is_steeper_than(bracket):
        flags.append("steeper than the grid: the middle of the bracket")
        return sum(bracket) / 2, "middle of the bracket"
    outside = not bracket[0] <= fit.location <= bracket[1]
    misfit = not outside and isotonic.misfit(fit) < _MISFIT
    if (outside or misfit) and isotonic.part_within(bracket) >= _CLIFF:
        flags.append("steeper than the grid: the middle of the bracket")
        return sum(bracket) / 2, "middle of the bracket"
    if outside:
        flags.append("located by the isotonic curve: the fit is outside of the bracket")
        return crossing, "isotonic"
    if misfit:
        flags.append("located by the isotonic curve: the logistic curve fits worse than noise explains")
        return crossing, "isotonic"
    return fit.location, "logistic"


def _upper_part(x: Floats, isotonic: _Isotonic, plateau: float, level: float) -> NDArray[np.bool_]:
    """The trials up to where the isotonic curve has fallen two and a half times as far as to the level (to half of the
    plateau, at 80%): of a curve that is not logistic, the part that the location lies in."""
    low = np.flatnonzero(isotonic.curve < plateau - _UPPER * (plateau - level))
    return x <= isotonic.swept[low[0]] if len(low) else np.ones(len(x), bool)


def _is_noisier(x: Floats, isotonic: _Isotonic, weaker: NDArray[np.bool_], part: NDArray[np.bool_]) -> bool:
    """Whether trials of a part scatter more about the isotonic curve than those on its weak side do (F test, p < .01):
    whether a network collapses is often a matter of chance, which no curve of one noise describes."""
    holding, falling = int((part & weaker).sum()), int((part & ~weaker).sum())
    free = 1 - PARAMETERS / max(holding + falling, 1)  # the curve's parameters are both sides' in proportion
    if holding < PARAMETERS or falling < PARAMETERS or free <= 0:
        return False
    place = np.searchsorted(isotonic.swept, x).clip(max=len(isotonic.swept) - 1)
    squares = (isotonic.y - isotonic.curve[place]) ** 2
    ratio = squares[part & ~weaker].mean() / max(float(squares[part & weaker].mean()), 1e-12)
    return bool(special.fdtrc(free * falling, free * holding, ratio) < _NOISIER)


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


def check_curve(
    strength: ArrayLike,
    score: ArrayLike,
    seed: ArrayLike | None,
    *,
    share: float,
    reference_below: float | None,
    baseline: ArrayLike,
    stronger: Stronger,
    direction: Direction = "max",
) -> tuple[Floats, Floats, NDArray[np.int64], Floats, float | None]:
    """What `fit_curve` is given, checked: log₁₀ strengths above 0 so that the stronger ones are to the right, their
    scores and the numbers of their seeds, the baseline's scores, and the end of the strengths that the plateau is taken
    from. Raises as it does."""
    x, y, group = check_scores(strength, score, seed, share)
    unregularised = np.asarray(baseline, dtype=float)
    if not np.isfinite(unregularised).all():
        raise ValueError("baseline: not finite somewhere, allowed are finite scores")
    to_right = 1.0 if stronger == "larger" else -1.0
    x = to_right * np.log10(x)
    limit = None if reference_below is None else _limit(reference_below, to_right, np.unique(x))
    return x, y, group, unregularised, limit


def _plateau(x: Floats, y: Floats, swept: Floats, share: float, limit: float | None, flags: list[str]) -> float:
    medians = np.array([np.median(y[x == value]) for value in swept])
    few = min(len(swept), max(3, math.ceil(len(swept) / 4)))
    reference = medians[:few] if limit is None else medians[swept < limit]
    if (reference < share * reference.max()).mean() > 0.2:
        flags.append("reference band contaminated")
        reference = np.sort(medians)[-few:]
    return float(np.median(reference))


def _excess(collapsed: NDArray[np.bool_], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Collapsed less other trials from each strength on, trials sorted by strength: (..., n) → (..., strengths)."""
    sizes = np.diff(starts, append=collapsed.shape[-1])
    signs = 2 * np.add.reduceat(collapsed, starts, axis=-1, dtype=np.int64) - sizes
    return signs[..., ::-1].cumsum(-1)[..., ::-1]


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
    # the excess from each strength on, of rows of 1 where a trial has collapsed and -1 where not
    beyond = (np.arange(len(collapsed)) >= starts[:, None]).astype(np.float32)
    signs = (2 * collapsed - 1).astype(np.float32)
    reached = 0
    for orders in _random_orders(blocks, rng):
        for part in np.array_split(orders, math.ceil(orders.size / _AT_ONCE)):
            reached += int(((beyond @ signs[part].T).max(0) >= greatest).sum())
    return (reached + 1) / (PERMUTATIONS + 1)


_AT_ONCE = 500_000
"""Trials in random orders that are looked at at a time."""
_KEPT = 20_000_000
"""Trials in random orders that are kept for the next curve."""
_orders: dict[tuple[Any, ...], tuple[list[NDArray[np.integer]], Any]] = {}


def _random_orders(blocks: list[NDArray[np.int64]], rng: np.random.Generator) -> Iterator[NDArray[np.integer]]:
    """Parts of `PERMUTATIONS` random orders of trials within blocks, each (orders, n). The curves of a sweep have
    equal generators, and most of them the same strengths and seeds: the last ones drawn are kept for the next curve."""
    n = sum(map(len, blocks))
    key = str(rng.bit_generator.state), *(block.tobytes() for block in blocks)
    if key in _orders:
        kept, after = _orders[key]
        yield from kept
        rng.bit_generator.state = after
        return
    _orders.clear()
    kept, size = [], max(1, 2_000_000 // n)
    for first in range(0, PERMUTATIONS, size):
        orders = np.empty((min(size, PERMUTATIONS - first), n), np.uint16 if n <= 1 << 16 else np.int32)
        for block in blocks:
            orders[:, block] = rng.permuted(np.tile(block.astype(orders.dtype), (len(orders), 1)), axis=1)
        yield orders
        if n * PERMUTATIONS <= _KEPT:
            kept.append(orders)
    if kept:
        _orders[key] = kept, rng.bit_generator.state


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
    """log₁₀ t80 of curves of resampled seeds (`BOOTSTRAPS`,), each seed's whole curve at a time: where the isotonic
    curve through the mean over seeds crosses `share` of the fitted plateau.

    Two settings that ran the same seeds are paired by equally seeded generators: the same seeds are drawn then.
    Raises `ValueError` as `fit_curve` does.
    """
    x, y, group = check_scores(strength, score, seed, share)
    to_right, up = 1.0 if fit.stronger == "larger" else -1.0, 1.0 if fit.direction == "max" else -1.0
    x, y, level = to_right * np.log10(x), up * y, up * fit.plateau * (share if fit.direction == "max" else 1 / share)
    rng = np.random.default_rng() if rng is None else rng
    swept = np.unique(x)
    at, seeds = np.searchsorted(swept, x), len(np.unique(group))
    drawn = rng.integers(0, seeds, (BOOTSTRAPS, seeds)) + seeds * np.arange(BOOTSTRAPS)[:, None]
    times = np.bincount(drawn.ravel(), minlength=seeds * BOOTSTRAPS).reshape(BOOTSTRAPS, seeds).astype(float)
    weight, total = np.zeros((2, seeds, len(swept)))
    np.add.at(weight, (group, at), 1.0)
    np.add.at(total, (group, at), y)
    return to_right * isotonic_crossings(swept, times @ weight, times @ total, level)


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
