"""The answer of a sweep in plain numbers: how strong a regulariser may be, and what that brings.

    >>> for answer in answers(read_sweep("analysis/reproductions/pilcro-cifar10")):
    ...     print(answer)

One sentence for each curve of accuracy against strength (see `tipping_points`): up to which of the swept strengths
accuracy holds, and what is different there from the unregularised trials. Where no tipping point is found, it says what
is known instead. Every number in it is computed from the record; what cannot be had is said with its reason.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
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
from analysis.holding import MOST_MORE, Held, held_up_to, seeds_to_decide, strengths_to_decide
from analysis.records import Sweep
from analysis.schema import CONVERTED_STRENGTHS
from analysis.symbols import all_named, method_name, number, symbol
from analysis.tipping_fit import TippingPoint
from analysis.tipping_points import Curve, NothingToJudge, TippingPoints, tipping_points

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


def answers(sweep: Sweep, *, strength: str | None = None, seed: int = 0) -> list[Answer]:
    """The answer for each curve of a sweep: of each method by its own strength (`main_strengths`), or by `strength`.

    Where no curve can be judged there is one for each setting. Raises `InputError` for an unknown strength, and as
    `tipping_points` does.
    """
    return of_points(sweep, *all_points(sweep, strength=strength, seed=seed))


def all_points(
    sweep: Sweep, *, strength: str | None = None, seed: int = 0
) -> tuple[list[TippingPoints], dict[str, str]]:
    """The tipping points of each method by its own strength, or by `strength`; and for each method that has none the
    reason. Raises `InputError` as `tipping_points` does, but not where nothing can be judged."""
    rows = [row for row in sweep.rows if row["method"] != "baseline"]
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
            result = tipping_points(sweep, strength=name, seed=seed)
        except NothingToJudge as error:
            said = str(error).removeprefix(f"{sweep.path}: ").removeprefix("no tipping point can be looked for: ")
            said = said.split("; ")[0].replace(f"{name} =", f"{symbol(name)} =")
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
    rows = [row for row in sweep.rows if row["method"] != "baseline"]
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

    every = sweep.rows
    finished = [row for row in every if row["status"] != "failed"]
    baseline = [row for row in finished if row["method"] == "baseline"]
    said: list[Answer] = []
    for points in found:
        names = _names([curve.group for curve in points.curves])
        for curve, name in zip(points.curves, names, strict=True):
            status, held, at, holds = _held(curve, points, smaller_is_stronger=points.stronger == "smaller")
            trials = [row for row in curve.trials if row[points.strength] == at]
            zero = [row for row in curve.group.trials if row[points.strength] == 0]
            asked = [points.metric, *measures_of(curve.group.trials[0]["method"], known)]
            changes, of_zero, absent = _changes(asked, curve.group, trials, baseline, zero, values)
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


def _held(curve: Curve, points: TippingPoints, *, smaller_is_stronger: bool = False) -> tuple[Status, Held, float, str]:
    """What is known of how strong it may be: the status, the strengths, where to compare, and the words."""
    strength, metric, share = points.strength, points.metric, points.share
    sign, nowhere = symbol(strength), Held(math.nan, math.nan, math.nan)
    # from weak to strong, as the means by strength
    swept = sorted({float(row[strength]) for row in curve.trials}, reverse=smaller_is_stronger)
    digits = digits_of(swept, 4)
    accuracy = "accuracy" if metric.metric == "top1" else short_name(metric)
    capital = f"{accuracy[:1].upper()}{accuracy[1:]}"
    fit = curve.fit
    if fit is None:
        reason = curve.reason.replace(f"{strength} =", f"{sign} =")
        return "not judged", nowhere, swept[-1] if swept else math.nan, f"Whether accuracy tips is not judged: {reason}"
    level = share * fit.plateau
    means = {
        x: _mean([y for row, y in zip(curve.trials, curve.scores, strict=True) if row[strength] == x]) for x in swept
    }
    percent, plateau = f"{100 * share:g}%", _score(fit.plateau, metric)
    if fit.plateau <= 0:
        words = f"{capital} is {plateau} at the weak strengths: there is nothing that could tip"
        return "not judged", nowhere, swept[0], words
    if fit.status == "tipping point":
        fallen = (min if smaller_is_stronger else max)(fit.bracket)
        where_known = fit.log10_strength, fit.low, fit.high, fallen
        held = held_up_to(swept, *where_known, smaller_is_stronger=smaller_is_stronger)
        where = f"{sign} = {_located(fit)}"
        if math.isnan(held.strength):
            words = f"{capital} tips before the weakest strength swept, at {where}"
            return "collapsed", held, swept[0], words
        interval = _grid_interval(held, swept)
        within = _within(means, held.strength, fit.plateau, level, metric, sign)
        words = (
            f"Up to {sign} = {number(held.strength, digits)}{interval} {accuracy} holds ({within}); it tips at {where}"
        )
        return "tips", held, held.strength, words
    if fit.status == "below range":
        words = (
            f"{capital} holds at no strength swept: from the weakest, {sign} = {number(swept[0], digits)}, on it is "
            f"below {percent} of its plateau, {plateau}: sweep weaker"
        )
        return "collapsed", nowhere, swept[0], words
    upto = _prefix(means, level)
    if fit.status == "none in range" and upto == swept[-1]:
        within = _within(means, upto, fit.plateau, level, metric, sign)
        words = f"{capital} holds up to the strongest strength swept, {sign} = {number(upto, digits)} ({within})"
        return "holds", Held(upto, math.nan, math.nan), upto, f"{words}: sweep stronger"
    if math.isnan(upto):
        start = (
            f"At the weakest strength swept, {sign} = {number(swept[0], digits)}, {accuracy} is below {percent} of its "
            f"plateau, {plateau}"
        )
        held, at = nowhere, swept[0]
    else:
        within = _within(means, upto, fit.plateau, level, metric, sign)
        start = f"Up to {sign} = {number(upto, digits)} {accuracy} holds ({within})"
        held, at = Held(upto, math.nan, math.nan), upto
    if fit.status == "none in range":
        below = [x for x in swept if means[x] < level]
        those = f"at {sign} = {', '.join(number(x, digits) for x in below[:4])}" if below else "in single trials"
        words = f"{start}; it is below {percent} of its plateau {those}, but no tipping point is found"
        return "undecided", held, at, words
    words = f"{start}; whether it tips beyond is inconclusive (p = {_p(fit.p_value)}): "
    # what more of the same cannot decide, the fit says itself
    elsewhere = fit.reason.startswith(("the plateau", "most of the range"))
    words += fit.reason if elsewhere else _needed(curve, points, smaller_is_stronger)
    return "undecided", held, at, words


def _needed(curve: Curve, points: TippingPoints, smaller_is_stronger: bool) -> str:
    """What would decide an inconclusive curve."""
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
    assert curve.fit is not None
    strongest = min(x) if smaller_is_stronger else max(x)
    more = None
    if _mean([y for value, y in zip(x, curve.scores, strict=True) if value == strongest]) < (
        points.share * curve.fit.plateau
    ):
        more = strengths_to_decide(x, curve.scores, seed, smaller_is_stronger=smaller_is_stronger, **asked)
    ways = []
    if seeds is not None:
        ways.append(f"{count(seeds, 'seed')} more, scoring as those seen,")
    if more is not None:
        ways.append(f"{count(more, 'strength')} more beyond the strongest, scoring as it does,")
    if ways:
        return f"{' or '.join(ways)} would decide"
    return f"{MOST_MORE} seeds more, scoring as those seen, would not decide: sweep stronger"


def _prefix(means: Mapping[float, float], level: float) -> float:
    """The strongest strength up to which every mean (from weak to strong) is at least this level; nan: the weakest is
    below."""
    held = list(itertools.takewhile(lambda x: means[x] >= level * (1 - 1e-12), means))
    return held[-1] if held else math.nan


def _within(
    means: Mapping[float, float], upto: float, plateau: float, level: float, metric: Quantity, sign: str
) -> str:
    """How far the means (from weak to strong) up to a strength fall below the plateau."""
    order = list(means)
    those = {x: means[x] for x in order[: order.index(upto) + 1]}
    lowest = min(those, key=lambda x: those[x])
    fall = max(plateau - those[lowest], 0.0)
    text = f"{signed(100 * fall, form(100 * fall))} points" if metric.unit == "fraction" else number(fall, 3)
    words = f"{short_name(metric)} within {text} of its plateau, {_score(plateau, metric)}"
    if those[lowest] < level * (1 - 1e-12):
        words += f", the furthest at {sign} = {number(lowest)}, a dip to {_score(those[lowest], metric)}"
    return words


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
        "at weak strengths. Brackets are 95% intervals: of the tipping point; of the strongest swept strength before "
        "it, as the grid sees the tipping point's (none where that lies between two neighbours); and of what is "
        "different from the unregularised trials (none), over seeds, each by itself."
    )


def not_answered(sweep: Sweep, found: Sequence[Answer]) -> list[str]:
    """Which of the strengths that a sweep has several values of no answer is about; each with what shows it."""
    rows = [row for row in sweep.rows if row["method"] != "baseline"]
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
