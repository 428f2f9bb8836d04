"""The papers' tables beside a sweep's, and the verdict on each line: see `analysis.paper`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from analysis.command_line import InputError
from analysis.comparisons import compare
from analysis.correlations import Correlations, correlations
from analysis.groups import (
    Group,
    Quantity,
    Row,
    by_options,
    check_finished,
    check_rows,
    differing,
    grouped,
    label,
    quantities,
    replicate,
    training,
    values_of,
)
from analysis.lazily import lazily
from analysis.multiplicity import adjust
from analysis.paper.items import ITEMS, METHODS, Item
from analysis.paper.printed import Claim, Trend, claims, trends
from analysis.paper.protocol import _LEVEL_ROUNDED, _configuration, _same, _unlike
from analysis.records import Sweep
from analysis.results import arrow
from analysis.theorems import theorem_quantities
from analysis.tipping_points import PaperThreshold, TippingPoints, located, tipping_points

stats = lazily("scipy.stats")

Judgement = Literal["agrees", "differs", "too wide to tell", "not comparable", "computed"]
SIGNIFICANCE = 0.05

# of which Spearman's ρ = 0.5 has a two-sided p of .05
_MODELS_FOR_NO_TREND = 16


@dataclass(frozen=True)
class Line:
    """A number of the paper, or something it says, beside ours. nan: there is none, `why` says the reason."""

    row: str
    column: str
    paper: str
    """As printed, with its deviation; or the statement."""
    value: float
    unit: str
    setting: str
    """Which trials of ours, where several settings of the record are candidates."""
    n: int
    ours: float
    low: float
    high: float
    difference: float
    order: str
    """What the paper's order of this number and the one it compares it with comes to in ours."""
    order_p: float
    verdict: Judgement | Literal[""]
    why: str


# the limit of the rule of the input-gradient regularisation paper (Section 3.2), in the strengths of a record
PAPERS_LIMIT = {"gradreg": 1e5}


class _Ours:
    """A sweep's finished trials, and their values by quantity; `reference_below`: the limit of the paper's rule, by
    default the paper's own where it has one."""

    def __init__(self, sweep: Sweep, reference_below: float | None = None) -> None:
        check_finished(sweep)
        self.sweep, self.reference_below = sweep, reference_below
        self.rows = [row for row in sweep.rows if row["status"] != "failed"]
        check_rows(self.rows)
        self.known = quantities(sweep)
        self._values: dict[Quantity, dict[str, float]] = {}
        self._groups: dict[tuple[tuple[str, Any], ...], list[Group]] = {}

    def quantity(self, name: str) -> list[tuple[Quantity, float, float, str]]:
        """The record's quantities of this name, one for each kind of options, (scale, shift) from it to the claim's,
        and in what it is unlike.

        "error" is 1 − top1; "metric#0" is measured at initialisation. Levels match within 2%, since printed ones are
        rounded (8/255 as 0.0314); at another level than the paper's a quantity is not comparable.
        """
        if name == "error":
            return [] if "top1" not in self.known else [(self.known["top1"], -1.0, 1.0, "")]
        name, _, epoch = name.partition("#")
        stem, _, level = name.partition("@")
        if epoch:
            metric, _, component = stem.partition(":")
            initial = Quantity(metric, component, measured=True, epoch=int(epoch))
            return [(quantity, 1.0, 0.0, "") for quantity in by_options(self.sweep, initial)]
        if not level:
            return [(quantity, 1.0, 0.0, "") for quantity in self.known.values() if quantity.stem == name]
        same = [
            quantity
            for quantity in self.known.values()
            if quantity.measured
            and stem == f"{quantity.metric}{f':{quantity.component}' if quantity.component else ''}"
        ]
        exact = [it for it in same if it.at is not None and math.isclose(it.at, float(level), rel_tol=_LEVEL_ROUNDED)]
        if exact:
            return [(quantity, 1.0, 0.0, "") for quantity in exact]
        at = same[0].at if same else None
        unlike = f"level is {'not recorded' if at is None else f'{at:.4g}'} (paper: {level})"
        return [(quantity, 1.0, 0.0, unlike) for quantity in same if quantity.at == at]

    def limit(self, table: str) -> float | None:
        """Of the paper's rule for a table; None: the default of `paper_threshold`."""
        return self.reference_below or PAPERS_LIMIT.get(table.partition("-")[0])

    def is_of(self, table: str) -> bool:
        """Whether the record has trials of the table's method, and not only unregularised ones."""
        method = METHODS[table.partition("-")[0]]
        return any(row["method"] == method for row in self.rows)

    def values(self, quantity: Quantity) -> dict[str, float]:
        if quantity not in self._values:
            found = {trial: value.value for trial, value in values_of(self.sweep, quantity).items()}
            self._values[quantity] = {trial: value for trial, value in found.items() if math.isfinite(value)}
        return self._values[quantity]

    def candidates(self, settings: dict[str, Any]) -> list[Group]:
        """The settings of the record that a claim's settings leave open, each with its seeds."""
        if not settings:
            return []  # of another author's method, or of one that no column tells
        key = tuple(sorted(settings.items()))
        if key not in self._groups:
            rows = [row for row in self.rows if all(_same(name, row[name], value) for name, value in settings.items())]
            found = []
            for group in grouped(rows, differing(rows)):
                # what no column tells apart, the whole configuration does
                parts: dict[str, list[Row]] = {}
                for row in group.trials:
                    parts.setdefault(_configuration(row), []).append(row)
                found += [Group(group.values, part, ()) for part in parts.values()]
            self._groups[key] = found
        return self._groups[key]

    def closest(self, claim: Claim) -> list[tuple[Group, list[str]]]:
        """The settings that are least unlike the paper's, and in what."""
        found = [(group, _unlike(group.trials[0], claim)) for group in self.candidates(claim.settings)]
        least = min((len(unlike) for _, unlike in found), default=0)
        return [(group, unlike) for group, unlike in found if len(unlike) == least]


