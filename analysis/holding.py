"""Up to which swept strength accuracy holds, and what would decide whether it does: of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from analysis.lazily import lazily
from analysis.tipping_fit import fit_curve

special = lazily("scipy.special")

MOST_MORE = 20
"""Seeds or strengths that are tried for whether so many more would decide."""

_ON_THE_GRID = 1e-9
"""Logarithms of one strength differ by rounding."""


class Held(NamedTuple):
    """Swept strengths: the strongest before the tipping point, and before the ends of its interval; nan: before all."""

    strength: float
    low: float
    high: float


def held_up_to(
    strengths: Sequence[float],
    location: float,
    low: float,
    high: float,
    bracket_high: float = math.inf,
    *,
    smaller_is_stronger: bool = False,
) -> Held:
    """The strongest of the swept `strengths` before a tipping point at the log₁₀ strength `location`.

    Its interval is that of the tipping point, [`low`, `high`], as the grid sees it: the strongest swept strength before
    the tipping point if that lay at its interval's lower end, and if it lay at the upper one. So where the tipping
    point is inside its interval (as in 95% of sweeps it is), the strongest swept strength before it is inside this one.
    The grid may leave one strength only: where the whole interval lies between two neighbours.

    A strength at which the tipping point itself lies has not fallen below its share and counts as before it, but not
    the one that closes the bracket (`bracket_high`, log₁₀), which has. With `smaller_is_stronger` the strongest is the
    smallest, and the lower end of the interval the larger number.
    """
    sign = -1.0 if smaller_is_stronger else 1.0
    swept = sorted({float(value) for value in strengths}, key=lambda value: sign * value)
    place = [sign * math.log10(value) for value in swept]
    weak, strong = sorted((sign * low, sign * high))

    def last(limit: float, *, below: float) -> float:
        kept = [
            value
            for value, at in zip(swept, place, strict=True)
            if at <= limit + _ON_THE_GRID and at < below - _ON_THE_GRID
        ]
        return kept[-1] if kept else math.nan

    closing = sign * bracket_high if math.isfinite(bracket_high) else math.inf
    return Held(
        last(sign * location, below=closing),
        last(weak, below=math.inf),
        last(strong, below=strong),
    )


def least_fallen(strengths: int, seeds: int, baselines: int = 0) -> int | None:
    """How many of so many strengths, each with so many seeds, and beside so many unregularised trials, have to have
    fallen, the strongest ones in every seed and wholly, for `fit_curve` to decide that scores tip over; None: no number
    is enough."""
    if strengths > 20:
        return 1  # of so many orders of one seed one has the fallen one at the end: p < .05
    x = [10.0**number for number in range(strengths)] * seeds
    seed = [number for number in range(seeds) for _ in range(strengths)]
    for fallen in range(1, strengths):
        y = ([1.0] * (strengths - fallen) + [0.1] * fallen) * seeds
        if _decides(x, y, seed, {"baseline": [1.0] * baselines}):
            return fallen
    return None


def seeds_to_decide(
    strength: Sequence[float],
    score: Sequence[float],
    seed: Sequence[int],
    *,
    most: int = MOST_MORE,
    **asked: Any,
) -> int | None:
    """How many seeds more would decide whether scores tip over (see `fit_curve`), if they score as those seen do: the
    first further seed as the first seen, and so on. None: not by so many as `most`. `asked`: `fit_curve`'s options."""
    known = sorted(set(seed))
    places = {one: [place for place, own in enumerate(seed) if own == one] for one in known}

    def decides(more: int) -> bool:
        x, y, group = list(strength), list(score), list(seed)
        for index in range(more):
            mine = places[known[index % len(known)]]
            x += [strength[place] for place in mine]
            y += [score[place] for place in mine]
            group += [max(known) + 1 + index] * len(mine)
        return _decides(x, y, group, asked)

    return _fewest(decides, most)


def strengths_to_decide(
    strength: Sequence[float],
    score: Sequence[float],
    seed: Sequence[int],
    *,
    smaller_is_stronger: bool = False,
    most: int = MOST_MORE,
    **asked: Any,
) -> int | None:
    """How many strengths more, beyond the strongest and as far apart as the two strongest are, would decide whether
    scores tip over, if each seed scores there as at the strongest one. None: not by so many as `most`. `asked`:
    `fit_curve`'s options."""
    swept = sorted(set(strength), reverse=smaller_is_stronger)
    ratio = swept[-1] / swept[-2]
    mine = [place for place, value in enumerate(strength) if value == swept[-1]]

    def decides(more: int) -> bool:
        x, y, group = list(strength), list(score), list(seed)
        for number in range(1, more + 1):
            x += [swept[-1] * ratio**number] * len(mine)
            y += [score[place] for place in mine]
            group += [seed[place] for place in mine]
        return all(map(math.isfinite, x)) and _decides(x, y, group, asked)

    return _fewest(decides, most)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95% interval of the mean; nan where there is one value."""
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    mean, half = float(np.mean(values)), half_interval(n) * float(np.std(values, ddof=1))
    return mean - half, mean + half


def half_interval(n: int) -> float:
    """Half of Student's 95% interval of the mean of n values, in their standard deviations."""
    return float(special.stdtrit(n - 1, 0.975)) / math.sqrt(n)


def seeds_to_exclude(value: float, half: float, n: int, fall: float, *, most: int = MOST_MORE) -> int | None:
    """How many seeds more would leave a fall as deep as this out of the interval, if they differ as the `n` seen do.

    `value`: how much better the mean is than without, a fall being below 0; `half`: of its interval. None: not so many
    as `most`.
    """
    deviation = half / half_interval(n)
    return next((more for more in range(1, most + 1) if value - half_interval(n + more) * deviation > -fall), None)


def _fewest(decides: Callable[[int], bool], most: int) -> int | None:
    """The smallest number up to `most` that decides, where all larger ones do, too: by doubling, then by halving."""
    low, high = 0, 1
    while not decides(high):
        if high == most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def _decides(x: Sequence[float], y: Sequence[float], seed: Sequence[int], asked: Mapping[str, Any]) -> bool:
    fit = fit_curve(x, y, seed, **asked, rng=np.random.default_rng(0))
    return fit.status in ("tipping point", "below range")
