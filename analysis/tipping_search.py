"""Where to look next for a tipping point: the strengths and seeds whose trials tell most, from those that are known.

`next_trials` is a pure function of what has been recorded and of what runs, so that a search can be killed at any
moment and goes on where it was, and that several workers can ask it at once. It goes through these stages, and back
where a trial contradicts what was believed:

1. a few strengths over the whole range;
2. the bracket between the strongest strength that holds and the weakest that has fallen is divided: in its middle or,
   where scores fall smoothly, on both sides of where a logistic curve through them falls to the level. A trial that is
   much lower than stronger ones may have diverged, and gets another seed at once; and there have to be as many
   strengths on the plateau as `fit_curve` takes it from;
3. both ends of the bracket have to say the same by a majority of two, with other seeds or neighbouring strengths, as a
   single diverged or lucky run would mislead all that follows;
4. strengths at which a further trial makes the variance of the fitted tipping point smallest (a c-optimal design: the
   logistic curve's Fisher information, by the delta method), until the interval of `fit_curve` is narrow enough.

New strengths take `SEEDS` seeds in turn, so that the interval is one for the mean over seeds.

The strengths are chosen by looking, and labels are not exchangeable given strengths that depend on them, so the
decision's permutation test is not exact here. What keeps it is that under its null hypothesis (collapses have nothing
to do with strength) the search does not stop at a pattern that suits it: ends that seem to have fallen are asked again
in other seeds, which collapse as rarely as any, and it stops by the interval, never by p. How often flat curves tip,
and how often intervals hold the truth, is counted by `tests/analysis/search_simulation.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.lazily import lazily
from analysis.schema import Direction, Stronger
from analysis.tipping_curves import Floats
from analysis.tipping_fit import TippingPoint, fit_curve

optimize = lazily("scipy.optimize")

FIRST = 4
"""Strengths over the whole range that a search begins with; one more for every four slots, up to `MOST_FIRST`."""
MOST_FIRST = 12
MOST = 20
"""Trials after which a search ends, if no other number is given."""
SEEDS = 3
_SAME = 1e-9
"""Strengths whose logarithms are nearer are one."""
_AT_ONCE = 3
"""Strengths that divide the bracket at the same time: each knows nothing of what the others find."""
_KNOWN_FROM = 3
"""Strengths that a plateau is known from."""
_NEAR = 1.0
"""Decades between the ends of the bracket from which on the plateau is asked for, on which the level depends."""
_UPPER = 2.5
"""The curve is fitted to the trials up to where scores have fallen so many times as far as to the level: what they do
beyond tells of a logistic curve alone where it falls to."""
_OFF_PLATEAU = 0.05
"""A strength that has lost more than this part of the best of the weaker ones does not lie on the plateau."""
_INNER = 0.6
"""Part of the width to which the bracket is divided, before trials are put anywhere."""
_STEPS = 0.02
"""Decades between the strengths that are compared in the last stage."""

Pair = tuple[float, int]


def next_trials(
    strength: ArrayLike,
    score: ArrayLike,
    seed: ArrayLike,
    *,
    low: float,
    high: float,
    width: float = 0.3,
    slots: int = 1,
    running: Sequence[Pair] = (),
    most: int | None = None,
    share: float = 0.8,
    baseline: ArrayLike = (),
    stronger: Stronger = "larger",
    direction: Direction = "max",
    allowed: ArrayLike | None = None,
    rng: np.random.Generator | None = None,
) -> list[Pair] | None:
    """Up to `slots` further pairs of strength and seed to run; [] to wait for what runs; None when the search is done.

    `strength`, `score` and `seed` have an entry for each recorded trial, diverged ones with their score, `running` the
    pairs that run. Strengths lie in [`low`, `high`], and are among `allowed` if that is given. `baseline`, `share`,
    `stronger` and `direction` are those of `fit_curve`, and so is `rng`, by default one that is always the same, so
    that equal records give equal proposals.

    The search is done when the 95% interval of the tipping point, to `share` of the plateau, is at most `width`
    decades, or no wider than the gap between two neighbours of `allowed`; when the strongest strength holds in two
    seeds, so that scores fall nowhere in the range; when the weakest has fallen in two; or when there are `most` trials
    (`MOST`).

    Raises `ValueError` for arrays of different lengths, numbers that are not finite, strengths that are not above 0,
    seeds, slots or a budget that are not whole, a range that is none, and less than two allowed strengths in it.
    """
    x, y, seeds = (np.atleast_1d(np.asarray(values, dtype=float)) for values in (strength, score, seed))
    if not x.shape == y.shape == seeds.shape or x.ndim != 1:
        raise ValueError(f"strength, score, seed: {len(x)}, {len(y)}, {len(seeds)} entries, allowed are equal numbers")
    at_running, seeds_running = np.array([*running], dtype=float).reshape(-1, 2).T
    if not all(np.isfinite(values).all() for values in (x, y, at_running)) or min([*x, *at_running], default=1.0) <= 0:
        raise ValueError("strength, score, running: allowed are finite numbers, strengths above 0")
    if not all(np.isfinite(values).all() and (values == values.round()).all() for values in (seeds, seeds_running)):
        raise ValueError("seed, running: allowed are whole numbers for seeds")
    unregularised = np.asarray(baseline, dtype=float)
    if not np.isfinite(unregularised).all():
        raise ValueError("baseline: allowed are finite scores")
    if stronger not in get_args(Stronger) or direction not in ("max", "min"):
        raise ValueError(f"stronger, direction: {stronger!r}, {direction!r}, allowed are larger, smaller and max, min")
    low, high = float(low), float(high)
    if not 0 < low < high < math.inf:
        raise ValueError(f"low, high: {low}, {high}, allowed are finite numbers above 0, the second the greater")
    if slots != int(slots) or (most is not None and most != int(most)):
        raise ValueError(f"slots, most: {slots}, {most}, allowed are whole numbers")
    if not width > 0 or slots < 1 or (most is not None and most < 1) or not 0 < share < 1:
        raise ValueError("width, slots, most, share: allowed are numbers above 0, of at least 1, 1, and in (0, 1)")
    places = None if allowed is None else np.unique(np.asarray(allowed, dtype=float))
    if places is not None:
        if not (np.isfinite(places).all() and (places > 0).all()):
            raise ValueError("allowed: allowed are finite numbers above 0")
        places = places[(places >= low) & (places <= high)]
        if len(places) < 2:
            raise ValueError(f"allowed: {len(places)} strengths in [{low}, {high}], allowed are two or more")
        low, high = float(places[0]), float(places[-1])
    slots, most = int(slots), MOST if most is None else int(most)
    left = most - len(x) - len(running)
    if left <= 0:
        return [] if running else None
    search = _Search(
        x,
        y,
        seeds.astype(int),
        (low, high),
        width,
        running,
        share,
        unregularised,
        1 if stronger == "larger" else -1,
        1 if direction == "max" else -1,
        places,
        np.random.default_rng(0) if rng is None else rng,
    )
    wanted = search.wanted(min(slots, left))
    return ([] if running else None) if wanted is None else wanted


class _Search:
    """The trials turned so that strength rises to the right and scores fall; the trials that run and that have been
    proposed are `pending`."""

    def __init__(
        self,
        strength: Floats,
        score: Floats,
        seeds: NDArray[np.int64],
        ends: tuple[float, float],
        width: float,
        running: Sequence[Pair],
        share: float,
        baseline: Floats,
        to_right: int,
        up: int,
        allowed: Floats | None,
        rng: np.random.Generator,
    ) -> None:
        self.strength, self.score, self.seeds, self.rng = strength, score, seeds, rng
        self.to_right, self.up, self.share, self.baseline, self.width = to_right, up, share, baseline, width
        self.fall = share if up > 0 else 1 / share
        self.x, self.y = self._log(strength), up * score
        self.first, self.last = sorted(self._log(np.array(ends)).tolist())
        self.exact = dict(zip(self._log(np.array(ends)).tolist(), ends, strict=True))
        self.allowed = None if allowed is None else self._log(allowed)
        if allowed is not None:
            self.exact = dict(zip(self._log(allowed).tolist(), allowed.tolist(), strict=True))
        at_running = self._log(np.array([at for at, _ in running], dtype=float)).tolist()
        self.pending = list(at_running)
        self.slots = 1
        self.taken = [*zip(self.x.tolist(), seeds.tolist(), strict=True)]
        self.taken += [(at, int(one)) for at, (_, one) in zip(at_running, running, strict=True)]
        for at, value in zip(self.x.tolist(), strength.tolist(), strict=True):
            self.exact[at] = value
        for at, (value, _) in zip(at_running, running, strict=True):
            self.exact[at] = float(value)

    def _log(self, strength: Floats) -> Floats:
        return self.to_right * np.log10(strength)

    def another(self, place: float) -> Pair:
        """A trial at this place; at a strength that is there already, exactly that with the next seed."""
        place = min(max(place, self.first), self.last)
        if self.allowed is not None:
            place = float(self.allowed[int(abs(self.allowed - place).argmin())])
        place = next((at for at in self.exact if abs(at - place) < _SAME), place)
        here = {one for at, one in self.taken if abs(at - place) < _SAME}
        turn = len(self.taken) % SEEDS
        seed = next(one for one in (turn, *range(len(here) + 1)) if one not in here)
        strength = self.exact.setdefault(place, float(10 ** (self.to_right * place)))
        self.taken.append((place, seed))
        self.pending.append(place)
        return strength, seed

    def wanted(self, slots: int) -> list[Pair] | None:
        """What to run, at most so many, the most telling first; [] if what runs has to be known; None: nothing."""
        self.slots = slots + len(self.pending)
        number = min(FIRST + self.slots // 4, MOST_FIRST)
        if len(self.y) < FIRST:
            places = np.linspace(self.first, self.last, number)
            reach = 0.5 * (places[1] - places[0])
            free = [place for place in places if all(abs(at - place) > reach for at, _ in self.taken)]
            missing = number - len(self.taken)
            if free and missing > 0:
                return [self.another(place) for place in self._apart(free)[: min(missing, slots)]]
            if len(self.y) < 3:
                return [] if self.pending else [self.another(self.last)]
        found: list[Pair] = []
        while len(found) < slots:
            pair = self._next()
            if pair is None:
                break
            found.append(pair)
        return found if found or self.pending else None

    def _apart(self, places: Sequence[float]) -> list[float]:
        """The ends first, then what is farthest from all others: so that few trials tell of the whole range."""
        order: list[float] = []
        rest = list(places)
        while rest:
            known = [*order, *(at for at, _ in self.taken)]
            far = [min((abs(place - at) for at in known), default=math.inf) for place in rest]
            order.append(rest.pop(int(np.argmax(far))))
        return order

    def _here(self, place: float) -> int:
        """How many trials run at a place."""
        return sum(abs(at - place) < _SAME for at in self.pending)

    def _next(self) -> Pair | None:
        """One further trial; None if there is none that tells anything before what runs is known, or at all."""
        places, at = np.unique(self.x.round(9), return_inverse=True)
        plateau = self._plateau(places, at)
        trials, fallen = np.bincount(at), np.bincount(at, self.y < self.fall * plateau).astype(int)
        held = trials - fallen
        # as few trials as possible are on the wrong side of the split
        wrong = np.r_[0, fallen.cumsum()] + np.r_[held[::-1].cumsum()[::-1], 0]
        best = np.flatnonzero(wrong == wrong.min())
        best = best[best > 0] if len(best) > 1 else best
        split = int(best[(len(best) - 1) // 2])
        if split == len(places):
            return self._end(self.last, float(places[-1]), int(held[-1] - fallen[-1]))
        if split == 0:
            if (held > fallen).any():
                # the weakest has fallen, but a stronger one has not
                place = float(places[int(np.argmax(held - fallen))])
                return None if self._here(place) else self.another(place)
            return self._end(self.first, float(places[0]), int(fallen[0] - held[0]))
        weak, strong = float(places[split - 1]), float(places[split])
        curve = self._curve(plateau, (weak, strong))
        wide = strong - weak > self.width and self._between(weak, strong)
        if wide and strong - weak > _NEAR:
            return self._divided(weak, strong, curve)
        beyond = self.y[self.x > strong + self.width]
        if trials[split] == 1 and len(beyond) and not self._here(strong):
            lone = float(self.y[self.x.round(9) == places[split]][0])
            if lone < float(beyond.max()) - 0.15 * abs(plateau):
                return self.another(strong)  # lower than stronger ones: it may have diverged
        further = None if len(self.baseline) else self._plateau_strength(places, weak, curve)
        if further is not None:
            return self.another(further)
        if wide:
            return self._divided(weak, strong, curve)
        for index, right, step in ((split, fallen, 1), (split - 1, held, -1)):
            votes = int(2 * right[index] - trials[index])
            other = index + step
            if 0 <= other < len(places) and abs(places[other] - places[index]) <= 2 * self.width:
                votes += max(0, int(2 * right[other] - trials[other]))
            if votes + self._here(float(places[index])) < 2:
                return self.another(float(places[index]))
        fit = self._fit()
        if fit.status != "tipping point":
            return None if self.pending else self._stronger(places, split, trials)
        if fit.high - fit.low <= max(self.width, strong - weak if not self._between(weak, strong) else 0):
            return None
        if len(self.pending) >= max(2, self.slots // 4):
            return None  # what these say decides where the next one tells most
        if curve is None or curve.decades < 0.5 * (strong - weak):
            return self.another((weak + strong) / 2)
        inside = (weak + 0.15 * (strong - weak), strong - 0.15 * (strong - weak))
        ends = inside if strong - weak > _INNER * self.width else (self.first, self.last)
        place = curve.most_telling(np.r_[self.x, self.pending], *ends)
        if place < min(curve.flat, weak):
            place = self._gap(place for place in (*places, *self.pending) if place <= curve.flat)
        return self.another(place)

    def _plateau(self, places: Floats, at: NDArray[np.int64]) -> float:
        """As in `fit_curve`; while fewer strengths than it is known from hold, the best of the weakest."""
        number = max(_KNOWN_FROM, math.ceil(len(places) / 4))
        medians = np.array([np.median(self.y[at == index]) for index in range(min(number, len(places)))])
        own = float(np.median(medians))
        unregularised = float(np.median(self.up * self.baseline)) if len(self.baseline) else -math.inf
        if (medians >= self.fall * medians.max()).all() and len(medians) >= _KNOWN_FROM:
            return own if own >= self.fall * unregularised else unregularised
        return unregularised if len(self.baseline) else float(medians.max())

    def _fit(self) -> TippingPoint:
        return fit_curve(
            self.strength,
            self.score,
            self.seeds,
            share=self.share,
            baseline=self.baseline,
            stronger="larger" if self.to_right > 0 else "smaller",
            direction="max" if self.up > 0 else "min",
            rng=self.rng,
        )

    def _curve(self, plateau: float, bracket: tuple[float, float]) -> _Curve | None:
        """Of scores of which less is better, the curve of what is left to twice the plateau, which falls likewise."""
        if plateau >= 0:
            return _Curve.fitted(self.x, self.y, plateau, bracket, self.fall)
        return _Curve.fitted(self.x, self.y - 2 * plateau, -plateau, bracket, 2 - self.fall)

    def _between(self, weak: float, strong: float) -> bool:
        """Whether there are strengths between these."""
        if self.allowed is None:
            return True
        return bool(((self.allowed > weak + _SAME) & (self.allowed < strong - _SAME)).any())

    def _end(self, end: float, known: float, votes: int) -> Pair | None:
        """A trial at the end of the range until two more seeds say what it is than say otherwise."""
        if abs(known - end) > _SAME:
            votes = 0
        return self.another(end) if votes + self._here(end) < 2 else None

    def _divided(self, weak: float, strong: float, curve: _Curve | None) -> Pair | None:
        inside = sorted(at for at in self.pending if weak + _SAME < at < strong - _SAME)
        limits = np.array([weak, *inside, strong])
        gaps = np.diff(limits)
        widest = int(gaps.argmax())
        if inside and (len(inside) >= _AT_ONCE or gaps.max() <= self.width):
            return None
        middle = float(limits[widest] + gaps[widest] / 2)
        if curve is None or inside or curve.decades < 0.5 * self.width or not weak < curve.where < strong:
            return self.another(middle)
        near = 0.45 * self.width
        place = curve.where + near if strong - curve.where > curve.where - weak else curve.where - near
        return self.another(place if weak < place < strong else middle)

    def _plateau_strength(self, places: Floats, weak: float, curve: _Curve | None) -> float | None:
        """A further strength to know the plateau from, where fewer than `fit_curve` takes it from lie on it."""
        edge = weak if curve is None else min(curve.flat, weak)
        weaker = places[places <= weak + _SAME]
        medians = np.array([np.median(self.y[abs(self.x - at) < _SAME]) for at in weaker])
        best = np.maximum.accumulate(medians)
        lower = np.flatnonzero(medians < best - _OFF_PLATEAU * abs(best))
        if len(lower):
            edge = min(edge, float(weaker[lower[0] - 1 : lower[0] + 1].mean()))
        # a curve that falls all the way has its plateau where it is weakest
        edge = max(edge, self.first + (weak - self.first) / 4)
        there = {round(at, 9) for at in (*places.tolist(), *self.pending)}
        on_it = [at for at in there if at <= edge + _SAME]
        if len(on_it) >= max(_KNOWN_FROM, math.ceil(len(there) / 4)):
            return None
        return self._gap([*on_it, edge]) if edge > self.first + _SAME else None

    def _gap(self, known: Iterable[float]) -> float:
        """The weakest strength, or the middle of the widest gap between it and these."""
        limits = np.unique([self.first, *known])
        if not any(abs(at - self.first) < _SAME for at, _ in self.taken) or len(limits) == 1:
            return self.first
        widest = int(np.diff(limits).argmax())
        return float(limits[widest : widest + 2].mean())

    def _stronger(self, places: Floats, split: int, trials: NDArray[np.int64]) -> Pair:
        """A further trial that has collapsed, as too few have to tell."""
        beyond = np.array(sorted({*places[split:].tolist(), self.last}))
        gaps = np.diff(beyond)
        if len(gaps) and gaps.max() > self.width:
            widest = int(gaps.argmax())
            return self.another(float(beyond[widest] + gaps[widest] / 2))
        return self.another(float(places[split:][int(trials[split:].argmin())]))


class _Curve(NamedTuple):
    """A logistic curve through the trials, and the noise about it."""

    high: float
    low: float
    k: float
    middle: float
    fall: float
    noise: float

    @classmethod
    def fitted(cls, x: Floats, y: Floats, plateau: float, bracket: tuple[float, float], fall: float) -> _Curve | None:
        """None for too few strengths to tell four parameters."""
        low = x[(y < plateau - _UPPER * (1 - fall) * plateau) & (x >= bracket[1])]
        near = x <= (low.min() if len(low) else x.max())
        x, y = x[near], y[near]
        if len(np.unique(x)) < 5 or plateau <= 0:
            return None
        span = float(np.ptp(x))
        start = [plateau, min(float(np.median(y[x >= bracket[1]])), 0.99 * plateau), 2.0, sum(bracket) / 2]
        lower = np.array([0.5 * plateau, min(float(y.min()), 0.0) - 1e-9, 0.05, x.min() - span])
        upper = np.array([1.5 * plateau, plateau, 100.0, x.max() + span])
        best = None
        for k in (2.0, 8.0):
            found = optimize.least_squares(
                lambda parameters: _logistic(parameters, x) - y,
                np.clip([*start[:2], k, start[3]], lower + 1e-9, upper - 1e-9),
                jac=lambda parameters: _slopes(parameters, x),
                bounds=(lower, upper),
                loss="soft_l1",
                f_scale=0.05 * plateau,
                max_nfev=50,
            )
            best = found if best is None or found.cost < best.cost else best
        assert best is not None
        left = y - _logistic(best.x, x)
        noise = 1.4826 * float(np.median(abs(left))) * math.sqrt(len(x) / max(len(x) - 4, 1))
        high, floor, steepness, middle = (float(value) for value in best.x)
        return cls(high, floor, steepness, middle, fall, max(noise, 0.005 * plateau))

    @property
    def where(self) -> float:
        """log₁₀ strength at which it has fallen to the level; nan if it does not."""
        return _level(np.array(self[:4]), self.fall)

    @property
    def decades(self) -> float:
        """In which it falls from 90% to 10%."""
        return 2 * math.log(9) / self.k

    @property
    def flat(self) -> float:
        """Up to which log₁₀ strength it has lost no more than a fiftieth of its fall."""
        return self.middle - math.log(49) / self.k

    def most_telling(self, known: Floats, first: float, last: float) -> float:
        """The strength at which a further trial makes the variance of `where` smallest, those at `known` being there.

        c-optimality (e.g. Silvey 1980): with the Fisher information F of the trials, weakly regularised, and the
        gradient g of the location by the parameters, the trial whose slopes are f makes gᵀF⁻¹g smaller by
        (fᵀF⁻¹g)²/(1 + fᵀF⁻¹f)."""
        parameters = np.array(self[:4])
        rows = _slopes(parameters, known) / self.noise
        inverse = np.linalg.inv(rows.T @ rows + np.diag(np.array([0.3, 0.3, self.k, 1.0]) ** -2.0))
        gradient = np.empty(4)
        for index in range(4):
            step = np.zeros(4)
            step[index] = 1e-5 * max(abs(parameters[index]), 1e-2)
            gradient[index] = (_level(parameters + step, self.fall) - _level(parameters - step, self.fall)) / (
                2 * step[index]
            )
        if not np.isfinite(gradient).all():
            return self.middle
        places = np.linspace(first, last, max(int((last - first) / _STEPS), 1) + 1)
        new = _slopes(parameters, places) / self.noise
        gain = (new @ inverse @ gradient) ** 2 / (1 + np.einsum("ni,ij,nj->n", new, inverse, new))
        return float(places[int(gain.argmax())])


def _logistic(parameters: Floats, x: Floats) -> Floats:
    high, low, k, middle = parameters
    return low + (high - low) / (1 + np.exp(np.clip(k * (x - middle), -500, 500)))


def _slopes(parameters: Floats, x: Floats) -> Floats:
    """Derivatives by the four parameters, (n, 4)."""
    high, low, k, middle = parameters
    part = 1 / (1 + np.exp(np.clip(k * (x - middle), -500, 500)))
    steep = (high - low) * part * (1 - part)
    return np.stack([part, 1 - part, -steep * (x - middle), steep * k], axis=1)


def _level(parameters: Floats, fall: float) -> float:
    high, low, k, middle = parameters
    fraction = (high - low) / (fall * high - low) - 1 if fall * high > low else math.nan
    return float(middle + math.log(fraction) / k) if fraction > 0 else math.nan