Run = tuple[int, ...]
"""A repetition of a setting, see `groups.replicate`."""


def _comparable(one: Row, other: Row, settings: Collection[str]) -> bool:
    """Whether two trials share everything but the method and its hyperparameters, and what the paper's `settings` of
    either name, as they may the weight decay."""
    first, second = (
        {name: value for name, value in training(row).items() if name not in settings} for row in (one, other)
    )
    return first == second and (one["method"] != other["method"] or one.get("code.method") == other.get("code.method"))


def _by_run(group: Group, values: dict[str, float]) -> dict[Run, float]:
    return {replicate(row): values[row["trial_id"]] for row in group.trials if row["trial_id"] in values}


def _scaled(values: dict[Run, float], claim: Claim, scale: float, shift: float) -> dict[Run, float]:
    percent = 100.0 if claim.unit == "%" else 1.0
    return {run: percent * (shift + scale * value) for run, value in values.items()}


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95% t interval; nan where there is one value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class _Order:
    """A claimed order, tested: p one-sided, before adjustment."""

    text: str
    p_value: float


def _order(claim: Claim, own: dict[Run, float], group: Group, ours: _Ours, quantity: Quantity) -> _Order:
    other = _against(claim)
    if other.value == claim.value:
        return _Order("the paper's are equal", math.nan)
    sign, words = (1, "above") if claim.value > other.value else (-1, "below")
    theirs: dict[Run, float] = {}
    # measured with the same options
    found = [it for it in ours.quantity(other.quantity) if it[0].options == quantity.options and not it[3]]
    for measured, scale, shift, _ in found:
        for candidate in ours.candidates(other.settings):
            if _comparable(candidate.trials[0], group.trials[0], {*claim.settings, *other.settings}):
                values = _scaled(_by_run(candidate, ours.values(measured)), other, scale, shift)
                theirs = values if len(values) > len(theirs) else theirs
    name = other.row if other.column == claim.column else f"{other.row}, {other.column}"
    if not theirs:
        return _Order(f"{words} {name}: no trial of it", math.nan)
    # as `comparisons` pairs: one shared seed makes no pair
    shared = sorted(own.keys() & theirs.keys())
    paired = len(shared) > 1
    first = [own[run] for run in shared] if paired else list(own.values())
    second = [theirs[run] for run in shared] if paired else list(theirs.values())
    test = compare(first, second, paired=paired, alternative="greater" if sign > 0 else "less")
    if test.reason:
        return _Order(f"{words} {name}: not testable, {test.reason}", math.nan)
    return _Order(f"{words} {name}", test.p_value)


