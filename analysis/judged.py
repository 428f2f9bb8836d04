"""What is known of how strong a regulariser may be, of one curve: the status, the strengths, and the words for it."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from analysis.changes import Change, form, short_name, signed
from analysis.groups import Group, Quantity, count, digits_of, replicate
from analysis.holding import (
    MOST_MORE,
    Held,
    held_up_to,
    mean_interval,
    seeds_to_decide,
    seeds_to_exclude,
    strengths_to_decide,
)
from analysis.schema import STRONGEST, stronger
from analysis.symbols import number, symbol
from analysis.tipping_fit import WEAK_END, TippingPoint
from analysis.tipping_points import Curve, TippingPoints

MOST_NAMED = 4
_UNKNOWN = "the plateau is not known"
_ELSEWHERE = (_UNKNOWN, "most of the range", WEAK_END)
"""How a fit's reason begins that more of the same would not change."""

Status = Literal["tips", "holds", "undecided", "collapsed", "not judged"]


def has_folds(group: Group) -> bool:
    return any(row["fold"] is not None for row in group.trials)


def score_text(value: float, quantity: Quantity) -> str:
    return f"{100 * value:.1f}%" if quantity.unit == "fraction" else number(value, 3)


def named(name: str, strength: float, swept: Sequence[float]) -> str:
    """ "α = 10", one of the strengths swept."""
    return f"{symbol(name)} = {number(strength, digits_of(sorted(set(swept)), 4))}"


@dataclass(frozen=True)
class Judged:
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
        return "run" if has_folds(self.curve.group) else "seed"

    def has_fallen(self, score: float) -> bool:
        return self.up * score < self.up * self.level - 1e-12 * abs(self.level)

    @property
    def fallen(self) -> list[float]:
        """The strengths whose mean has."""
        return [x for x, own in self.scores.items() if self.has_fallen(_mean(own))]

    @property
    def all_diverged(self) -> bool:
        return all(row["status"] == "diverged" for row in self.curve.trials)

    @property
    def accuracy(self) -> str:
        return "accuracy" if self.points.metric.metric == "top1" else short_name(self.points.metric)

    @property
    def plateau(self) -> str:
        return score_text(self.fit.plateau, self.points.metric)

    def at(self, strength: float) -> str:
        """ "α = 10"."""
        return named(self.points.strength, strength, self.swept)

    def beyond(self, plateau: str) -> str:
        """ "below 80% of its plateau"."""
        share = self.points.share
        return f"below {100 * share:g}% of {plateau}" if self.up > 0 else f"above {plateau} / {share:g}"

    def size(self, value: float) -> str:
        """ "7.7 points"."""
        if self.points.metric.unit == "fraction":
            return f"{signed(100 * value, form(100 * value))} points"
        return number(value, 3)


def place(judged: Judged) -> tuple[Status, Held, float]:
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
class Shift:
    """How much better than its plateau a metric is at a strength, and how much worse that may be as far as the seeds
    tell: the lower end of its 95% interval, nan where there is one seed."""

    value: float
    low: float
    n: int


def shift_at(judged: Judged, strength: float, change: Change | None) -> Shift:
    """Against the unregularised trials where there are some, else against the plateau."""
    own = judged.scores[strength]
    if change is not None and min(change.n, change.n if change.paired else change.n_reference) > 1:
        scale = judged.up * (judged.fit.plateau if change.relative else 1.0)
        ends = [scale * end for end in (change.low, change.high) if not math.isnan(end)]
        return Shift(scale * change.value, min([*ends, scale * change.value]), change.n)
    low, high = mean_interval(own)
    value = judged.up * (_mean(own) - judged.fit.plateau)
    return Shift(value, value - (high - low) / 2, len(own))


def in_words(judged: Judged, status: Status, held: Held, at: float, change: Change | None) -> tuple[Status, str, str]:
    """Up to where accuracy holds in words, and what the seeds leave room for there ("": nothing that would be tipping);
    the status is "undecided" where they leave room for that at the strongest strength."""
    known = not math.isnan(held.strength) and not judged.fit.reason.startswith(_UNKNOWN)
    shift = shift_at(judged, at, change) if known else None
    doubt = "" if shift is None else _doubt(judged, at, shift)
    words = _up_to(judged, status, held, at, shift)
    return ("undecided" if status == "holds" and doubt else status), words, doubt


