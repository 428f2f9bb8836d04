"""What the papers say of the effect of strength, without a number, beside a sweep's tipping points and correlations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from analysis.command_line import InputError
from analysis.correlations import Correlations, correlations
from analysis.groups import Group, Row
from analysis.multiplicity import adjust
from analysis.paper.lines import SIGNIFICANCE, Finding, Line
from analysis.paper.ours import _Ours
from analysis.paper.printed import Trend, trends
from analysis.paper.protocol import _same, _unlike, _unlike_measured, told_of_declared
from analysis.tipping_points import PaperThreshold, TippingPoints, located, tipping_points

# of which Spearman's ρ = 0.5 has a two-sided p of .05
_MODELS_FOR_NO_TREND = 16


def _statements(ours: _Ours, table: str) -> list[Line]:
    told = [trend for trend in trends() if trend.table == table]
    drafts: list[tuple[Trend, Line]] = []
    for strength in dict.fromkeys(trend.strength for trend in told):
        those = [trend for trend in told if trend.strength == strength]
        groups = [group for trend in those for group in ours.candidates(trend.settings)]
        if all(row[strength] is None for group in groups for row in group.trials):
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
                drafts += [(trend, line) for line in _tips(ours, trend, points, problem)]
            elif trend.quantity in {ours.known[name].stem for name in metrics}:
                drafts += [(trend, line) for line in _follows(ours, trend, tests, problem)]
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


def _draft(trend: Trend, group: Group | None, values: Sequence[tuple[Row, int | None]] = (), **columns: Any) -> Line:
    """The line of a group's trials, of which `values` are those that have a number, and of how many images."""
    unlike = _unlike(group.trials[0], trend) if group is not None else []
    for row, n in values[:1]:
        unlike += _unlike_measured(row, trend, n)
    text = f"{trend.quantity} {_TRENDS[trend.trend]} with {trend.strength}"
    blank: dict[str, Any] = {
        "row": trend.statement,
        "column": trend.quantity,
        "paper": text,
        "setting": group.label() if group is not None and group.values else "",
        "n": 0 if group is None else len(group.trials),
        "verdict": "not comparable" if unlike else "",
        "why": "; ".join(unlike),
        "declared": told_of_declared(group.trials[0], trend) if group is not None else "",
    }
    return Line(**{**blank, **columns})


_TRENDS = {"up": "rises", "down": "falls", "none": "has no trend", "tips": "tips over"}


def _matches(group: Group, trend: Trend) -> bool:
    return all(_same(name, group.trials[0][name], value) for name, value in trend.settings.items())


def _tips(ours: _Ours, trend: Trend, points: TippingPoints | None, problem: str) -> list[Line]:
    if points is None:
        return [_draft(trend, None, verdict="not comparable", why=problem)]
    lines = []
    for curve in points.curves:
        if not _matches(curve.group, trend):
            continue
        ours.take(curve.group)
        if curve.fit is None:
            lines.append(_draft(trend, curve.group, verdict="not comparable", why=curve.reason))
            continue
        where = f"{located(curve.fit, trend.strength) or curve.fit.status}; {_rule(curve.rule)}"
        numbers: dict[str, Any] = {"ours": curve.fit.log10_strength, "low": curve.fit.low, "high": curve.fit.high}
        lines.append(_draft(trend, curve.group, **numbers, order=where, order_p=curve.fit.p_value))
    return lines


def _rule(rule: PaperThreshold | None) -> str:
    """What the paper's rule gives, with its limit."""
    if rule is None:
        return "the paper's rule does not apply"
    found = "none in range" if math.isnan(rule.strength) else f"{rule.strength:.4g}"
    return f"the paper's rule, limit {rule.reference_below:.4g}: {found}"


def _follows(ours: _Ours, trend: Trend, tests: Correlations | None, problem: str) -> list[Line]:
    if tests is None:
        return [_draft(trend, None, verdict="not comparable", why=problem)]
    lines = []
    for test in tests.tests:
        if test.quantity.stem != trend.quantity or not _matches(test.group, trend):
            continue
        ours.take(test.group)
        parts = (test.group.label() if test.group.values else "", test.quantity.with_options)
        columns: dict[str, Any] = {"setting": ", ".join(part for part in parts if part)}
        if test.reason:
            lines.append(_draft(trend, test.group, **columns, verdict="not comparable", why=test.reason))
            continue
        cut = "none beyond a threshold" if math.isinf(test.limit) else f"{test.dropped} beyond {test.limit:.4g}"
        told = f"ρ = {test.rho.rho:.2f} ({test.kept} models, {cut})"
        columns |= {"n": test.kept, "ours": test.rho.rho, "order": told, "order_p": test.rho.p_value}
        values = [(row, value.n) for row, value in zip(test.trials, test.values, strict=True)]
        lines.append(_draft(trend, test.group, values, **columns))
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
        told: Finding = "too few models to tell" if few else "holds" if holds else "does not hold"
        columns |= {"order": f"{line.order}, p = {p:.3g}: {told}", "order_p": p, "finding": told}
    if not line.verdict:
        if few:
            why = f"{line.n} models, {_MODELS_FOR_NO_TREND} would show ρ = 0.5: no trend is not shown by that"
            columns |= {"verdict": "not comparable", "why": why}
        else:
            why = f"{line.paper} (p < .05)" if holds and trend.trend != "none" else f"p = {p:.3g}"
            columns |= {"verdict": "agrees" if holds else "differs", "why": why}
    return Line(**columns)