# in the note of a number of which the paper took the best of the k that it had tried
_BEST = "best of the tested k"


def _quality(own: Mapping[Run, float], claim: Claim) -> float:
    mean = float(np.mean(list(own.values())))
    return -mean if claim.direction == "min" else mean


def _numbers(ours: _Ours, table: str) -> list[Line]:
    """The numbers of a table of which the record has something."""
    drafts: list[tuple[Claim, str, list[str], dict[Run, float], _Order]] = []
    for claim in claims():
        if claim.table != table or not claim.quantity or not claim.settings:
            continue
        for quantity, scale, shift, level in ours.quantity(claim.quantity):
            found = []
            for group, unlike in ours.closest(claim):
                own = _scaled(_by_run(group, ours.values(quantity)), claim, scale, shift)
                if own:
                    found.append((group, [*unlike, level] if level else unlike, own))
            if _BEST in claim.note and found:
                found = [max(found, key=lambda it: _quality(it[-1], claim))]
            for group, unlike, own in found:
                order = _order(claim, own, group, ours, quantity) if claim.against else _Order("", math.nan)
                setting = ", ".join(part for part in (_setting(group, claim), quantity.with_options) if part)
                drafts.append((claim, setting, unlike, own, order))
    # a family of tests is what the verdicts rest on; those of another protocol are one of their own
    adjusted = np.full(len(drafts), math.nan)
    for comparable in (True, False):
        own_family = [index for index, draft in enumerate(drafts) if (not draft[2]) == comparable]
        adjusted[own_family] = adjust([drafts[index][-1].p_value for index in own_family])
    lines = []
    for (claim, setting, unlike, own, order), p_value in zip(drafts, adjusted, strict=True):
        mean, low, high = _interval(list(own.values()))
        holds = p_value < SIGNIFICANCE
        effect, what = _effect(claim)
        told = order.text
        if not math.isnan(p_value):
            told = f"{order.text}: {'holds' if holds else 'not shown'}, p = {p_value:.3g}"
        verdict: Judgement
        if unlike:
            verdict, why = "not comparable", "; ".join(unlike)
        elif claim.quantity in _SAME_FOR_SEEDS:
            equal = _is_printed(mean, claim)
            verdict, why = ("agrees" if equal else "differs"), f"{'equal' if equal else 'not equal'} as printed"
        elif low <= claim.value <= high and (high - low) / 2 <= effect:
            verdict, why = "agrees", "the paper's value lies in our interval"
        elif holds:
            verdict, why = "agrees", "the order of settings holds"
        elif math.isnan(low):
            verdict, why = "not comparable", "one seed: no interval, add --seeds"
        elif low <= claim.value <= high:
            verdict, why = "too wide to tell", f"our interval is ± {(high - low) / 2:.3g}, {what}: add --seeds"
        else:
            verdict, why = "differs", "outside our interval" + (", the order is not shown" if claim.against else "")
        spread = "" if claim.std is None else f" ± {claim.std:g}"
        unit = {"fraction": "", "%": "%"}.get(claim.unit, f" {claim.unit}".rstrip())
        lines.append(
            Line(
                claim.row,
                claim.column,
                f"{claim.printed}{spread}{unit}",
                claim.value,
                claim.unit,
                setting,
                len(own),
                mean,
                low,
                high,
                mean - claim.value,
                told,
                float(p_value),
                verdict,
                why,
            )
        )
    return lines