def _doubt(judged: Judged, at: float, shift: Shift) -> str:
    """What the seeds leave room for, and how many more would tell; "" where they leave out a fall that is tipping."""
    if not shift.low <= -judged.fall:
        return ""
    more = seeds_to_exclude(shift.value, shift.value - shift.low, shift.n, judged.fall)
    would = f"{more or MOST_MORE} more, differing as they do, would {'tell' if more else 'not tell'}"
    room = f"a {'fall' if judged.up > 0 else 'rise'} of {judged.size(judged.fall)} or more"
    return f"{count(shift.n, judged.unit)} leave room for {room} at {judged.at(at)}: {would}"


def _up_to(judged: Judged, status: Status, held: Held, at: float, shift: Shift | None) -> str:
    """Up to where accuracy holds; `shift`: how near its plateau it is there, where that is known."""
    fit, points, swept = judged.fit, judged.points, judged.swept
    accuracy = judged.accuracy
    capital = f"{accuracy[:1].upper()}{accuracy[1:]}"
    beyond = judged.beyond("its plateau")
    weaker = "weaker" if points.stronger == "larger" else "weaker (larger)"
    if fit.plateau <= 0:
        return f"{capital} is {judged.plateau} at the weak strengths: there is nothing that could tip"
    tips = f"{symbol(points.strength)} = {_located(fit, swept)}" if fit.status == "tipping point" else ""
    if status == "collapsed" and tips:
        return f"{capital} tips before the weakest strength swept, at {tips}"
    if status == "collapsed" and judged.all_diverged:
        trials = f"all {count(len(judged.curve.trials), 'trial')} diverged, from the weakest, {judged.at(swept[0])}, on"
        return f"{capital} holds at no strength swept: {trials}: sweep {weaker}"
    if status == "collapsed":
        where = f"{judged.at(swept[0])}, on it is {beyond}, {judged.plateau}"
        others = [x for x in swept if x not in judged.fallen]
        shown = [f"{judged.at(x)} ({score_text(_mean(judged.scores[x]), points.metric)})" for x in others[:MOST_NAMED]]
        where += f", but for {', '.join(shown)}{', …' * (len(others) > MOST_NAMED)}" if others else ""
        return f"{capital} holds at no strength swept: from the weakest, {where}: sweep {weaker}"
    if math.isnan(held.strength):
        weakest, strongest = (score_text(_mean(judged.scores[x]), points.metric) for x in (swept[0], swept[-1]))
        start = (
            f"At the weakest strength swept, {judged.at(swept[0])}, {accuracy} is {weakest}, {beyond}, {judged.plateau}"
        )
        start = f"{start}; at the strongest, {judged.at(swept[-1])}, it is {strongest}"
        if swept[-1] not in judged.fallen:
            start = f"{start}: {accuracy} is {'lower' if judged.up > 0 else 'higher'} at the weak end"
            open_ = f"whether it tips is inconclusive (p = {_p(fit.p_value)})"
            return f"{start}, and {'no tipping point is found' if fit.status == 'none in range' else open_}"
        if fit.status == "none in range":
            return f"{start}: no tipping point is found"
        cure = fit.reason if fit.reason.startswith(_ELSEWHERE) else _needed(judged)
        return f"{start}; whether it has tipped is inconclusive (p = {_p(fit.p_value)}): {cure}"
    if fit.reason.startswith(_UNKNOWN):
        return f"Whether {accuracy} holds up to {judged.at(at)} is not known (p = {_p(fit.p_value)}): {fit.reason}"
    assert shift is not None
    certain = not _doubt(judged, at, shift)
    verb, within = _holding(judged, at, shift, certain)
    upto = "Up to" if points.stronger == "larger" else "Down to"
    start = f"{upto} {judged.at(held.strength)}"
    if status == "tips":
        return f"{start}{_grid_interval(held, swept)} {accuracy} {verb} ({within}); it tips at {tips}"
    if status == "holds":
        seed = f" in the one {judged.unit} there is" if fit.seeds == 1 else ""
        end = f"{capital} {verb} up to the strongest strength swept, {judged.at(at)},{seed} ({within})"
        words = end.replace(", (", " (")
        last = not certain or at == STRONGEST.get(points.strength)
        return words if last else f"{words}: {_stronger(points)}"
    start = f"{start} {accuracy} {verb} ({within})"
    if fit.status != "none in range":
        return f"{start}; {_open(judged)}"
    those = [x for x in judged.fallen if swept.index(x) > swept.index(at)]
    parts = []
    for x in those[:MOST_NAMED]:
        own = judged.scores[x]
        trials = f", {sum(map(judged.has_fallen, own))} of {count(len(own), 'trial')}" if len(own) > 1 else ""
        parts.append(f"{judged.at(x)} ({score_text(_mean(own), points.metric)}{trials})")
    more = ", …" if len(those) > MOST_NAMED else ""
    start = f"{start}; its mean is {judged.beyond('that')} at {', '.join(parts)}{more}"
    if those[-1] != swept[-1]:
        return f"{start}, but not at most of those beyond: no tipping point is found"
    return f"{start}, too few trials to tell that it tips: {_needed(judged)}"


