"""The answer of a sweep in plain numbers: how strong a regulariser may be, and what that brings.

    >>> for answer in answers(read_sweep("analysis/reproductions/pilcro-cifar10")):
    ...     print(answer)

One sentence for each curve of accuracy against strength (see `tipping_points`): up to which of the swept strengths
accuracy holds, and what is different there from the unregularised trials. Where no tipping point is found, it says what
is known instead. Every number in it is computed from the record; what cannot be had is said with its reason.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from analysis.against_reference import baseline_of
from analysis.changes import MOST_SAID, Change, change, form, is_size, measures_of, short_name, signed
from analysis.command_line import InputError
from analysis.groups import (
    Group,
    Quantity,
    Row,
    check_strength,
    count,
    digits_of,
    grouped,
    quantities,
    replicate,
    strengths_of,
    telling,
    values_of,
)
from analysis.holding import (
    MOST_MORE,
    Held,
    held_up_to,
    mean_interval,
    seeds_to_decide,
    seeds_to_exclude,
    strengths_to_decide,
)
from analysis.records import Sweep
from analysis.schema import CONVERTED_STRENGTHS, STRONGEST
from analysis.symbols import all_named, method_name, number, symbol
from analysis.tipping_fit import TippingPoint
from analysis.tipping_points import Curve, NothingToJudge, TippingPoints, tipping_points

_MOST_NAMED = 4
_UNKNOWN = "the plateau is not known"

Status = Literal["tips", "holds", "undecided", "collapsed", "not judged"]


@dataclass(frozen=True)
class Answer:
    """How strong one setting of a method may be, and what that brings. `str` gives it as a sentence."""

    method: str
    setting: str
    """What tells its curve from the others of the method, in symbols; "" where nothing does."""
    strength: str
    status: Status
    held: Held
    """Up to which swept strength accuracy holds; nan in all where it does at none, or nobody knows."""
    at: float
    """The swept strength at which `changes` are: `held.strength`, or the weakest where accuracy holds at none."""
    holds: str
    """Up to where accuracy holds, in words."""
    reference: str
    """What they are against: "none" (the unregularised trials), or where there are none of these "α = 0"."""
    changes: tuple[Change, ...]
    """Accuracy first, then what the method is measured by."""
    absent: str
    """Why there are no changes."""
    folds: bool
    """Whether its sample is of runs of a cross-validation."""
    curve: Curve | None
    """None where no strength was swept."""

    @property
    def name(self) -> str:
        """The method and its setting."""
        return ", ".join(part for part in (method_name(self.method), self.setting) if part)

    @property
    def lead(self) -> str:
        """What `differences` are: "there, against none (over 3 pairs of seeds)"."""
        where = "" if math.isnan(self.at) else "there, "
        return f"{where}against {self.reference}{self._over}"

    @property
    def differences(self) -> list[tuple[str, Literal["", "good", "bad"]]]:
        """Each change that is known in words, and whether it is one for the better."""
        return [(str(one), one.tone) for one in self.changes if not math.isnan(one.value)]

    @property
    def missing(self) -> str:
        """What of this is not known, in words; "" where all of it is."""
        if not self.changes:
            return self.absent
        unknown = [one for one in self.changes if math.isnan(one.value)]
        if len(unknown) < len(self.changes):
            parts = [f"{', '.join(short_name(one.quantity) for one in unknown)}: not of both"] if unknown else []
            bare: dict[str, list[str]] = {}
            for one in self.changes:
                if math.isnan(one.low) and not math.isnan(one.value) and "no intervals" not in self._over:
                    bare.setdefault(one.reason, []).append(short_name(one.quantity))
            parts += [f"no interval of {', '.join(names)}: {reason}" for reason, names in bare.items()]
            return "; ".join(parts)
        first, mean = unknown[0], ""
        if not math.isnan(first.mean):
            where = "" if math.isnan(self.at) else " there"
            over = count(first.n, "run" if self.folds else "seed")
            mean = f"{short_name(first.quantity)} is {_score(first.mean, first.quantity)}{where} ({over}); "
        return f"{mean}against none nothing is known ({first.reason})"

    @property
    def _over(self) -> str:
        """How many seeds the changes are over, where that is the same for all."""
        sizes = {(one.n, one.n_reference, one.paired) for one in self.changes if not math.isnan(one.value)}
        if len(sizes) != 1:
            return ""
        n, n_reference, paired = sizes.pop()
        if n == n_reference == 1:
            return " (one seed: no intervals)"
        if paired:
            return f" (over {count(n, 'pair')} of {'runs' if self.folds else 'seeds'})"
        return f" ({n} against {count(n_reference, 'run' if self.folds else 'seed')})"

    def __str__(self) -> str:
        differences = ", ".join(words for words, _ in self.differences)
        parts = [f"{self.lead}: {differences}"] if differences else []
        return "; ".join([f"{self.name}: {self.holds}", *parts, *([self.missing] if self.missing else [])]) + "."


def _score(value: float, quantity: Quantity) -> str:
    return f"{100 * value:.1f}%" if quantity.unit == "fraction" else number(value, 3)


def answers(
    sweep: Sweep, *, strength: str | None = None, reference_below: float | None = None, seed: int = 0
) -> list[Answer]:
    """The answer for each curve of a sweep: of each method by its own strength (`main_strengths`), or by `strength`;
    the plateau is that of the strengths weaker than `reference_below` (see `fit_curve`).

    Where no curve can be judged there is one for each setting. Raises `InputError` for an unknown strength, and as
    `tipping_points` does.
    """
    return of_points(sweep, *all_points(sweep, strength=strength, reference_below=reference_below, seed=seed))


def all_points(
    sweep: Sweep, *, strength: str | None = None, reference_below: float | None = None, seed: int = 0
) -> tuple[list[TippingPoints], dict[str, str]]:
    """The tipping points of each method by its own strength, or by `strength`; and for each method that has none the
    reason. Raises `InputError` as `tipping_points` does, but not where nothing can be judged, and not for a
    `reference_below` of one strength that is none of another."""
    rows = [row for row in sweep.settings.to_pylist() if row["method"] != "baseline"]
    methods = sorted({row["method"] for row in rows})
    if "top1" not in quantities(sweep):
        if strength is not None:
            check_strength(strength, sweep.settings)
        return [], dict.fromkeys(methods, "no trial has an accuracy")
    main = dict.fromkeys(methods, strength) if strength is not None else main_strengths(sweep)
    reasons = {name: "no strength with two values" for name in methods if name not in main}
    found = []
    for name in dict.fromkeys(main.values()):
        assert name is not None
        try:
            result = tipping_points(sweep, strength=name, reference_below=reference_below, seed=seed)
        except InputError as error:
            several = reference_below is not None and len(set(main.values())) > 1
            if not isinstance(error, NothingToJudge) and not several:
                raise
            said = str(error).removeprefix(f"{sweep.path}: ").removeprefix("no tipping point can be looked for: ")
            said = said.split("; ")[0].replace(f"{name} =", f"{symbol(name)} =")
            said = said.replace(f"with {name}", f"with {symbol(name)}").replace("a finite top1", "a finite Top-1")
            reasons |= {method: said for method, own in main.items() if own == name}
            continue
        own = [curve for curve in result.curves if main.get(curve.group.trials[0]["method"]) == name]
        found.append(dataclasses.replace(result, curves=own))
        with_one = {row["method"] for curve in own for row in curve.group.trials}
        reasons |= {
            method: f"no trial with a strength {symbol(name)}"
            for method, its in main.items()
            if its == name and method not in with_one
        }
    return found, reasons


def main_strengths(sweep: Sweep) -> dict[str, str]:
    """For each method the hyperparameter of which it has the most values above zero, the first of equals; methods that
    have none of two values are left out."""
    rows = [row for row in sweep.settings.to_pylist() if row["method"] != "baseline"]
    names = [name for name in strengths_of(sweep.settings) if name not in CONVERTED_STRENGTHS]
    found = {}
    for method in sorted({row["method"] for row in rows}):
        own = [row for row in rows if row["method"] == method]
        counts = {name: len({row[name] for row in own if row[name] is not None and row[name] > 0}) for name in names}
        best = max(counts, key=lambda one: counts[one], default=None)
        if best is not None and counts[best] > 1:
            found[method] = best
    return found


def of_points(sweep: Sweep, found: Sequence[TippingPoints], reasons: Mapping[str, str]) -> list[Answer]:
    """The answer for each of these curves, and for each setting of the methods that none of them is of, for these
    `reasons`."""
    known = quantities(sweep)
    cache: dict[str, dict[str, float]] = {}

    def values(quantity: Quantity) -> dict[str, float]:
        if quantity.name not in cache:
            cache[quantity.name] = {trial: one.value for trial, one in values_of(sweep, quantity).items()}
        return cache[quantity.name]

    every = sweep.settings.to_pylist()
    finished = [row for row in every if row["status"] != "failed"]
    baseline = [row for row in finished if row["method"] == "baseline"]
    said: list[Answer] = []
    for points in found:
        names = _names([curve.group for curve in points.curves])
        for curve, name in zip(points.curves, names, strict=True):
            judged = None if curve.fit is None else _Judged(curve, curve.fit, points)
            status, held, at = _unjudged(curve, points) if judged is None else _place(judged)
            trials = [row for row in curve.trials if row[points.strength] == at]
            zero = [row for row in curve.group.trials if row[points.strength] == 0]
            asked = [points.metric, *measures_of(curve.group.trials[0]["method"], known)]
            changes, of_zero, absent = _changes(asked, curve.group, trials, baseline, zero, values)
            if judged is None:
                reason = curve.reason.replace(f"{points.strength} =", f"{symbol(points.strength)} =")
                holds = f"Whether accuracy tips is not judged: {reason}"
            else:
                status, holds = _said(judged, status, held, at, changes[0] if changes else None)
            holds += _without_score(curve, points.strength, every)
            method = " and ".join(sorted({row["method"] for row in curve.group.trials}))
            reference = f"{symbol(points.strength)} = 0" if of_zero else "none"
            where = (name, points.strength, status, held, at, holds)
            said.append(Answer(method, *where, reference, changes, absent, _has_folds(curve.group), curve))
    told = {row["method"] for points in found for curve in points.curves for row in curve.group.trials}
    rest = [row for row in finished if row["method"] not in told | {"baseline"}]
    groups = grouped(rest, telling(rest)) if rest else []
    nowhere = Held(math.nan, math.nan, math.nan)
    for group, name in zip(groups, _names(groups), strict=True):
        asked = [known[name] for name in ("top1",) if name in known]
        asked += measures_of(group.trials[0]["method"], known)
        changes, _, absent = _changes(asked, group, group.trials, baseline, (), values)
        method = group.trials[0]["method"]
        holds = f"Whether accuracy tips is not judged: {reasons[method]}"
        where_not = (name, "", "not judged", nowhere, math.nan, holds)
        said.append(Answer(method, *where_not, "none", changes, absent, _has_folds(group), None))  # type: ignore[arg-type]
    for method in sorted({row["method"] for row in every} - {row["method"] for row in finished} - {"baseline"}):
        failed = count(sum(row["method"] == method for row in every), "trial")
        holds = f"Nothing is known: all {failed} failed"
        said.append(Answer(method, "", "", "not judged", nowhere, math.nan, holds, "none", (), "", False, None))
    return said


def _unjudged(curve: Curve, points: TippingPoints) -> tuple[Status, Held, float]:
    """Of a curve that was not judged; it is compared at its strongest strength."""
    swept = [float(row[points.strength]) for row in curve.trials]
    strongest = (min if points.stronger == "smaller" else max)(swept, default=math.nan)
    return "not judged", Held(math.nan, math.nan, math.nan), strongest


def _without_score(curve: Curve, strength: str, rows: Sequence[Row]) -> str:
    """Which of the strengths swept no trial has a score of, and why, in words; "" where all have."""
    own = [
        row
        for row in rows
        if row["method"] in {trial["method"] for trial in curve.group.trials}
        and all(row[name] == value for name, value in curve.group.values.items())
        and row[strength] is not None
        and row[strength] > 0
    ]
    without = sorted({row[strength] for row in own} - {row[strength] for row in curve.trials})
    if not without:
        return ""
    status = Counter(row["status"] for row in own if row[strength] in without)
    why = ", ".join(f"{n} {name}" for name, n in sorted(status.items()))
    named = ", ".join(number(value) for value in without[:_MOST_NAMED]) + ", …" * (len(without) > _MOST_NAMED)
    return f"; at {symbol(strength)} = {named} no trial has a score ({why})"


def _has_folds(group: Group) -> bool:
    return any(row["fold"] is not None for row in group.trials)


def _names(groups: Sequence[Group]) -> list[str]:
    """What tells the groups of a method apart, in symbols."""
    plain = [dataclasses.replace(group, values=_without_method(group)) for group in groups]
    return [name if group.values else "" for name, group in zip(all_named(plain), plain, strict=True)]


def _without_method(group: Group) -> dict[str, object]:
    return {name: value for name, value in group.values.items() if name != "method"}


def _changes(
    asked: Sequence[Quantity],
    group: Group,
    trials: Sequence[Row],
    baseline: Sequence[Row],
    zero: Sequence[Row],
    values: Callable[[Quantity], Mapping[str, float]],
) -> tuple[tuple[Change, ...], bool, str]:
    """What is different at these trials of a group from the unregularised ones, or where there are none from those of
    strength `zero`; whether it is the latter; or why nothing can be said."""
    if not trials:
        return (), False, ""
    setting = Group(group.values, trials, (), group.digits)
    try:
        reference, reason = baseline_of(setting, baseline)
        of_zero = not reference and bool(zero)
        if of_zero:
            reference, reason = baseline_of(dataclasses.replace(setting, trials=zero), zero)
    except InputError as error:
        return (), False, f"what is different there is not said: {error}"
    found = []
    for quantity in asked:
        known = values(quantity)
        if quantity is asked[0] or any(row["trial_id"] in known for row in trials):
            relative = is_size(quantity, known)
            found.append(change(quantity, setting, reference, known, relative=relative, reason=reason))
    return tuple(found[: MOST_SAID + 1]), of_zero, ""


@dataclass(frozen=True)
class _Judged:
    """A curve that was judged, from weak strengths to strong ones, and what its sentence is made of."""

    curve: Curve
    fit: TippingPoint
    points: TippingPoints

    @property
    def up(self) -> float:
        """1 where more is better, -1 where less is."""
        return 1.0 if self.points.direction == "max" else -1.0

    @property
    def level(self) -> float:
        """Where it has tipped."""
        return self.fit.plateau * (self.points.share if self.up > 0 else 1 / self.points.share)

    @property
    def fall(self) -> float:
        """How far that is from the plateau."""
        return abs(self.fit.plateau - self.level)

    @functools.cached_property
    def scores(self) -> dict[float, list[float]]:
        """By strength, from weak to strong."""
        found: dict[float, list[float]] = {}
        for row, score in zip(self.curve.trials, self.curve.scores, strict=True):
            found.setdefault(float(row[self.points.strength]), []).append(score)
        return dict(sorted(found.items(), reverse=self.points.stronger == "smaller"))

    @property
    def swept(self) -> list[float]:
        return list(self.scores)

    @property
    def unit(self) -> str:
        """What its sample is of."""
        return "run" if _has_folds(self.curve.group) else "seed"

    def has_fallen(self, score: float) -> bool:
        return self.up * score < self.up * self.level - 1e-12 * abs(self.level)

    @property
    def fallen(self) -> list[float]:
        """The strengths whose mean has."""
        return [x for x, own in self.scores.items() if self.has_fallen(_mean(own))]

    @property
    def accuracy(self) -> str:
        return "accuracy" if self.points.metric.metric == "top1" else short_name(self.points.metric)

    @property
    def plateau(self) -> str:
        return _score(self.fit.plateau, self.points.metric)

    def at(self, strength: float) -> str:
        """ "α = 10"."""
        return f"{symbol(self.points.strength)} = {number(strength, digits_of(self.swept, 4))}"

    def beyond(self, plateau: str) -> str:
        """ "below 80% of its plateau"."""
        share = self.points.share
        return f"below {100 * share:g}% of {plateau}" if self.up > 0 else f"above {plateau} / {share:g}"

    def size(self, value: float) -> str:
        """ "7.7 points"."""
        if self.points.metric.unit == "fraction":
            return f"{signed(100 * value, form(100 * value))} points"
        return number(value, 3)


def _place(judged: _Judged) -> tuple[Status, Held, float]:
    """What is known of how strong it may be: the status, the strengths, and where to compare."""
    fit, swept = judged.fit, judged.swept
    nowhere = Held(math.nan, math.nan, math.nan)
    if fit.plateau <= 0:
        return "not judged", nowhere, swept[0]
    if fit.status == "tipping point":
        smaller = judged.points.stronger == "smaller"
        closing = (min if smaller else max)(fit.bracket)
        where_known = fit.log10_strength, fit.low, fit.high, closing
        held = held_up_to(swept, *where_known, smaller_is_stronger=smaller)
        return ("collapsed", held, swept[0]) if math.isnan(held.strength) else ("tips", held, held.strength)
    if fit.status == "below range":
        return "collapsed", nowhere, swept[0]
    before = list(itertools.takewhile(lambda x: x not in judged.fallen, swept))
    if not before:
        return "undecided", nowhere, swept[0]
    status: Status = "holds" if fit.status == "none in range" and len(before) == len(swept) else "undecided"
    return status, Held(before[-1], math.nan, math.nan), before[-1]


@dataclass(frozen=True)
class _Shift:
    """How much better than its plateau a metric is at a strength, and how much worse that may be as far as the seeds
    tell: the lower end of its 95% interval, nan where there is one seed."""

    value: float
    low: float
    n: int


def _shift(judged: _Judged, strength: float, change: Change | None) -> _Shift:
    """Against the unregularised trials where there are some, else against the plateau."""
    own = judged.scores[strength]
    if change is not None and min(change.n, change.n if change.paired else change.n_reference) > 1:
        scale = judged.up * (judged.fit.plateau if change.relative else 1.0)
        ends = [scale * end for end in (change.low, change.high) if not math.isnan(end)]
        return _Shift(scale * change.value, min([*ends, scale * change.value]), change.n)
    low, high = mean_interval(own)
    value = judged.up * (_mean(own) - judged.fit.plateau)
    return _Shift(value, value - (high - low) / 2, len(own))


def _said(judged: _Judged, status: Status, held: Held, at: float, change: Change | None) -> tuple[Status, str]:
    """Up to where accuracy holds in words, and the status: "undecided" where the seeds cannot tell."""
    fit, points, swept = judged.fit, judged.points, judged.swept
    accuracy = judged.accuracy
    capital = f"{accuracy[:1].upper()}{accuracy[1:]}"
    beyond = judged.beyond("its plateau")
    weaker = "weaker" if points.stronger == "larger" else "weaker (larger)"
    if fit.plateau <= 0:
        return status, f"{capital} is {judged.plateau} at the weak strengths: there is nothing that could tip"
    tips = f"{symbol(points.strength)} = {_located(fit)}" if fit.status == "tipping point" else ""
    if status == "collapsed" and tips:
        return status, f"{capital} tips before the weakest strength swept, at {tips}"
    if status == "collapsed":
        where = f"{judged.at(swept[0])}, on it is {beyond}, {judged.plateau}"
        return status, f"{capital} holds at no strength swept: from the weakest, {where}: sweep {weaker}"
    if math.isnan(held.strength):
        start = f"At the weakest strength swept, {judged.at(swept[0])}, {accuracy} is {beyond}, {judged.plateau}"
        if fit.status == "none in range":
            return status, f"{start}, but not at most of those beyond: no tipping point is found"
        return status, f"{start}; {_open(judged)}"
    if fit.reason.startswith(_UNKNOWN):
        return (
            status,
            f"Whether {accuracy} holds up to {judged.at(at)} is not known (p = {_p(fit.p_value)}): {fit.reason}",
        )
    shift = _shift(judged, at, change)
    verb, within, certain = _holding(judged, at, shift)
    upto = "Up to" if points.stronger == "larger" else "Down to"
    start = f"{upto} {judged.at(held.strength)}"
    if status == "tips":
        return status, f"{start}{_grid_interval(held, swept)} {accuracy} {verb} ({within}); it tips at {tips}"
    if status == "holds":
        seed = f" in the one {judged.unit} there is" if fit.seeds == 1 else ""
        end = f"{capital} {verb} up to the strongest strength swept, {judged.at(at)},{seed} ({within})"
        words = end.replace(", (", " (")
        if not certain:
            return "undecided", words
        return status, words if at == STRONGEST.get(points.strength) else f"{words}: {_stronger(points)}"
    start = f"{start} {accuracy} {verb} ({within})"
    if fit.status != "none in range":
        return status, f"{start}; {_open(judged)}"
    those = [x for x in judged.fallen if swept.index(x) > swept.index(at)]
    parts = []
    for x in those[:_MOST_NAMED]:
        own = judged.scores[x]
        trials = f", {sum(map(judged.has_fallen, own))} of {count(len(own), 'trial')}" if len(own) > 1 else ""
        parts.append(f"{judged.at(x)} ({_score(_mean(own), points.metric)}{trials})")
    more = ", …" if len(those) > _MOST_NAMED else ""
    start = f"{start}; its mean is {judged.beyond('that')} at {', '.join(parts)}{more}"
    if those[-1] != swept[-1]:
        return status, f"{start}, but not at most of those beyond: no tipping point is found"
    return status, f"{start}, too few trials to tell that it tips: {_needed(judged)}"


def _holding(judged: _Judged, upto: float, shift: _Shift) -> tuple[str, str, bool]:
    """What accuracy does up to a strength: the verb, how near the plateau it is, and whether the seeds can tell."""
    metric, plateau = judged.points.metric, judged.fit.plateau
    those = judged.swept[: judged.swept.index(upto) + 1]
    means = {x: _mean(judged.scores[x]) for x in those}
    dips = [x for x in those if x in judged.fallen]
    fall = max([0.0, *(judged.up * (plateau - means[x]) for x in those if x not in dips)])
    certain = not shift.low <= -judged.fall
    falls = max(fall, -shift.value) > judged.fall / 2
    verb = "holds" if certain else "seems to hold"
    if falls:
        level = judged.beyond("its plateau").split(" ", 1)[1]
        side, way = ("above", "falls") if judged.up > 0 else ("below", "rises")
        verb = f"{way}, but {'stays' if certain else 'seems to stay'} {side} {level}"
    baseline = "" if judged.curve.baseline else ", that of the weak strengths"
    words = [f"{short_name(metric)} within {judged.size(fall)} of its plateau, {judged.plateau}{baseline}"]
    if dips:
        named = ", ".join(f"to {_score(means[x], metric)} at {judged.at(x)}" for x in dips[:_MOST_NAMED])
        words.append(f"but for {'a dip' if len(dips) == 1 else 'dips'} {named}{', …' * (len(dips) > _MOST_NAMED)}")
    kept = [score for x in those if x not in dips for score in judged.scores[x]]
    single = sum(map(judged.has_fallen, kept))
    if single:
        words.append(f"but for {single} of {count(len(kept), 'trial')}, {judged.beyond('it')}")
    doubt = ""
    if not certain:
        more = seeds_to_exclude(shift.value, shift.value - shift.low, shift.n, judged.fall)
        would = f"{more or MOST_MORE} more, differing as they do, would {'tell' if more else 'not tell'}"
        room = f"a {'fall' if judged.up > 0 else 'rise'} of {judged.size(judged.fall)} or more"
        doubt = f"; {count(shift.n, judged.unit)} leave room for {room}: {would}"
    return verb, ", ".join(words) + doubt, certain


def _open(judged: _Judged) -> str:
    """What would decide an inconclusive curve."""
    fit = judged.fit
    # what more of the same cannot decide, the fit says itself
    elsewhere = fit.reason.startswith((_UNKNOWN, "most of the range"))
    cure = fit.reason if elsewhere else _needed(judged)
    return f"whether it tips beyond is inconclusive (p = {_p(fit.p_value)}): {cure}"


def _needed(judged: _Judged) -> str:
    """What more of the same would decide whether a curve tips."""
    curve, points = judged.curve, judged.points
    x = [float(row[points.strength]) for row in curve.trials]
    every = sorted({replicate(row) for row in curve.trials})
    seed = [every.index(replicate(row)) for row in curve.trials]
    asked: dict[str, Any] = {
        "share": points.share,
        "reference_below": points.reference_below,
        "baseline": curve.baseline,
        "stronger": points.stronger,
        "direction": points.direction,
    }
    seeds = seeds_to_decide(x, curve.scores, seed, **asked)
    more = None
    if judged.swept[-1] in judged.fallen:
        smaller = points.stronger == "smaller"
        more = strengths_to_decide(x, curve.scores, seed, smaller_is_stronger=smaller, **asked)
    ways = []
    if seeds is not None:
        ways.append(f"{count(seeds, judged.unit)} more, scoring as those seen,")
    if more is not None and judged.swept[-1] != STRONGEST.get(points.strength):
        ways.append(f"{count(more, 'strength')} more beyond the strongest, scoring as it does,")
    if ways:
        return f"{' or '.join(ways)} would decide"
    return f"{count(MOST_MORE, judged.unit)} more, scoring as those seen, would not decide: {_stronger(points)}"


def _stronger(points: TippingPoints) -> str:
    """What to sweep beyond the strongest."""
    return "sweep stronger" if points.stronger == "larger" else "sweep stronger (smaller)"


def _grid_interval(held: Held, swept: Sequence[float]) -> str:
    if held.low == held.strength == held.high:
        return ""
    low = f"weaker than {number(swept[0])}" if math.isnan(held.low) else number(held.low)
    return f" [{low}, {number(held.high)}]"


def _located(fit: TippingPoint) -> str:
    values = [10**value for value in (fit.log10_strength, fit.low, fit.high)]
    for digits in range(3, 7):
        texts = [number(value, digits) for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def _p(value: float) -> str:
    return f"{value:.2g}".lstrip("0")


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def explained(share: float = 0.8) -> str:
    """What the words of the answers mean, once."""
    return (
        f"Accuracy tips at the strength where it falls to {100 * share:g}% of its plateau, which is what it has "
        "at weak strengths, and where these are few without regularisation. It holds where it is nearer to the plateau "
        "than half that fall, and seems to where the seeds leave room for all of it. Brackets are 95% intervals: of "
        "the tipping point; of the strongest swept strength before it, as the grid sees the tipping point's (none "
        "where that lies between two neighbours); and of what is different from the unregularised trials (none), over "
        "seeds, each by itself."
    )


def not_answered(sweep: Sweep, found: Sequence[Answer]) -> list[str]:
    """Which of the strengths that a sweep has several values of no answer is about; each with what shows it."""
    rows = [row for row in sweep.settings.to_pylist() if row["method"] != "baseline"]
    names = [name for name in strengths_of(sweep.settings) if name not in CONVERTED_STRENGTHS]
    main = main_strengths(sweep)
    said = []
    for method in sorted({row["method"] for row in rows}):
        own = [row for row in rows if row["method"] == method]
        by = {answer.strength for answer in found if method in answer.method.split(" and ")}
        for name in names:
            values = {row[name] for row in own if row[name] is not None}
            told = name in by or (name == main.get(method) and by <= {""})
            if not told and len(values) > 1:
                shown = ", ".join(number(value, 3) for value in sorted(values)[:6]) + (", …" if len(values) > 6 else "")
                said.append(f"{method_name(method)} by {symbol(name)} ({shown}): --strength {name}")
    return said