def _effect(claim: Claim) -> tuple[float, str]:
    """The difference that the paper itself calls an effect, a tenth of the number where it names none, and what it is:
    an interval that is wider would hold other findings, too."""
    if claim.against:
        difference = abs(claim.value - _against(claim).value)
        if difference > 0:
            return difference, f"the paper's effect {difference:.3g}"
    return abs(claim.value) / 10, f"a tenth of the number {abs(claim.value) / 10:.3g}"


def _against(claim: Claim) -> Claim:
    """The number that this one is compared with."""
    row, _, column = claim.against.partition(" || ")
    return next(
        it for it in claims() if it.table == claim.table and it.row == row and it.column == (column or claim.column)
    )


# the same for every seed, so that there is no interval
_SAME_FOR_SEEDS = ("parameters",)


def _is_printed(ours: float, claim: Claim) -> bool:
    """Whether ours differs from the paper's by less than a unit of the last printed decimal."""
    decimals = claim.printed.partition(".")[2]
    return abs(ours - claim.value) < (10.0 ** -len(decimals) if decimals else 1e-6)


def _computed(table: str) -> list[Line]:
    """The numbers of a theorem, which need no record: equal if they differ by less than a unit of the last printed
    decimal (the paper also cuts off, 0.725… for 0.7258); whole numbers are exact."""
    lines = []
    for claim in claims():
        if claim.table != table or claim.settings or claim.quantity not in theorem_quantities():
            continue
        ours = theorem_quantities()[claim.quantity]
        difference = ours - claim.value
        verdict: Judgement = "computed" if _is_printed(ours, claim) else "differs"
        why = "as printed" if verdict == "computed" else "computed"
        if claim.row == "center against corner":
            own = theorem_quantities()["cohesion_bound:c-co"]
            why = f"the bound of all cases; this one's own is {own:.4g}"
        if claim.quantity.startswith("minimax_weight"):
            # the theorem says nothing of the weights' bound, on which it depends
            verdict = "not comparable"
            why = "it depends on how w is bounded: ours has ‖w‖ = 1, g = exp(-|x|); 0 with Σ|w| = 1 or w ≥ 0"
        blank: dict[str, Any] = {"setting": "", "n": 1, "low": math.nan, "high": math.nan, "order_p": math.nan}
        lines.append(
            Line(
                row=claim.row,
                column=claim.column,
                paper=claim.printed,
                value=claim.value,
                unit=claim.unit,
                ours=ours,
                difference=difference,
                order="",
                verdict=verdict,
                why=why,
                **blank,
            )
        )
    return lines


def _setting(group: Group, claim: Claim) -> str:
    """What tells our setting apart that the paper's own words do not say."""
    rest = {name: value for name, value in group.values.items() if name not in claim.settings and value is not None}
    return label(rest) if rest else ""


def _statements(ours: _Ours, table: str) -> list[Line]:
    told = [trend for trend in trends() if trend.table == table]
    drafts: list[tuple[Trend, Line]] = []
    for strength in dict.fromkeys(trend.strength for trend in told):
        those = [trend for trend in told if trend.strength == strength]
        if all(not ours.candidates(trend.settings) for trend in those):
            continue
        wanted = {trend.quantity for trend in those if trend.trend != "tips"}
        metrics = sorted(name for name, quantity in ours.known.items() if quantity.stem in wanted)
        points: TippingPoints | None = None
        problem = ""
        tests: Correlations | None = None
        limit = ours.limit(table)
        try:
            points = tipping_points(ours.sweep, strength=strength, reference_below=limit)
            if metrics:
                tests = correlations(
                    ours.sweep, strength=strength, metrics=metrics, by=points.by, points=points, reference_below=limit
                )
        except InputError as error:
            problem = str(error)
        for trend in those:
            if trend.trend == "tips":
                drafts += [(trend, line) for line in _tips(trend, points, problem)]
            elif trend.quantity in {ours.known[name].stem for name in metrics}:
                drafts += [(trend, line) for line in _follows(trend, tests, problem)]
    # of several data sets' statements, those about the one of the record; all of them if it has none of these
    exact = [(trend, line) for trend, line in drafts if not line.why.startswith("dataset is")]
    seen: set[tuple[str, str, str]] = set()
    lines = []
    for trend, line in exact or drafts:
        key = (trend.quantity, trend.trend, line.setting)
        if exact or key not in seen:
            lines.append((trend, line))
        seen.add(key)
    adjusted = adjust([line.order_p for _, line in lines])
    return [_judged(trend, line, float(p_value)) for (trend, line), p_value in zip(lines, adjusted, strict=True)]