def _holding(judged: Judged, upto: float, shift: Shift, certain: bool) -> tuple[str, str]:
    """What accuracy does up to a strength: the verb, and how near the plateau it is."""
    metric, plateau = judged.points.metric, judged.fit.plateau
    those = judged.swept[: judged.swept.index(upto) + 1]
    means = {x: _mean(judged.scores[x]) for x in those}
    dips = [x for x in those if x in judged.fallen]
    fall = max([0.0, *(judged.up * (plateau - means[x]) for x in those if x not in dips)])
    falls = max(fall, -shift.value) > judged.fall / 2
    verb = "holds" if certain else "seems to hold"
    if falls:
        level = judged.beyond("its plateau").split(" ", 1)[1]
        side, way = ("above", "falls") if judged.up > 0 else ("below", "rises")
        verb = f"{way}, but {'stays' if certain else 'seems to stay'} {side} {level}"
    baseline = "" if judged.curve.baseline else ", that of the weak strengths"
    far = fall > 1e-12 * abs(plateau)  # less is rounding
    side = f"{f'at most {judged.size(fall)}' if far else 'not'} {'below' if judged.up > 0 else 'above'}"
    words = [f"{short_name(metric)} {side} its plateau, {judged.plateau}{baseline}"]
    if dips:
        named = ", ".join(f"to {score_text(means[x], metric)} at {judged.at(x)}" for x in dips[:MOST_NAMED])
        words.append(f"but for {'a dip' if len(dips) == 1 else 'dips'} {named}{', …' * (len(dips) > MOST_NAMED)}")
    kept = [score for x in those if x not in dips for score in judged.scores[x]]
    single = sum(map(judged.has_fallen, kept))
    if single:
        words.append(f"but for {single} of {count(len(kept), 'trial')}, {judged.beyond('it')}")
    return verb, ", ".join(words)


def _open(judged: Judged) -> str:
    """What would decide an inconclusive curve."""
    fit = judged.fit
    cure = fit.reason if fit.reason.startswith(_ELSEWHERE) else _needed(judged)
    return f"whether it tips beyond is inconclusive (p = {_p(fit.p_value)}): {cure}"


def _needed(judged: Judged) -> str:
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


def briefly(curve: Curve, strength: str) -> str:
    """The tipping point of a judged curve with its interval, or what there is instead, in a few words."""
    fit, sign = curve.fit, symbol(strength)
    assert fit is not None
    swept = sorted({float(row[strength]) for row in curve.trials}, reverse=stronger(strength) == "smaller")
    if fit.status == "tipping point":
        return f"tips at {sign} = {_located(fit, swept)}"
    if fit.status == "none in range":
        return f"none in range: no tipping point up to the strongest, {sign} = {number(swept[-1], 4)}"
    if fit.status == "below range":
        return f"below range: accuracy has fallen at the weakest, {sign} = {number(swept[0], 4)}"
    return f"inconclusive (p = {_p(fit.p_value)}): {fit.reason}"


def _grid_interval(held: Held, swept: Sequence[float]) -> str:
    """In the order of numbers, as all intervals are, also where smaller is stronger."""
    if held.low == held.strength == held.high:
        return ""
    ends = [f"weaker than {number(swept[0])}" if math.isnan(held.low) else number(held.low), number(held.high)]
    return f" [{', '.join(ends if swept[0] < swept[-1] else reversed(ends))}]"


def _located(fit: TippingPoint, swept: Sequence[float]) -> str:
    values = [10**value for value in (fit.log10_strength, fit.low, fit.high)]
    on_grid = [next((x for x in swept if math.isclose(x, value, rel_tol=1e-9)), None) for value in values]
    for digits in range(3, 7):
        # a strength that was swept reads as elsewhere
        texts = [
            number(value, digits) if x is None else number(x, digits_of(swept, 4))
            for value, x in zip(values, on_grid, strict=True)
        ]
        if len(set(texts)) == len(set(values)):
            break
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def _p(value: float) -> str:
    return f"{value:.2g}".lstrip("0")


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