def _draft(trend: Trend, group: Group | None, **columns: Any) -> Line:
    unlike = _unlike(group.trials[0], trend) if group is not None else []
    text = f"{trend.quantity} {_TRENDS[trend.trend]} with {trend.strength}"
    blank: dict[str, Any] = {
        "row": trend.statement,
        "column": trend.quantity,
        "paper": text,
        "value": math.nan,
        "unit": "",
        "setting": group.label() if group is not None and group.values else "",
        "n": 0 if group is None else len(group.trials),
        "ours": math.nan,
        "low": math.nan,
        "high": math.nan,
        "difference": math.nan,
        "order": "",
        "order_p": math.nan,
        "verdict": "not comparable" if unlike else "",
        "why": "; ".join(unlike),
    }
    return Line(**{**blank, **columns})


_TRENDS = {"up": "rises", "down": "falls", "none": "has no trend", "tips": "tips over"}


def _matches(group: Group, trend: Trend) -> bool:
    return all(_same(name, group.trials[0][name], value) for name, value in trend.settings.items())


def _tips(trend: Trend, points: TippingPoints | None, problem: str) -> list[Line]:
    if points is None:
        return [_draft(trend, None, verdict="not comparable", why=problem)]
    lines = []
    for curve in points.curves:
        if not _matches(curve.group, trend):
            continue
        if curve.fit is None:
            lines.append(_draft(trend, curve.group, verdict="not comparable", why=curve.reason))
            continue
        where = f"{located(curve.fit, trend.strength) or curve.fit.status}; {_rule(curve.rule)}"
        numbers = {"ours": curve.fit.log10_strength, "low": curve.fit.low, "high": curve.fit.high}
        lines.append(_draft(trend, curve.group, **numbers, order=where, order_p=curve.fit.p_value))
    return lines


def _rule(rule: PaperThreshold | None) -> str:
    """What the paper's rule gives, with its limit."""
    if rule is None:
        return "the paper's rule does not apply"
    found = "none in range" if math.isnan(rule.strength) else f"{rule.strength:.4g}"
    return f"the paper's rule, limit {rule.reference_below:.4g}: {found}"


def _follows(trend: Trend, tests: Correlations | None, problem: str) -> list[Line]:
    if tests is None:
        return [_draft(trend, None, verdict="not comparable", why=problem)]
    lines = []
    for test in tests.tests:
        if test.quantity.stem != trend.quantity or not _matches(test.group, trend):
            continue
        parts = (test.group.label() if test.group.values else "", test.quantity.with_options)
        columns: dict[str, Any] = {"setting": ", ".join(part for part in parts if part)}
        if test.reason:
            lines.append(_draft(trend, test.group, **columns, verdict="not comparable", why=test.reason))
            continue
        cut = "none beyond a threshold" if math.isinf(test.limit) else f"{test.dropped} beyond {test.limit:.4g}"
        told = f"ρ = {test.rho.rho:.2f} ({test.kept} models, {cut})"
        columns |= {"n": test.kept, "ours": test.rho.rho, "order": told, "order_p": test.rho.p_value}
        lines.append(_draft(trend, test.group, **columns))
    return lines


def _judged(trend: Trend, line: Line, p_value: float) -> Line:
    """The line with its p adjusted over the table, and its verdict where it is comparable.

    That there is no trend is not shown by too few models to show one: enough are those of which ρ = 0.5 would be
    significant (p < .05, not adjusted, as adjusting would make it easier to find nothing).
    """
    columns = dict(vars(line))
    raw = line.order_p
    shown = p_value < SIGNIFICANCE
    holds = {
        "tips": shown and not math.isnan(line.ours),
        "up": shown and line.ours > 0,
        "down": shown and line.ours < 0,
        "none": raw >= SIGNIFICANCE,
    }[trend.trend]
    few = trend.trend == "none" and holds and line.n < _MODELS_FOR_NO_TREND
    p = raw if trend.trend == "none" else p_value
    if not math.isnan(p):
        told = "too few models to tell" if few else "holds" if holds else "does not hold"
        columns |= {"order": f"{line.order}, p = {p:.3g}: {told}", "order_p": p}
    if not line.verdict:
        if few:
            why = f"{line.n} models, {_MODELS_FOR_NO_TREND} would show ρ = 0.5: no trend is not shown by that"
            columns |= {"verdict": "not comparable", "why": why}
        else:
            why = f"{line.paper} (p < .05)" if holds and trend.trend != "none" else f"p = {p:.3g}"
            columns |= {"verdict": "agrees" if holds else "differs", "why": why}
    return Line(**columns)


@dataclass(frozen=True)
class Table:
    """A table of a paper beside ours; where the sweep has nothing of it, `lines` is empty and `why` says why."""

    item: Item
    lines: list[Line]
    of: int
    """How many numbers and statements of the paper there are to check."""
    why: str


def check(sweep: Sweep, table: str, *, reference_below: float | None = None) -> Table:
    """A table of a paper beside ours. Raises `InputError` for an unknown ID."""
    return _check(_Ours(sweep, reference_below), table)


def check_all(sweep: Sweep) -> list[Table]:
    """Every table of the papers whose methods the sweep has, beside ours."""
    ours = _Ours(sweep)
    return [_check(ours, table) for table in ITEMS if ours.is_of(table)]


def _check(ours: _Ours, table: str) -> Table:
    if table not in ITEMS:
        raise InputError(f"--table {table}: no such table; there are {', '.join(ITEMS)}")
    item = ITEMS[table]
    computed = _computed(table)
    checkable = [claim for claim in claims() if claim.table == table and claim.quantity and claim.settings]
    told = [trend for trend in trends() if trend.table == table]
    lines = [*_numbers(ours, table), *_statements(ours, table), *computed]
    why = ""
    if not lines and (checkable or told):
        why = _lacking(ours, [*checkable, *told])
    elif not lines:
        why = "no number of the paper's text that a sweep could be checked against"
    return Table(item, lines, len(checkable) + len(told) + len(computed), why)


def _lacking(ours: _Ours, wanted: Sequence[Claim | Trend]) -> str:
    if not any(ours.candidates(entry.settings) for entry in wanted):
        some = wanted[-1].settings
        return f"no trial with {', '.join(f'{name}={value}' for name, value in some.items())}"
    names = sorted({entry.quantity for entry in wanted} - {quantity.stem for quantity in ours.known.values()})
    return f"no measurement of {', '.join(names[:4])}{' …' if len(names) > 4 else ''}"


def rows_of(table: Table) -> pa.Table:
    """A checked table as Arrow: `verdict` and `why`, the paper's and our numbers."""
    fields = [pa.field(name, pa.string()) for name in ("table", "row", "column", "paper", "unit", "setting")]
    fields += [pa.field("n", pa.int64())]
    fields += [pa.field(name, pa.float64()) for name in ("value", "ours", "low", "high", "difference", "order_p")]
    fields += [pa.field(name, pa.string()) for name in ("order", "verdict", "why")]
    rows = []
    for line in table.lines:
        rows.append({"table": table.item.id, **vars(line)})
    return arrow(fields, rows)


def summary(table: Table) -> str:
    """ "3 agree, 1 differs, 2 not comparable"."""
    counts = Counter(line.verdict for line in table.lines)
    parts = [
        f"{counts['agrees']} agree{'s' if counts['agrees'] == 1 else ''}",
        f"{counts['differs']} differ{'s' if counts['differs'] == 1 else ''}",
        f"{counts['too wide to tell']} too wide to tell",
        f"{counts['not comparable']} not comparable",
        f"{counts['computed']} computed as printed",
    ]
    return ", ".join(part for part in parts if not part.startswith("0 "))
